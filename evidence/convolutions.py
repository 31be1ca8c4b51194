"""A supervised network that is quick to learn: what the stand-in's pixels tell, whatever an encoder makes of them.

Letters: B clips, C channels, T frames, H, W pixels.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evidence.supervision import train
from picojepa.clips import Clips, crop, crop_boxes, normalise
from picojepa.fitting import TrainingConfig
from picojepa.machine import seeded
from picojepa.probing import Task, head_scores

WIDTH = 16  # channels after the first layer; each block has twice as many as the one before
BLOCKS = 3
AREA = (0.6, 1.0)  # kept of the frame by a random crop


class Block(nn.Module):
    """Two convolutions over space with one over time between them, and a shortcut; halves height and width."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        space: dict[str, Any] = {"kernel_size": (1, 3, 3), "padding": (0, 1, 1), "bias": False}
        self.body = nn.Sequential(
            *(nn.Conv3d(entering, leaving, stride=(1, 2, 2), **space), nn.BatchNorm3d(leaving), nn.ReLU()),
            *(nn.Conv3d(leaving, leaving, (3, 1, 1), padding=(1, 0, 0), bias=False), nn.BatchNorm3d(leaving)),
            *(nn.ReLU(), nn.Conv3d(leaving, leaving, **space), nn.BatchNorm3d(leaving)),
        )
        self.shortcut = nn.Conv3d(entering, leaving, 1, (1, 2, 2), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C', T, H / 2, W / 2)."""
        return F.relu(self.body(x) + self.shortcut(x))


def network(classes: int) -> nn.Sequential:
    """Normalised clips (B, 3, T, H, W) -> logits (B, classes).

    Source: the factorised residual blocks are those of Tran et al. 2018 (R(2+1)D), much smaller.
    """
    first = nn.Conv3d(3, WIDTH, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False)
    blocks = [Block(WIDTH * 2**i, WIDTH * 2 ** (i + 1)) for i in range(BLOCKS)]
    end = [nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(WIDTH * 2**BLOCKS, classes)]
    return nn.Sequential(first, nn.BatchNorm3d(WIDTH), nn.ReLU(), *blocks, *end)


def supervised(clips: Clips, task: Task, seen: int, flips: bool, seed: int = 0) -> np.ndarray:
    """Train a `network` on ``seen`` random crops, mirrored or not, and return probabilities (n_test, classes)."""
    schedule = TrainingConfig(
        seen, learning_rate=3e-3, warmup=0.15, weight_decay=(0.05, 0.05), precision="float32", seed=seed
    )
    with seeded(seed):
        model = network(len(task.classes))

    def cut_and_mirror(batch: Tensor, generator: torch.Generator) -> Tensor:
        cut = crop(batch, crop_boxes(len(batch), AREA, generator))
        mirrored = torch.rand(len(cut), generator=generator) < 0.5 * flips
        return torch.where(mirrored.view(-1, 1, 1, 1, 1), cut.flip(-1), cut)

    train(model, clips, task, schedule, cut_and_mirror)
    model.cpu()
    test = (clips.centre[task.test[i : i + 100]] for i in range(0, len(task.test), 100))
    return np.concatenate([head_scores(model, normalise(torch.from_numpy(np.array(part)))) for part in test])
