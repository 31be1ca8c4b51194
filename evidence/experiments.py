"""Run the experiments behind the book and write one small JSON card for each run to data/cards.

Each experiment changes one thing of the training that the book does; `primary` changes nothing. Interrupt at will: the
next call goes on from the last checkpoint. Runs are done in the order of the list, seed by seed. One run of the
profile `laptop` takes about three minutes on two cores that do nothing else; two runs at once, each with one thread
(`OMP_NUM_THREADS=1`), do a third more in all.

python evidence/experiments.py [NAME ...] [--seeds N ...]    default: everything that has no card yet
"""

import argparse
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from evidence.records import CARDS
from picojepa import checkpoints, data, pretraining, probing, store
from picojepa.architecture import initialise, new_encoder, patchify
from picojepa.clips import Clips
from picojepa.config import Settings, as_published, settings
from picojepa.features import load_encoder
from picojepa.jepa import JEPA
from picojepa.machine import device, seeded
from standin import CLASSES, LABELLED_CLASSES

NOISE = 0.01  # share of the training videos that are unreadable in F10


class PixelJEPA(JEPA):
    """The same encoder and predictor, but what is predicted are pixels, as in a masked autoencoder.

    Source: He et al. 2022: each patch's pixels are normalised by their own mean and standard deviation.
    """

    def __init__(self, settings: Settings, seed: int) -> None:
        super().__init__(settings, seed)
        model = settings.model
        with seeded(seed + 1):
            self.predictor.leave = nn.Linear(model.predictor_width, 3 * model.tubelet * model.patch**2)
            initialise(self.predictor.leave)

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


def trained(settings: Settings, **changes: object) -> Settings:
    """Settings with some of the training's numbers changed."""
    return replace(settings, training=replace(settings.training, **changes))


def published(settings: Settings, *switches: str) -> Settings:
    """Settings with habits of the published code, in the precision of the others."""
    return trained(as_published(settings, *switches), precision=settings.training.precision)


def fine_grid(settings: Settings, **mask: object) -> Settings:
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


def pretrained(chosen: Settings, clips: Clips, objective: type[JEPA] | None) -> Path:
    """The finished run of these settings, as `pretraining.run` keeps it, with another objective if there is one."""
    if objective is None:
        return pretraining.run(chosen, clips)

    def make(folder: Path) -> dict[str, int]:
        with patch.dict(pretraining.RECIPES, {chosen.recipe: objective}):
            model = pretraining.pretrain(chosen, clips, folder)
        save_file(model.encoder.state_dict(), folder / "encoder.safetensors")
        steps = chosen.training.steps
        return {"steps": steps, "clips": steps * chosen.training.batch, "seed": chosen.training.seed}

    inputs = pretraining.training_inputs(chosen, clips) | {"objective": objective.__name__}
    return store.result("pretraining.run", inputs, make)


def run_of(name: str, base: Settings, clips: Clips, seed: int) -> tuple[Settings, Path]:
    """Settings of one run and its folder, found again or trained."""
    experiment = EXPERIMENTS[name]
    chosen = trained(experiment.change(base), seed=seed)
    return chosen, pretrained(chosen, experiment.data(clips), experiment.objective)


def probed(settings: Settings, clips: Clips, run: Path, task: probing.Task) -> pd.DataFrame:
    """Predictions of a run as `probing.probe_run` makes them; those of random weights are shared by runs of a seed."""
    seed, inputs = settings.training.seed, probing.task_inputs(settings, clips, task)
    shared = {"model": asdict(settings.model), "clip": asdict(settings.clip), "probe": inputs["probe"]}

    def random_table() -> pd.DataFrame:
        encoder = new_encoder(settings.model, settings.grid, seed).to(device())
        return probing.probe_encoder(encoder, settings, clips, task, "random weights")

    def pretrained_table() -> pd.DataFrame:
        encoder = load_encoder(run / "encoder.safetensors", settings)
        return probing.probe_encoder(encoder, settings, clips, task, "pre-trained")

    random = {**shared, "seed": seed, "data": clips.digest, "task": inputs["task"]}
    stored = {
        "probing.random": (random, random_table),
        "probing.trained": ({"run": run.name, **inputs}, pretrained_table),
    }
    return pd.concat([probing.stored_table(stage, *of) for stage, of in stored.items()], ignore_index=True)


def card(name: str, base: Settings, clips: Clips, seed: int) -> dict:
    """One run: its course, and pre-trained against random weights of the same seed with every probe, video by video."""
    experiment, (chosen, run) = EXPERIMENTS[name], run_of(name, base, clips, seed)
    scores = []
    for classes, labelled in ((CLASSES, False), (LABELLED_CLASSES, True)):
        task = probing.make_task(clips, classes, labelled_only=labelled)
        table = probed(chosen, clips, run, task)
        for (features, probe), group in table.groupby(["features", "probe"], sort=False):
            right = (group.predicted == group.label).astype(int)
            names = {"classes": len(classes), "features": features, "probe": probe}
            scores.append({**names, "right": int(right.sum()), "n": len(right), "by_video": "".join(map(str, right))})
    metrics = checkpoints.read_metrics(run)
    watched = metrics.dropna(subset=["spread"])
    course = {
        "watched_steps": watched.step.tolist(),
        **{key: watched[key].round(4).tolist() for key in ("loss", "spread", "effective_rank", "quick_probe")},
        "largest_gradient_norm": float(metrics.gradient_norm.max()),
        "clips_per_second": float(metrics.clips_per_second.median()),
    }
    facts = {"experiment": name, "what": experiment.what, "seed": seed, "settings": chosen.as_dict()}
    return {**store.card(run), **facts, "course": course, "scores": scores}


def asked(text: str | None, known: Mapping[str, tuple[int, ...]], folder: Path) -> tuple[bool, list]:
    """What the command line asks for: whether to do it again, and name, seed and card of each run.

    Args:
        text: of the help.
        known: seeds of each name.
        folder: where the cards are.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"known: {', '.join(known)}")
    parser.add_argument("--seeds", type=int, nargs="*", help="default: those of each")
    parser.add_argument("--again", action="store_true", help="also what has a card")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.names if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder.mkdir(exist_ok=True)
    profile = settings().profile
    runs = [
        (name, seed, folder / f"{name}-{profile}-{seed}.json")
        for name in chosen.names or known
        for seed in (known[name] if chosen.seeds is None else chosen.seeds)
    ]
    return chosen.again, runs


def main() -> None:
    again, wanted = asked(__doc__, {name: experiment.seeds for name, experiment in EXPERIMENTS.items()}, CARDS)
    waiting = [run for run in wanted if again or not run[2].exists()]
    base, start = settings(), time.perf_counter()
    clips = data.load_clips(base)
    for name, seed, path in tqdm(waiting, desc="experiments", unit="run"):
        store.write_atomically(path, json.dumps(card(name, base, clips, seed), indent=1, sort_keys=True))
        logging.info("written: %s", path.name)
    logging.info(
        "%d runs in %.0f s, %d had a card", len(waiting), time.perf_counter() - start, len(wanted) - len(waiting)
    )


if __name__ == "__main__":
    main()
