"""Runs behind the evidence: one training of a few minutes each, judged by the same readouts, with one card each.

A list of trials, such as `factorial`, is committed before the first of them is run. What is finished has a card in
data/trials, and is not done again; a run that was killed goes on from its checkpoint.

Two processes with one thread each do more than one with two:
``OMP_NUM_THREADS=1 python -m evidence.trials --part 1/2 &`` and the same with ``2/2``.

python -m evidence.trials [NAME ...] [--part K/N]    names of lists; default: all, in order
"""

import argparse
import base64
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from evidence.control import control_settings
from evidence.experiments import trained
from evidence.gates import ask
from evidence.readouts import READOUTS, right_answers
from picojepa import checkpoints, data, pretraining, store
from picojepa.architecture import Encoder, new_encoder
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.features import encode, load_encoder
from picojepa.jepa import JEPA

TRIALS = store.DATA / "trials"
LISTS = ("factorial",)  # modules beside this with TRIALS, in the order of the work
QUESTIONS = ("action", "travel")
CLIPS = 24_000  # seen by a run
SEEN_TWICE = 500  # training videos whose clips `lidar` compares


@dataclass(frozen=True)
class Trial:
    """One training and its judgement.

    Attributes:
        name: of the trial and its card.
        seed: of weights, masks, order of the videos and readouts.
        change: what is changed of the settings that all trials share.
        objective: in place of that of the recipe.
        levels: of the factors of a factorial, -1 or 1.
        trained: False: random weights are judged.
    """

    name: str
    seed: int
    change: Callable[[Settings], Settings] = lambda settings: settings
    objective: type[JEPA] | None = None
    levels: Mapping[str, int] = field(default_factory=dict)
    trained: bool = True


def trial_settings(seed: int) -> Settings:
    """What all trials share: data and readouts of the control, the recipe ``adapted``, a short run."""
    return trained(control_settings(seed), clips=CLIPS, watch_every=75)


def lidar(features: Tensor) -> float:
    """Effective rank of what tells videos apart, from features (n videos, q clips, D) of several clips each.

    Directions in which the clips of one video differ are divided by how much they do, as in linear discriminant
    analysis; between 1 and D.

    Source: Thilak et al. 2024 (LiDAR).
    """
    features = features.double()
    centres = features.mean(1)  # (n, D)
    inside, between = (features - centres.unsqueeze(1)).flatten(0, 1), centres - centres.mean(0)
    own = inside.T @ inside / len(inside)
    values, axes = torch.linalg.eigh(own + 1e-4 * own.diagonal().mean() * torch.eye(len(own)).to(own))
    whitened = between @ (axes / values.sqrt()) @ axes.T  # (n, D)
    share = torch.linalg.svdvals(whitened).square()
    share = share / share.sum()
    return float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))


def packed(right: np.ndarray) -> str:
    """Right answers, bool (n,), as text: eight videos a byte, base64."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpacked(text: str, n: int) -> np.ndarray:
    """What `packed` made of n answers."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=n).astype(bool)


def encoder_of(trial: Trial, settings: Settings, clips: Clips) -> tuple[Encoder, str, dict[str, Any]]:
    """The encoder of a trial, trained or found again, the name of its run, and how the run went."""
    if not trial.trained:
        return new_encoder(settings.model, settings.grid, trial.seed), f"random weights {trial.seed}", {}
    run = pretraining.run(settings, clips, objective=trial.objective)
    watched = checkpoints.read_metrics(run).dropna(subset=["spread"])
    course = {"step": watched.step.tolist()}
    for key in ("loss", "similarity", "spread", "effective_rank", "quick_probe"):
        course[key] = watched[key].round(4).tolist()
    card = store.card(run)
    course |= {key: card[key] for key in ("seconds", "machine", "torch", "date")}
    return load_encoder(run / "encoder.safetensors", settings), run.name, course


def card(trial: Trial, clips: Clips) -> dict[str, Any]:
    """All that is known of a trial."""
    settings = trial.change(trial_settings(trial.seed))
    encoder, run, course = encoder_of(trial, settings, clips)
    tasks = {question: ask(clips, question) for question in QUESTIONS}
    right = right_answers(encoder, run, settings, clips, tasks)
    several = clips.training[np.linspace(0, len(clips.training) - 1, SEEN_TWICE).astype(int)]
    features = encode(encoder, several.reshape(-1, *several.shape[2:])).unflatten(0, several.shape[:2])
    facts = {"trial": trial.name, "seed": trial.seed, "levels": dict(trial.levels), "run": run}
    facts |= {"objective": trial.objective and trial.objective.__name__, "settings": settings.as_dict()}
    found = {key: {"n": len(of), "right": int(of.sum()), "by_video": packed(of)} for key, of in right.items()}
    return {**facts, "course": course, "lidar": round(lidar(features), 3), "answers": found}


def score(card: Mapping[str, Any], question: str = "action", share: float = 1.0) -> np.ndarray:
    """The primary outcome video by video: the share of the four readouts that are right, float (n,), 0 to 1."""
    answers = [card["answers"][f"{question}, {readout}, {share}"] for readout in READOUTS]
    return np.mean([unpacked(of["by_video"], of["n"]) for of in answers], axis=0)


def all_trials(names: Sequence[str] = LISTS) -> list[Trial]:
    """The trials of some lists, in the order of the work."""
    return [trial for name in names for trial in import_module(f"evidence.{name}").TRIALS]


def path_of(trial: Trial, folder: Path = TRIALS) -> Path:
    """Where the card of a trial is."""
    return folder / f"{trial.name}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"known: {', '.join(LISTS)}")
    parser.add_argument("--part", default="1/1", help="K/N: the K-th of N processes that share the work")
    asked = parser.parse_args()
    if unknown := {*asked.names} - {*LISTS}:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(LISTS)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    part, parts = map(int, asked.part.split("/"))
    mine = all_trials(asked.names or LISTS)[part - 1 :: parts]
    waiting = [trial for trial in mine if not path_of(trial).exists()]
    clips, start = data.load_clips(trial_settings(0)), time.perf_counter()
    TRIALS.mkdir(exist_ok=True)
    for done, trial in enumerate(tqdm(waiting, desc="trials", unit="trial", file=sys.stdout), 1):
        store.write_json(path_of(trial), card(trial, clips))
        hours = (time.perf_counter() - start) / done * (len(waiting) - done) / 3600
        logging.info("written: %s; %d to do, about %.1f hours", trial.name, len(waiting) - done, hours)


if __name__ == "__main__":
    main()
