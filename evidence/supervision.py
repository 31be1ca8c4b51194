"""Training with labels: one loop, for the encoder of the book and for the convolutions of the gates.

Letters: B clips, C channels, T frames, H, W pixels.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from picojepa.architecture import Encoder, new_encoder
from picojepa.clips import Clips, normalise
from picojepa.config import Settings
from picojepa.features import encode
from picojepa.fitting import TrainingConfig, batch_numbers, fit, step_seed
from picojepa.machine import device, seeded
from picojepa.probing import LinearHead, Task, head_scores

Change = Callable[[Tensor, torch.Generator], Tensor]  # of normalised clips, (B, C, T, H, W)


def train(model: nn.Module, clips: Clips, task: Task, schedule: TrainingConfig, change: Change | None = None) -> None:
    """Train a model that gives logits, (B, classes), with the labels of a task; each clip may be changed before."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for step in tqdm(range(schedule.steps), desc="supervised", unit="step", file=sys.stdout):
            rows, epochs = batch_numbers(step, len(task.train), schedule)
            batch = normalise(torch.from_numpy(clips.training[task.train[rows], epochs % clips.training.shape[1]]))
            if change is not None:
                batch = change(batch, torch.Generator().manual_seed(step_seed(step, schedule)))
            yield batch.to(device()), task.train_labels[rows].to(device())

    fit(model.to(device()), batches(), schedule)


def supervised(settings: Settings, clips: Clips, task: Task, start: Encoder | None = None) -> np.ndarray:
    """Train an encoder, the same from scratch if none is given, and a linear head: probabilities (n_test, classes)."""
    seed, how = settings.probe.seed, supervision(settings)
    schedule = TrainingConfig(max(how["batch"], settings.probe.supervised_epochs * len(task.train)), seed=seed, **how)
    encoder = start or new_encoder(settings.model, settings.grid, seed)
    with seeded(seed):
        model = nn.Sequential(encoder, LinearHead(settings.model.width, len(task.classes)))
    train(model, clips, task, schedule)
    return head_scores(model[1].cpu(), encode(encoder, clips.centre[task.test]))


def supervision(settings: Settings) -> dict[str, Any]:
    """What supervised training takes over from pre-training."""
    return {name: getattr(settings.training, name) for name in ("batch", "learning_rate", "precision")}
