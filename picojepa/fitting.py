"""How anything here is trained: schedules, the order of the videos, and the loop that heads and classifiers share.

Letters: B clips.

Book: chapter 4, and chapter 5 for heads.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picojepa import require, require_positive, require_rising, require_whole
from picojepa.machine import autocast
from picojepa.masking import MaskConfig
from picojepa.spreading import TERMS

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainingConfig:
    """Training by gradient descent; the defaults are those of pre-training."""

    clips: int = 192_000  # clips seen in all
    batch: int = 32  # B, clips per step
    learning_rate: float = 1e-3  # peak; linear warm-up, then cosine to final_learning_rate
    final_learning_rate: float = 1e-6
    predictor_rate: float = 1.0  # the predictor's learning rate / the encoder's
    warmup: float = 0.1  # share of the steps
    weight_decay: tuple[float, float] = (0.04, 0.4)  # first and last step, cosine between
    ema: tuple[float, float] | None = None  # momentum of the target encoder, first and last; None: `scaled_momentum`
    gradient_clip: float = 1.0  # largest global gradient norm
    clip_warmup: bool = True  # False: gradients are clipped after the warm-up only
    seed: int = 0
    mask: MaskConfig = field(default_factory=MaskConfig)
    crop: tuple[float, float] | None = None  # random resized crop: range of the area kept; None: whole frames
    stop_gradient: bool = True  # False: one encoder for context and targets, the collapse of chapter 4
    target: str = "last block"  # what is predicted, a name in jepa.TARGETS
    spreading: str = "none"  # a name in spreading.TERMS that joins the loss, or none
    spreading_weight: float = 1.0  # of that term in the loss
    precision: str = "bfloat16"  # of matrix products, where the device has instructions for it; else float32
    compile: bool = False  # torch.compile; pays on long runs on a GPU
    log_every: int = 25  # steps between two rows of the metrics file
    watch_every: int = 100  # steps between two looks at the features; a multiple of log_every
    checkpoint_every: int = 250  # steps between two checkpoints

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return max(1, self.clips // self.batch)

    @property
    def momenta(self) -> tuple[float, float]:
        """Momentum of the target encoder in the first and in the last step."""
        return self.ema or scaled_momentum(self.steps)

    def __post_init__(self) -> None:
        require_whole(self, "clips", "batch", "log_every", "watch_every", "checkpoint_every")
        require_positive(self, "learning_rate", "predictor_rate", "gradient_clip")
        require(self.clips >= self.batch, "clips must be at least one batch")
        if self.ema is not None:
            require_rising(self, "ema", 0, 1)
        require_rising(self, "weight_decay", 0, math.inf)
        require(self.precision in PRECISIONS, f"unknown precision {self.precision!r}; known: {', '.join(PRECISIONS)}")
        terms = ("none", *TERMS)
        require(self.spreading in terms, f"unknown spreading {self.spreading!r}; known: {', '.join(terms)}")
        require_positive(self, "spreading_weight")
        if self.crop is not None:
            require_rising(self, "crop", 0, 1)
            require(self.crop[0] > 0, f"a crop keeps a share of the frame above 0, not {self.crop}")


@dataclass(frozen=True)
class ProbeConfig:
    """Heads on a frozen encoder, and supervised training beside them."""

    epochs: int = 100
    batch: int = 32
    learning_rate: float = 1e-1
    weight_decay: float = 0.05
    attentive_epochs: int = 20
    attentive_learning_rate: float = 3e-3
    dropout_draws: int = 0  # encodings with dropout on that the heads' epochs go round; 0: one without dropout
    supervised_epochs: int = 16  # passes of supervised training from scratch over its videos
    neighbours: int = 10  # k of the k-NN probe
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole(self, "epochs", "batch", "attentive_epochs", "supervised_epochs", "neighbours")
        require_positive(self, "learning_rate", "attentive_learning_rate")


def cosine(progress: float, first: float, last: float) -> float:
    """Half a cosine wave from ``first`` at progress 0 to ``last`` at progress 1."""
    return last + (first - last) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def scaled_momentum(steps: int, left: float = 0.01) -> tuple[float, float]:
    """First and last momentum of a target encoder of whose random start a share ``left`` is there after the last step.

    Along a cosine up to 1, the product of all momenta is about exp(-steps * (1 - first) / 2).
    """
    return max(0.0, 1 + 2 * math.log(left) / steps), 1.0


def warmup_steps(config: TrainingConfig) -> int:
    """Steps in which the learning rate rises."""
    return max(1, round(config.warmup * config.steps))


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up over a share of the steps, then a cosine down to the final rate."""
    warmup = warmup_steps(config)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return cosine((step - warmup) / max(1, config.steps - warmup), config.learning_rate, config.final_learning_rate)


def gradient_limit(step: int, config: TrainingConfig) -> float:
    """The norm to which the gradient of all parameters together is cut in a step."""
    return config.gradient_clip if config.clip_warmup or step >= warmup_steps(config) else math.inf


def decay_groups(module: nn.Module, rate: float = 1.0) -> list[dict[str, Any]]:
    """Parameters for an optimiser: weight decay on matrices only, not on biases, norms, positions and mask tokens."""
    matrices: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        decays = parameter.ndim >= 2 and not name.endswith(("positions", "mask_tokens"))
        (matrices if decays else free).append(parameter)
    return [{"params": matrices, "decays": True, "rate": rate}, {"params": free, "decays": False, "rate": rate}]


def make_optimizer(groups: list[dict[str, Any]], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the groups of `decay_groups`, all parameters in one fused kernel."""
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.0, fused=True)


def set_schedules(optimizer: torch.optim.Optimizer, step: int, config: TrainingConfig) -> None:
    """Set this step's learning rate and weight decay."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config) * group["rate"]
        if group["decays"]:
            group["weight_decay"] = cosine(step / config.steps, *config.weight_decay)


def step_seed(step: int, config: TrainingConfig) -> int:
    """Seed of everything random in a step: any step can be done again without the ones before it."""
    return config.seed * 1_000_003 + step


def batch_numbers(step: int, videos: int, config: TrainingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Which video and which of its epochs each clip of a step comes from, two int arrays (B,).

    Videos are shuffled anew every epoch by ``(seed, epoch)`` alone, so that any step can be drawn
    again after an interruption.
    """
    place = step * config.batch + np.arange(config.batch)
    epochs = place // videos
    orders = {epoch: np.random.default_rng([config.seed, epoch]).permutation(videos) for epoch in set(epochs.tolist())}
    return np.array([orders[e][i] for e, i in zip(epochs.tolist(), (place % videos).tolist(), strict=True)]), epochs


def fit(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], config: TrainingConfig) -> nn.Module:
    """Train a classifier, a head on stored features or a whole network, by cross-entropy.

    Args:
        model: inputs (B, ...) -> logits (B, classes); changed in place and returned, in evaluation mode.
        batches: inputs and class numbers (B,) of every step, on the model's device.
        config: schedules and precision; one step for each batch.
    """
    optimizer = make_optimizer(decay_groups(model.train()), config)
    for step, (inputs, labels) in enumerate(batches):
        set_schedules(optimizer, step, config)
        with autocast(config.precision):
            logits = model(inputs)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
    return model.eval()
