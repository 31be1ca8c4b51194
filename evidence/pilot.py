"""Which recipe learns? Short runs on the tuning data (seed 0), every try in data/pilot.csv.

Interrupt at will: what is finished is found again, and a run goes on from its checkpoint. Two at a time, with one
thread each: ``OMP_NUM_THREADS=1 python -m evidence.pilot --part 1/2 &`` and the same with ``2/2``.

python -m evidence.pilot [NAME ...] [--clips N] [--part K/N] [--seeds N ...]
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor

from evidence.experiments import trained
from evidence.gates import ask, gate_settings
from evidence.readouts import READOUTS, SHARES, readouts
from picojepa import checkpoints, config, data, pretraining, store
from picojepa.architecture import new_encoder
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.features import load_encoder
from picojepa.jepa import JEPA
from picojepa.masking import Mask, MaskConfig

PILOT = store.DATA / "pilot.csv"
CLIPS = 12_000  # of a short run: 375 steps
SEEDS = (0,)  # of the weights, the masks and the order of the videos
QUESTIONS = ("action", "scene", "travel")
VC: dict[str, Any] = {"spreading": "variance-covariance"}
SIG: dict[str, Any] = {"spreading": "SIGReg"}
CENTRED: dict[str, Any] = {"target": "minus clip mean"}
COARSE = 16  # pixels of the larger patches
HALF = MaskConfig(ratio=0.5)
ALONE = ", nothing predicted"  # ends the name of a try that only spreads its features


class SpreadingAlone(JEPA):
    """The features of context tokens are spread and nothing is predicted: what of a gain the term gives alone."""

    version = 1

    def forward(self, clips: Tensor, masks: list[Mask]) -> tuple[Tensor, Tensor]:
        """The term of every mask's context, averaged; no target is made and the predictor is not asked."""
        loss = torch.stack([self.spreading(self.encode(clips, mask.context).float()) for mask in masks]).mean()
        return loss, torch.zeros_like(loss)


def coarse(settings: Settings, change: Callable[[Settings], Settings] = lambda settings: settings) -> Settings:
    """With patches of `COARSE` pixels: a quarter of the tokens, a fifth of the time."""
    return change(replace(settings, model=replace(settings.model, patch=COARSE)))


def adapted(settings: Settings, model: Mapping[str, Any] | None = None, **training: Any) -> Settings:
    """The recipe of this name with coarse patches, but for what is named of its model and its training."""
    base = config.adapted(coarse(settings))
    return trained(replace(base, model=replace(base.model, **(model or {}))), **training)


# Name -> what is changed of the settings that all tries share; random weights are the same encoder untrained.
TRIES: dict[str, Callable[[Settings], Settings]] = {
    "random weights": lambda settings: settings,
    "V-JEPA, EMA scaled": lambda settings: settings,
    "V-JEPA, EMA .996, variance-covariance": partial(trained, ema=(0.996, 0.996), **VC),
    "V-JEPA, EMA scaled, variance-covariance": partial(trained, **VC),
    "EMA scaled, variance-covariance .3": partial(trained, spreading_weight=0.3, **VC),
    "EMA scaled, variance-covariance .1": partial(trained, spreading_weight=0.1, **VC),
    "EMA scaled, variance-covariance .1, half hidden": partial(trained, spreading_weight=0.1, mask=HALF, **VC),
    "EMA scaled, variance-covariance .03": partial(trained, spreading_weight=0.03, **VC),
    "patch 16, random weights": coarse,
    "patch 16, EMA scaled, variance-covariance": partial(coarse, change=partial(trained, **VC)),
    "patch 16, EMA scaled, variance-covariance .1": partial(
        coarse, change=partial(trained, spreading_weight=0.1, **VC)
    ),
    "patch 16, minus clip mean, EMA scaled, variance-covariance .1": partial(
        coarse, change=partial(trained, spreading_weight=0.1, **CENTRED, **VC)
    ),
    "all blocks, EMA scaled": partial(trained, target="all blocks"),
    "minus clip mean, EMA scaled": partial(trained, **CENTRED),
    "V-JEPA, EMA scaled, SIGReg": partial(trained, **SIG),
    "minus clip mean, EMA scaled, variance-covariance": partial(trained, **CENTRED, **VC),
    "all blocks, EMA scaled, variance-covariance": partial(trained, target="all blocks", **VC),
    "minus clip mean, EMA scaled, SIGReg": partial(trained, **CENTRED, **SIG),
    "V-JEPA, EMA .99": partial(trained, ema=(0.99, 0.99)),
    "V-JEPA, EMA .996": partial(trained, ema=(0.996, 0.996)),
    "all blocks, EMA scaled, SIGReg": partial(trained, target="all blocks", **SIG),
}
TRIES |= {
    "adapted": adapted,
    "adapted, random weights": adapted,
    "adapted, V-JEPA's targets": partial(adapted, target="last block"),
    "adapted, no term": partial(adapted, spreading="none"),
    "adapted, three quarters hidden": partial(adapted, mask=MaskConfig(ratio=0.75)),
    "adapted, linear embedding": partial(adapted, model={"embedding": "linear"}),
    "adapted, first weights of 0.02": partial(adapted, model={"first_weights": 0.02}),
}
TRIES |= {name + ALONE: TRIES[name] for name in ("EMA scaled, variance-covariance .1, half hidden", "adapted")}


def pilot_settings(seen: int = CLIPS) -> Settings:
    """What all tries share."""
    base = gate_settings()
    return trained(base, clips=seen, watch_every=25)


def attempt(name: str, seed: int, clips: Clips, seen: int = CLIPS) -> dict[str, Any]:
    """One line of the table: settings that matter, the course of the run, and every readout."""
    settings = trained(TRIES[name](pilot_settings(seen)), seed=seed)
    training, course = settings.training, {}
    if name.endswith("random weights"):
        encoder, key = new_encoder(settings.model, settings.grid, seed), f"random weights {seed}"
    else:
        run = pretraining.run(settings, clips, objective=SpreadingAlone if name.endswith(ALONE) else None)
        encoder, key = load_encoder(run / "encoder.safetensors", settings), run.name
        metrics = checkpoints.read_metrics(run).dropna(subset=["spread"])
        course = {"rank first": metrics.effective_rank.iloc[0], "rank last": metrics.effective_rank.iloc[-1]}
        course |= {"rank lowest": metrics.effective_rank.min(), "similarity": metrics.similarity.iloc[-1]}
        course = {what: round(float(value), 3) for what, value in course.items()}
    found = readouts(encoder, key, settings, clips, {question: ask(clips, question) for question in QUESTIONS})
    row: dict[str, Any] = {"try": name, "seed": seed, "clips": 0 if name.endswith("random weights") else training.clips}
    row |= {"target": training.target, "spreading": training.spreading, "first EMA": round(training.momenta[0], 5)}
    row |= {
        "patch": settings.model.patch,
        "embedding": settings.model.embedding,
        "hidden": training.mask.ratio,
        **course,
    }
    for question in QUESTIONS:
        for readout in READOUTS:
            for share in SHARES:
                row[f"{question}, {readout}, {share:g}"] = found[question][readout][str(share)]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"known: {'; '.join(TRIES)}")
    parser.add_argument("--part", default="1/1", help="K/N: the K-th of N processes that share the work")
    parser.add_argument("--clips", type=int, default=CLIPS, help="seen by a run")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    asked = parser.parse_args()
    if unknown := {*asked.names} - {*TRIES}:
        parser.error(f"unknown: {', '.join(unknown)}")
    part, parts = map(int, asked.part.split("/"))
    clips = data.load_clips(gate_settings())
    todo = [(name, seed) for seed in asked.seeds for name in asked.names or TRIES]
    for name, seed in todo[part - 1 :: parts]:
        row = attempt(name, seed, clips, asked.clips)
        print(json.dumps(row), flush=True)
        add(row)


def add(row: dict[str, Any]) -> None:
    """Put a line into the table in place of an older one of the same try; several processes may do so at once."""
    keys = ["try", "seed", "clips"]
    with FileLock(store.cache_folder() / "pilot.lock"):
        rows = pd.read_csv(PILOT).to_dict("records") if PILOT.exists() else []
        rows = [old for old in rows if any(old[key] != row[key] for key in keys)]
        table = pd.DataFrame([*rows, row]).sort_values(["clips", "try", "seed"])
        store.write_atomically(PILOT, table.to_csv(index=False))


if __name__ == "__main__":
    main()
