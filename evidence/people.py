"""Does it hold on real video? A list of actions by several persons, each person left out in turn.

Fixed before the first run: the centre clip of every video; three readouts (linear on the mean of the tokens, linear on
mean and spread over time, nearest neighbours); what is compared are features pre-trained on the stand-in (the encoder
that comes with the book), pre-trained on these videos without the person who is left out, random weights, and features
without a network. Whoever holds only one frame is among them: with a camera that stands still one frame says much.
Intervals are over persons.

The card holds numbers only, no frame and no name of a file.

Interrupt at will. ``OMP_NUM_THREADS=1 python -m evidence.people LIST.csv NAME``    writes data/people/NAME.json
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evidence.baselines import BASELINES
from evidence.experiments import trained
from evidence.readouts import mean_and_spread
from footage.lists import read_manifest
from picojepa import config, data, pretraining, probing, store
from picojepa.architecture import Encoder, new_encoder
from picojepa.clips import Clips, label_numbers
from picojepa.config import Settings
from picojepa.data import read_clips
from picojepa.features import encode, load_encoder

PEOPLE = store.DATA / "people"
CLIPS = 24_000  # seen in each pre-training on these videos
NEIGHBOURS = 5
RANDOM_SEEDS = (0, 1, 2)
WITHOUT_NETWORK = ("colour histogram", "PCA of pixels", "tiny pictures", "frame differences")
FIRST_FRAME = "first frame"
log = logging.getLogger(__name__)

Read = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # train, labels, test -> scores (n_test, classes)
READERS: dict[str, Read] = {
    "linear": probing.linear_probe,
    "k-NN": lambda train, labels, test: probing.knn_probe(train, labels, test, NEIGHBOURS),
}


def folds(clips: Clips) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and to be asked about, for each person who is left out."""
    groups = clips.videos.group
    return {person: (clips.select(groups != person), clips.select(groups == person)) for person in sorted({*groups})}


def pooled(encoder: Encoder, clips: Clips, slices: int) -> dict[str, np.ndarray]:
    """Mean of a clip's tokens, (n, D), and mean and spread over time, (n, 2 D)."""
    tokens = encode(encoder, clips.centre, pool=False)
    return {"mean": tokens.mean(1).numpy(), "mean and std": mean_and_spread(tokens, slices).numpy()}


def own_run(settings: Settings, clips: Clips, train: np.ndarray) -> Path:
    """Pre-train on the videos of the others; those of the person who is left out are not shown."""
    shown = replace(clips, training=clips.training[train], centre=clips.centre[train])
    shown = replace(shown, videos=clips.videos.iloc[train].reset_index(drop=True))
    shown = replace(shown, digest=store.digest([clips.digest, train.tolist()]))
    return pretraining.run(trained(settings, clips=CLIPS), shown)


def answers(settings: Settings, clips: Clips, bundled: Path) -> dict[str, dict[str, list[int]]]:
    """Right answers of every features and readout, {"features, readout": {person: [right, n]}}."""
    names = tuple(sorted({*clips.videos.label}))
    labels = label_numbers(clips.videos.label, names).numpy()
    slices, found = settings.grid[0], dict[str, dict[str, list[int]]]()

    def note(features: str, person: str, right: np.ndarray) -> None:
        k, n = found.setdefault(features, {}).get(person, [0, 0])
        found[features][person] = [k + int(right.sum()), n + len(right)]

    def read(
        features: str, person: str, train: np.ndarray, test: np.ndarray, of_train: np.ndarray, wanted: Any
    ) -> None:
        for readout, reader in READERS.items():
            note(f"{features}, {readout}", person, reader(train, of_train, test).argmax(1) == wanted)

    kinds = {"pre-trained on the stand-in": [load_encoder(bundled / "encoder.safetensors", settings)]}
    kinds["random weights"] = [new_encoder(settings.model, settings.grid, seed) for seed in RANDOM_SEEDS]
    first = [read_clips(path, settings.clip, [0.0])[0, 0].numpy().ravel() for path in clips.videos.path]
    frames = np.stack(first) / 255  # of each video, not of its centre clip
    frozen = {kind: [pooled(encoder, clips, slices) for encoder in of] for kind, of in kinds.items()}
    for person, (train, test) in folds(clips).items():
        log.info("left out: %s", person)
        run = own_run(settings, clips, train)
        own = pooled(load_encoder(run / "encoder.safetensors", settings), clips, slices)
        for kind, encoders in {**frozen, "pre-trained on these videos": [own]}.items():
            for features in encoders:
                for pool, values in features.items():
                    read(f"{kind}, {pool}", person, values[train], values[test], labels[train], labels[test])
        for name in WITHOUT_NETWORK:
            given = BASELINES[name](clips.centre[train], clips.centre[test])
            read(name, person, *given, labels[train], labels[test])
        near = probing.knn_probe(frames[train], labels[train], frames[test], 1).argmax(1)
        note(f"{FIRST_FRAME}, nearest neighbour", person, near == labels[test])
    return found


def card(path: Path, bundled: Path) -> dict[str, Any]:
    """The report of one list with a column ``group``.

    Raises:
        ValueError: the list has no column ``group``, or one person only.
    """
    videos = read_manifest(path)
    several = "group" in videos and videos.group.nunique() > 1
    if not several:
        raise ValueError(f"{path}: a column `group` must name at least two persons")
    settings = config.settings("laptop", "adapted")
    clips = data.load_clips(settings, videos.assign(split="pretrain"))  # every video is learned from in its turn
    facts = {"videos": len(clips.videos), "persons": int(videos.group.nunique()), "clips": CLIPS}
    facts |= {"classes": sorted({*clips.videos.label}), "encoder": bundled.name, "settings": store.plain(settings)}
    return facts | {"answers": answers(settings, clips, bundled)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path, help="path,label,group")
    parser.add_argument("name", help="of the card")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    bundled = next(store.BUNDLED.glob("pretraining.run-*"))
    PEOPLE.mkdir(exist_ok=True)
    store.write_json(PEOPLE / f"{asked.name}.json", card(asked.list.absolute(), bundled))


if __name__ == "__main__":
    main()
