"""Run the experiments behind the book and write one small JSON card for each run to data/cards.

Each experiment changes one thing of V-JEPA's recipe; `primary` changes nothing. Interrupt at will: the
next call goes on from the last checkpoint. Runs are done in the order of the list, seed by seed. One run of the
profile `laptop` takes about three minutes on two cores that do nothing else; two runs at once, each with one thread
(`OMP_NUM_THREADS=1`), do a third more in all.

python -m evidence.experiments [NAME ...] [--seeds N ...] [--again]    default: everything that has no card yet
"""

import argparse
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from evidence.records import CARDS
from picojepa import checkpoints, data, pretraining, probing, store
from picojepa.architecture import initialise, patchify
from picojepa.clips import Clips
from picojepa.config import Settings, as_published, settings
from picojepa.jepa import JEPA
from picojepa.machine import seeded

NOISE = 0.01  # share of the training videos that are unreadable in F10


class PixelJEPA(JEPA):
    """The same encoder and predictor, but what is predicted are pixels, as in a masked autoencoder.

    Source: He et al. 2022: each patch's pixels are normalised by their own mean and standard deviation.
    """

    version = 1  # tests/test_experiments.py fails where the numbers changed and this did not

    def __init__(self, settings: Settings, seed: int) -> None:
        super().__init__(settings, seed)
        model = settings.model
        with seeded(seed + 1):
            self.predictor.leave = nn.Linear(model.predictor_width, 3 * model.tubelet * model.patch**2)
            initialise(self.predictor.leave, model.first_weights)

    def targets(self, clips: Tensor) -> Tensor:
        """Normalised pixels of every token, (B, N, pixels)."""
        pixels = patchify(clips, self.settings.model.tubelet, self.settings.model.patch)
        return F.layer_norm(pixels, pixels.shape[-1:])

    def distance(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        """Mean squared error, as in the masked autoencoder."""
        return F.mse_loss(predicted, wanted)


def with_noise(clips: Clips, share: float = NOISE) -> Clips:
    """F10: some training videos are uniform noise."""
    random = np.random.default_rng(0)
    training = np.array(clips.training)
    for video in random.choice(len(training), max(1, round(share * len(training))), replace=False):
        training[video] = random.integers(0, 256, training[video].shape, dtype=np.uint8)
    return replace(clips, training=training, digest=store.digest([clips.digest, "noise", share]))


def stills(clips: Clips) -> Clips:
    """V8: every training clip is its first frame, shown over and over."""
    training = np.broadcast_to(clips.training[:, :, :1], clips.training.shape)
    return replace(clips, training=training, digest=store.digest([clips.digest, "stills"]))


def trained(settings: Settings, **changes: Any) -> Settings:
    """Settings with some of the training's numbers changed."""
    return replace(settings, training=replace(settings.training, **changes))


def published(settings: Settings, *switches: str) -> Settings:
    """Settings with habits of the published code, in the precision of the others."""
    return trained(as_published(settings, *switches), precision=settings.training.precision)


def fine_grid(settings: Settings, **mask: Any) -> Settings:
    """A grid of 8x8 cells in place of 4x4; each clip costs over four times more, so a third of them is seen."""
    finer = replace(settings, model=replace(settings.model, patch=settings.model.patch // 2))
    return trained(finer, clips=settings.training.clips // 3, mask=replace(settings.training.mask, **mask))


@dataclass(frozen=True)
class Experiment:
    """One thing that is changed."""

    what: str
    change: Callable[[Settings], Settings] = lambda settings: settings
    seeds: tuple[int, ...] = (0, 1, 2)
    objective: type[JEPA] | None = None  # in place of that of the recipe
    data: Callable[[Clips], Clips] = lambda clips: clips


EXPERIMENTS = {
    "primary": Experiment("nothing is changed", seeds=(0, 1, 2, 3, 4)),
    "V2-no-ema": Experiment(
        "the target encoder is a copy of the context encoder at every step (no slow average); gradients are stopped",
        partial(trained, ema=(0.0, 0.0)),
    ),
    "V2-no-stop": Experiment(
        "no stop-gradient: one encoder for context and targets", partial(trained, stop_gradient=False)
    ),
    "F1": Experiment("runs of neighbouring tokens are hidden, not tubes", lambda s: published(s, "mask_runs")),
    "F2": Experiment("the context encoder sees the hidden tokens", lambda s: published(s, "encode_hidden")),
    "V6": Experiment("pixels are predicted, not features", objective=PixelJEPA),
    "V1": Experiment("squared error in place of absolute error", lambda s: published(s, "squared_error")),
    "F3": Experiment(
        "the mask token is never trained, its gradient adds up and enters the clipped norm",
        lambda s: published(s, "idle_mask_token"),
    ),
    "F4": Experiment(
        "dropout 0.1, also in the target encoder, which follows early",
        lambda s: published(s, "dropout", "noisy_target", "early_ema"),
    ),
    "F5": Experiment(
        "squared error on targets that are not normalised", lambda s: published(s, "squared_error", "raw_targets")
    ),
    "F10": Experiment("1 % of the training videos are noise", data=with_noise),
    "V11-slow": Experiment("the predictor learns at a third of the rate", partial(trained, predictor_rate=0.3)),
    "V11-fast": Experiment("the predictor learns at three times the rate", partial(trained, predictor_rate=3.0)),
    "V8": Experiment("trained on still frames", data=stills),
    "published": Experiment("all habits of the published code at once", as_published),
    "8x8": Experiment("a grid of 8x8 cells, a third of the clips", fine_grid),
    "8x8-multiblock": Experiment("8x8, multi-block masks", partial(fine_grid, strategy="multiblock")),
    "8x8-causal": Experiment("8x8, causal multi-block masks", partial(fine_grid, strategy="causal")),
    "8x8-half": Experiment("8x8, tubes that hide half of the cells", partial(fine_grid, ratio=0.5)),
    "8x8-most": Experiment("8x8, tubes that hide nine cells of ten", partial(fine_grid, ratio=0.9)),
    "rate-high": Experiment("ten times the learning rate", partial(trained, learning_rate=1e-2), seeds=(0,)),
    "rate-low": Experiment("a tenth of the learning rate", partial(trained, learning_rate=1e-4), seeds=(0,)),
    "ema-fast": Experiment("the target encoder follows faster", partial(trained, ema=(0.97, 1.0)), seeds=(0,)),
    "batch-small": Experiment("batches of 8 clips", partial(trained, batch=8), seeds=(0,)),
    "batch-large": Experiment("batches of 128 clips", partial(trained, batch=128), seeds=(0,)),
}


def run_of(name: str, base: Settings, clips: Clips, seed: int) -> tuple[Settings, Path]:
    """Settings of one run and its folder, found again or trained."""
    experiment = EXPERIMENTS[name]
    chosen = trained(experiment.change(base), seed=seed)
    return chosen, pretraining.run(chosen, experiment.data(clips), objective=experiment.objective)


def counted(right: np.ndarray) -> dict[str, Any]:
    """Right answers, bool (n,), counted and as one digit per video."""
    return {"right": int(right.sum()), "n": len(right), "by_video": "".join(map(str, right.astype(int)))}


def scores_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Right answers of a table of predictions, one row for each kind of features and probe."""
    groups = table.groupby(["features", "probe"], sort=False)
    return [
        {"features": features, "probe": probe, **counted((of.predicted == of.label).to_numpy())}
        for (features, probe), of in groups
    ]


def card(name: str, base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """One run: its course, and pre-trained against random weights of the same seed with every probe, video by video."""
    chosen, run = run_of(name, base, clips, seed)
    scores = []
    for classes, labelled in ((data.classes(clips.videos), False), (data.labelled_classes(clips.videos), True)):
        task = probing.make_task(clips, classes, labelled)
        table = probing.probe_run(chosen, clips, run, task)
        scores += [{"classes": len(classes), **row} for row in scores_of(table)]
    metrics = checkpoints.read_metrics(run)
    watched = metrics.dropna(subset=["spread"])
    course = {
        "watched_steps": watched.step.tolist(),
        **{key: watched[key].round(4).tolist() for key in ("loss", "spread", "effective_rank", "quick_probe")},
        "largest_gradient_norm": float(metrics.gradient_norm.max()),
        "clips_per_second": float(metrics.clips_per_second.median()),
    }
    facts = {"experiment": name, "what": EXPERIMENTS[name].what, "seed": seed, "settings": chosen.as_dict()}
    return {**store.card(run), **facts, "course": course, "scores": scores}


def write_cards(
    text: str | None,
    seeds: Mapping[str, tuple[int, ...]],
    folder: Path,
    make: Callable[[str, Settings, Clips, int], dict[str, Any]],
) -> None:
    """Make the cards that the command line asks for and that are not there yet, one after the other.

    Args:
        text: of the help.
        seeds: of each known name, in the order in which they are done.
        folder: where the cards are.
        make: (name, settings, clips, seed) -> a card.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"known: {', '.join(seeds)}")
    parser.add_argument("--seeds", type=int, nargs="*", help="default: those of each")
    parser.add_argument("--again", action="store_true", help="also what has a card")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in seeds]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(seeds)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    base, start = settings(recipe="vjepa"), time.perf_counter()
    named = [(name, seed) for name in asked.names or seeds for seed in asked.seeds or seeds[name]]
    paths = {(name, seed): folder / f"{name}-{base.profile}-{seed}.json" for name, seed in named}
    waiting = {key: path for key, path in paths.items() if asked.again or not path.exists()}
    clips = data.load_clips(base)
    folder.mkdir(exist_ok=True)
    for (name, seed), path in tqdm(waiting.items(), desc=folder.name, unit="card"):
        store.write_json(path, make(name, base, clips, seed))
        logging.info("written: %s", path.name)
    there = len(paths) - len(waiting)
    logging.info("%d cards in %.0f s, %d were there", len(waiting), time.perf_counter() - start, there)


def main() -> None:
    write_cards(__doc__, {name: experiment.seeds for name, experiment in EXPERIMENTS.items()}, CARDS, card)


if __name__ == "__main__":
    main()
