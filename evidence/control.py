"""Does pre-training help? Five seeds against random weights and against features without a network.

Two of them against a twin as well that spreads its features and predicts nothing.

Everything is asked of data seed 2, on which nothing was tuned: 4 000 test videos, four readouts, all labels and a
tenth of them. What must hold was written down before the first run: see `CONDITIONS`.

Interrupt at will; two processes with one thread each share the seeds: ``--part 1/2`` and ``--part 2/2``, and without
``--part`` what is finished is put together.

python -m evidence.control [--part K/N]    writes data/control.json, hours
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from evidence.baselines import BASELINES
from evidence.experiments import trained
from evidence.gates import ask
from evidence.pilot import QUESTIONS, SpreadingAlone
from evidence.readouts import READOUTS, SHARES, labelled_share, readouts
from evidence.records import CONTROL
from evidence.supervision import supervised, supervision
from picojepa import checkpoints, data, pretraining, probing, store
from picojepa import config as configuration
from picojepa.architecture import new_encoder
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.features import load_encoder
from picojepa.probing import Task
from picojepa.stats import seed_interval

BASELINE = store.Stage("control.baseline", version=1)
TUNED = store.Stage("control.fine_tuning", version=1)
SEEDS = (100, 101, 102, 103, 104)
TWINS = SEEDS[:2]  # trained once more with nothing to predict: what of a lead is the spreading term's
MEAN = "mean of the four"
TUNED_SHARE = 0.1  # of the labels, for fine-tuning

# What must hold, of the report that `control` returns.
CONDITIONS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "every lead over random weights is above 0": lambda r: all(row["lead_low"] > 0 for row in r["readouts"]),
    "mean lead with all labels is at least 15 points": lambda r: mean_lead(r["readouts"], 1.0) >= 15,
    "mean lead with a tenth of the labels is at least 10 points": lambda r: mean_lead(r["readouts"], 0.1) >= 10,
    "above every baseline without a network, but for k-NN": lambda r: all(
        row["pretrained"] > row["baseline"] for row in r["readouts"] if row["readout"] not in ("k-NN", MEAN)
    ),
    "what predicts is above what only spreads its features, mean over the readouts": lambda r: all(
        mean_lead(r["twins"], share) > 0 for share in SHARES
    ),
    "fine-tuning beats training from scratch by at least 5 points": lambda r: r["fine_tuning"]["lead"] >= 5,
    "the motion question is read better than by chance and from random weights": lambda r: all(
        row["pretrained"] > max(50.0, row["random"]) for row in r["questions"]["travel"] if row["labels"] == 1.0
    ),
    "no seed ends with less than half of its largest rank": lambda r: all(
        course["rank"][-1] >= max(course["rank"]) / 2 for course in r["courses"]
    ),
}


def mean_lead(rows: Sequence[Mapping[str, Any]], share: float) -> float:
    """Mean lead over the four readouts with a share of the labels, points."""
    return next(row["lead"] for row in rows if (row["readout"], row["labels"]) == (MEAN, share))


def control_settings(seed: int, data_seed: int = 2) -> Settings:
    """The recipe under test, on data that nothing was tuned on, with 400 test videos of every action."""
    base = configuration.settings("laptop", "adapted")
    base = replace(base, data=replace(base.data, seed=data_seed, validation_each=400, counter_each=50))
    base = replace(base, probe=replace(base.probe, seed=seed))  # from scratch, every seed has a start of its own
    return trained(base, seed=seed)


def baseline(settings: Settings, clips: Clips, name: str, share: float, neighbours: bool) -> float:
    """Accuracy in percent of features without a network, read with the linear probe or with nearest neighbours."""
    task = ask(clips, "action")
    chosen, probe = labelled_share(task, share), "k-NN" if neighbours else "linear"
    inputs = {"data": clips.digest, "asked": [name, share, probe, settings.probe.neighbours]}
    with store.result(BASELINE, inputs) as result:
        if result.missing:
            train, test = BASELINES[name](clips.centre[task.train][chosen], clips.centre[task.test])
            labels = task.train_labels[chosen].numpy()
            if neighbours:
                scores = probing.knn_probe(train, labels, test, settings.probe.neighbours)
            else:
                scores = probing.linear_probe(train, labels, test)
            right = scores.argmax(1) == task.test_labels.numpy()
            store.write_json(result.folder / "accuracy.json", round(100 * float(right.mean()), 2))
    return json.loads((result.folder / "accuracy.json").read_text())


def fine_tuned(settings: Settings, clips: Clips, run: Any) -> dict[str, float]:
    """Accuracy in percent of a network trained on a tenth of the labels, from a run's encoder and from scratch."""
    whole = ask(clips, "action")
    chosen = labelled_share(whole, TUNED_SHARE)
    task: Task = replace(whole, train=whole.train[chosen], train_labels=whole.train_labels[chosen])
    inputs = {"run": run.name, "data": clips.digest, "probe": store.plain(settings.probe)}
    with store.result(TUNED, inputs | {"training": supervision(settings)}) as result:
        if result.missing:
            starts = {"fine-tuned": load_encoder(run / "encoder.safetensors", settings), "from scratch": None}
            found = {}
            for name, start in starts.items():
                scores = torch.from_numpy(supervised(settings, clips, task, start))
                found[name] = round(100 * float((scores.argmax(1) == task.test_labels).float().mean()), 2)
            store.write_json(result.folder / "accuracy.json", found)
    return json.loads((result.folder / "accuracy.json").read_text())


def of_seed(settings: Settings, clips: Clips) -> dict[str, Any]:
    """All that is known of one seed: readouts of random and pre-trained weights, fine-tuning, the run's course.

    Of `TWINS` also those of an encoder that was trained alike, with nothing to predict.
    """
    tasks = {question: ask(clips, question) for question in QUESTIONS}
    seed = settings.training.seed
    untrained = new_encoder(settings.model, settings.grid, seed)
    run = pretraining.run(settings, clips)
    encoder = load_encoder(run / "encoder.safetensors", settings)
    watched = checkpoints.read_metrics(run).dropna(subset=["spread"])
    course = {"seed": seed, "run": run.name, "step": watched.step.tolist()}
    course |= {name: watched[key].round(3).tolist() for name, key in (("rank", "effective_rank"), ("spread", "spread"))}
    found = {
        "random": readouts(untrained, f"random weights {seed}", settings, clips, tasks),
        "pretrained": readouts(encoder, run.name, settings, clips, tasks),
        "fine_tuning": fine_tuned(settings, clips, run),
        "course": course,
    }
    if seed in TWINS:
        twin = pretraining.run(settings, clips, objective=SpreadingAlone)
        spread = load_encoder(twin / "encoder.safetensors", settings)
        found["spread"] = readouts(spread, twin.name, settings, clips, tasks)
    return found


def lead_row(ours: np.ndarray, theirs: np.ndarray, over: str) -> dict[str, Any]:
    """Means over seeds of two accuracies, (seeds,), their difference with its interval, and each seed."""
    lead, low, high = seed_interval(ours - theirs)
    found = {"pretrained": ours.mean(), over: theirs.mean(), "lead": lead, "lead_low": low, "lead_high": high}
    by_seed = {"pretrained": ours.round(2).tolist(), over: theirs.round(2).tolist()}
    return {key: round(float(value), 2) for key, value in found.items()} | {"by_seed": by_seed}


def leads(found: Sequence[Mapping[str, Any]], question: str, over: str = "random") -> list[dict[str, Any]]:
    """One row for each readout and share of the labels, and for the mean of the readouts; see `lead_row`."""
    rows = []
    for share in SHARES:
        asked = {
            kind: np.array([[of[kind][question][readout][str(share)] for readout in READOUTS] for of in found])
            for kind in ("pretrained", over)
        }  # each (seeds, readouts)
        asked = {kind: np.column_stack([of, of.mean(1)]) for kind, of in asked.items()}
        for place, readout in enumerate((*READOUTS, MEAN)):
            row = lead_row(asked["pretrained"][:, place], asked[over][:, place], over)
            rows.append({"readout": readout, "labels": share, **row})
    return rows


def control(made: Callable[[int], Settings], clips: Clips, seeds: Sequence[int]) -> dict[str, Any]:
    """The report: every lead, the best baseline beside it, fine-tuning, the other questions, and what holds."""
    found = [of_seed(made(seed), clips) for seed in seeds]
    rows = leads(found, "action")
    for row in (row for row in rows if row["readout"] != MEAN):
        how = {"share": row["labels"], "neighbours": row["readout"] == "k-NN"}
        accuracies = {name: baseline(made(seeds[0]), clips, name, **how) for name in BASELINES}
        row["best_baseline"] = max(accuracies, key=lambda name: accuracies[name])
        row["baseline"] = accuracies[row["best_baseline"]]
    tuned, twins = [of["fine_tuning"] for of in found], [of for of in found if "spread" in of]
    lead, low, high = seed_interval([of["fine-tuned"] - of["from scratch"] for of in tuned])
    report: dict[str, Any] = {
        "seeds": len(seeds),
        "settings": store.plain(made(seeds[0])),
        "readouts": rows,
        "twins": leads(twins, "action", over="spread"),
        "twins_travel": leads(twins, "travel", over="spread"),
        "fine_tuning": {"labels": TUNED_SHARE, "lead": lead, "lead_low": low, "lead_high": high, "of_seeds": tuned},
        "questions": {question: leads(found, question) for question in QUESTIONS},
        "courses": [of["course"] for of in found],
    }
    return report | {"conditions": {name: bool(holds(report)) for name, holds in CONDITIONS.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", help="K/N: only make the K-th of N parts of the seeds")
    asked = parser.parse_args()
    clips = data.load_clips(control_settings(SEEDS[0]))
    if asked.part:
        part, parts = map(int, asked.part.split("/"))
        for seed in SEEDS[part - 1 :: parts]:
            of_seed(control_settings(seed), clips)
        return
    report = control(control_settings, clips, SEEDS)
    store.write_json(CONTROL, report)
    for name, holds in report["conditions"].items():
        print(f"{'holds    ' if holds else 'NOT HELD '} {name}")


if __name__ == "__main__":
    main()
