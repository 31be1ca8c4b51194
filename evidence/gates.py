"""Is the stand-in worth learning from? What shortcuts give away, what supervision reaches, against limits set before.

The limits were set before any JEPA was trained on these videos, but for that of random tokens: it came with that
reader, after the first pilot, before the reader was asked about still frames. The network that is supervised came after
the pilot too. All are asked of data seed 0, the one that everything is tuned on.

python -m evidence.gates    writes data/gates.json; minutes for the baselines, above half an hour for supervision
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from evidence import convolutions
from evidence.baselines import BASELINES
from evidence.readouts import mean_and_spread
from picojepa import config as configuration
from picojepa import data, probing, store
from picojepa.architecture import new_encoder
from picojepa.clips import Clips, label_numbers
from picojepa.config import Settings
from picojepa.features import encode
from picojepa.stats import wilson
from standin import COUNTER

GATES = store.DATA / "gates.json"
SHORTCUT = store.Stage("gates.shortcut", version=1)
TOKENS = store.Stage("gates.tokens", version=1)
SUPERVISED = store.Stage("gates.supervised", version=2)
SEEN = {"action": 72_000, "travel": 16_000}  # clips of supervised training for each question
TEST_EACH, COUNTER_EACH = 100, 50  # videos of every action
PATCH = 8  # pixels, of the random tokens: small against a figure

# (question, features) -> smallest and largest accuracy in percent that the stand-in may give.
LIMITS = {
    ("action", "colour histogram"): (0, 20),
    ("action", "PCA of pixels"): (0, 25),
    ("action", "tiny pictures"): (0, 27),
    ("action", "frame differences"): (0, 40),
    ("scene", "colour histogram"): (0, 60),
    ("travel", "random tokens of still frames"): (47, 53),
    ("travel", "supervised on still frames"): (47, 53),
    ("action", "supervised"): (80, 100),
}
COLUMNS = {"action": "label", "scene": "scene", "travel": "travel"}
ALSO = (("travel", "PCA of pixels"), ("travel", "frame differences"), ("scene", "frame differences"))


def gate_settings(seed: int = 0) -> Settings:
    """The profile laptop with test videos enough for an interval of three points, and the counter-list."""
    base = configuration.settings("laptop", "vjepa")
    drawn = replace(base.data, seed=seed, validation_each=TEST_EACH, counter_each=COUNTER_EACH)
    return replace(base, data=drawn, model=replace(base.model, patch=PATCH))


def ask(clips: Clips, question: str, split: str = "validation") -> probing.Task:
    """A question about every video: action, scene or travel. Test videos are those of a split."""
    videos, column = clips.videos, COLUMNS[question]
    names = tuple(sorted(videos[column].unique()))
    train, test = (clips.select(videos.split == s) for s in ("pretrain", split))
    answers = (label_numbers(videos[column].iloc[rows], names) for rows in (train, test))
    return probing.Task(names, train, test, *answers)


def answers(stage: store.Stage, inputs: dict[str, Any], task: probing.Task, scores: Callable[[], Any]) -> list[int]:
    """Right answers, 1 or 0 for every test video, stored: of probabilities (n_test, classes) or found again."""
    with store.result(stage, inputs) as result:
        if result.missing:
            right = scores().argmax(1) == task.test_labels.numpy()
            store.write_json(result.folder / "right.json", right.astype(int).tolist())
    return json.loads((result.folder / "right.json").read_text())


def shortcut(clips: Clips, question: str, name: str, split: str = "validation") -> list[int]:
    """Right answers of a linear probe on features without a network."""
    task = ask(clips, question, split)

    def scores() -> np.ndarray:
        train, test = BASELINES[name](clips.centre[task.train], clips.centre[task.test])
        return probing.linear_probe(train, task.train_labels.numpy(), test)

    return answers(SHORTCUT, {"data": clips.digest, "asked": [question, name, split]}, task, scores)


def stills(clips: Clips) -> Clips:
    """Every clip as its frame in the middle, shown over and over."""
    middle = clips.centre.shape[1] // 2
    training = np.broadcast_to(clips.training[:, :, middle : middle + 1], clips.training.shape)
    centre = np.broadcast_to(clips.centre[:, middle : middle + 1], clips.centre.shape)
    return replace(clips, training=training, centre=centre, digest=store.digest([clips.digest, "middle frames"]))


def tokens(settings: Settings, clips: Clips, question: str) -> list[int]:
    """Right answers of a linear probe on mean and spread of random tokens."""
    task, seed = ask(clips, question), settings.training.seed

    def scores() -> np.ndarray:
        encoder, slices = new_encoder(settings.model, settings.grid, seed), settings.grid[0]
        parts = (encode(encoder, clips.centre[rows], pool=False) for rows in (task.train, task.test))
        train, test = (mean_and_spread(part, slices).numpy() for part in parts)
        return probing.linear_probe(train, task.train_labels.numpy(), test)

    inputs = {"data": clips.digest, "question": question, "model": store.plain(settings.model), "seed": seed}
    return answers(TOKENS, inputs, task, scores)


def supervised(clips: Clips, question: str, seen: int) -> list[int]:
    """Right answers of a network trained on the question with ``seen`` clips."""
    task, flips = ask(clips, question), question != "travel"
    inputs = {"data": clips.digest, "question": question, "clips": seen}
    return answers(SUPERVISED, inputs, task, lambda: convolutions.supervised(clips, task, seen, flips))


def row(question: str, features: str, right: list[int], split: str = "validation") -> dict[str, Any]:
    """One line of the report, with the limits where there are some."""
    low, high = wilson(sum(right), len(right))
    found: dict[str, Any] = {
        "question": question,
        "features": features,
        "split": split,
        "right": sum(right),
        "n": len(right),
    }
    found |= {"accuracy": 100 * np.mean(right), "low": 100 * low, "high": 100 * high}
    if limits := LIMITS.get((question, features)) if split == "validation" else None:
        found |= {"limits": limits, "held": bool(limits[0] <= found["accuracy"] <= limits[1])}
    return found


def report(settings: Settings, clips: Clips, nets: Mapping[str, int] = SEEN) -> list[dict[str, Any]]:
    """All lines: every shortcut, the counter-list, and supervision by so many clips for each question."""
    rows = []
    for question, name in [*LIMITS, *ALSO]:
        if name in BASELINES:
            rows.append(row(question, name, shortcut(clips, question, name)))
    for name in BASELINES:
        rows.append(row("action", name, shortcut(clips, "action", name, COUNTER), COUNTER))
    for features, shown in (("random tokens", clips), ("random tokens of still frames", stills(clips))):
        rows.append(row("travel", features, tokens(settings, shown, "travel")))
    for question, seen in nets.items():
        rows.append(row(question, "supervised", supervised(clips, question, seen)))
        if question == "travel":
            rows.append(row(question, "supervised on still frames", supervised(stills(clips), question, seen)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shortcuts", action="store_true", help="without the trained networks")
    asked = parser.parse_args()
    settings = gate_settings()
    clips = data.load_clips(settings)
    rows = report(settings, clips, {} if asked.shortcuts else SEEN)
    store.write_json(GATES, {"data": store.plain(settings.data), "rows": rows})
    for line in rows:
        mark = {True: "held", False: "NOT HELD", None: ""}[line.get("held")]
        asked_of = f"{line['question']}, {line['features']}, {line['split']}"
        print(f"{asked_of:60} {line['accuracy']:5.1f} %  ({line['low']:.1f} to {line['high']:.1f})  {mark}")


if __name__ == "__main__":
    main()
