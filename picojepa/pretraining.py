"""Pre-training: predict the features of hidden tokens, with a target encoder that trails behind.

The loop in `pretrain` is the whole method. One step: draw masks, encode everything with the target
encoder and the visible tokens with the context encoder, predict, compare, step the optimiser, let the
target encoder follow.

Book: chapter 4.
"""

import copy
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from picojepa import store
from picojepa.architecture import Encoder, Predictor, gather_tokens
from picojepa.config import Settings, TrainingConfig
from picojepa.data import Clips, normalise
from picojepa.masking import Mask, draw

WATCHED_CLIPS = 256  # clips on which spread and rank of the features are watched
log = logging.getLogger(__name__)


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block and give back the outer random state afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def new_encoder(settings: Settings, seed: int) -> Encoder:
    """An untrained encoder; the same seed gives the same weights."""
    with seeded(seed):
        return Encoder(settings)


class JEPA(nn.Module):
    """Context encoder, predictor, and the target encoder, which no gradient reaches."""

    def __init__(self, settings: Settings, seed: int) -> None:
        super().__init__()
        self.encoder = new_encoder(settings, seed)
        self.target_encoder = copy.deepcopy(self.encoder)
        with seeded(seed + 1):
            self.predictor = Predictor(settings)

    def forward(self, clips: Tensor, masks: list[Mask], stop_gradient: bool = True) -> Tensor:
        """The JEPA loss: mean absolute error between predicted and layer-normalised target features.

        Args:
            clips: (B, 3, T, H, W), normalised.
            masks: all of them are applied to the same clips; their losses are averaged.
            stop_gradient: False lets the loss change the target encoder too.

        Returns:
            Scalar loss.

        Source: V-JEPA section 3, equation 1. Book: chapter 4.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not stop_gradient):
            features = self.target_encoder(clips)  # (B, N, D)
            features = F.layer_norm(features, features.shape[-1:])
        losses = []
        for mask in masks:
            context = self.encoder(clips, mask.context)  # (B, M, D)
            predicted = self.predictor(context, mask.context, mask.target)  # (B, K, D)
            losses.append(F.l1_loss(predicted, gather_tokens(features, mask.target)))
        return torch.stack(losses).mean()

    def trained_modules(self, stop_gradient: bool = True) -> list[nn.Module]:
        """What the optimiser changes."""
        return [self.encoder, self.predictor] if stop_gradient else [self.encoder, self.predictor, self.target_encoder]


def cosine(progress: float, first: float, last: float) -> float:
    """Half a cosine wave from ``first`` at progress 0 to ``last`` at progress 1."""
    return last + (first - last) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up over a share of the steps, then a cosine down to the final rate."""
    warmup = max(1, round(config.warmup * config.steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return cosine((step - warmup) / max(1, config.steps - warmup), config.learning_rate, config.final_learning_rate)


def make_optimizer(modules: Iterable[nn.Module], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: biases, norms, positions and mask tokens go without."""
    named = [(name, p) for module in modules for name, p in module.named_parameters()]
    decayed = [p for name, p in named if p.ndim >= 2 and not name.endswith("positions")]
    free = [p for name, p in named if p.ndim < 2 or name.endswith("positions")]
    groups = [{"params": decayed, "decays": True}, {"params": free, "decays": False, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def set_schedules(optimizer: torch.optim.Optimizer, step: int, config: TrainingConfig) -> None:
    """Set this step's learning rate and weight decay."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config)
        if group["decays"]:
            group["weight_decay"] = cosine(step / config.steps, *config.weight_decay)


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """Exponential moving average: target <- momentum * target + (1 - momentum) * source."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), 1 - momentum)


def batch_numbers(step: int, videos: int, config: TrainingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Which video and which of its epochs each clip of a step comes from, two int arrays (B,).

    Videos are shuffled anew every epoch by ``(seed, epoch)`` alone, so that any step can be drawn
    again after an interruption.
    """
    place = step * config.batch + np.arange(config.batch)
    epochs = place // videos
    orders = {epoch: np.random.default_rng([config.seed, epoch]).permutation(videos) for epoch in set(epochs.tolist())}
    return np.array([orders[e][i] for e, i in zip(epochs.tolist(), (place % videos).tolist(), strict=True)]), epochs


def training_batch(step: int, clips: np.ndarray, config: TrainingConfig) -> Tensor:
    """The normalised clips of a step, float32 (B, 3, T, H, W), from uint8 (n, clips_per_video, T, 3, H, W)."""
    videos, epochs = batch_numbers(step, len(clips), config)
    return normalise(torch.from_numpy(clips[videos, epochs % clips.shape[1]]))


def spread_and_rank(features: Tensor) -> tuple[float, float]:
    """How far apart the features of different clips lie, and in how many directions.

    Args:
        features: one row per clip, (n, D).

    Returns:
        The mean over D of the standard deviation over clips, and the effective rank (the exponential
        of the entropy of the normalised singular values), between 1 and min(n, D).

    Source: Roy and Vetterli 2007 for the effective rank. Book: chapter 4.
    """
    centred = features.double() - features.double().mean(0)
    share = torch.linalg.svdvals(centred)
    share = share / share.sum().clamp_min(1e-12)
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return centred.std(0).mean().item(), entropy.exp().item()


@torch.no_grad()
def encode(encoder: nn.Module, clips: np.ndarray, batch: int = 64, pool: bool = True) -> Tensor:
    """Features of stored clips from a frozen encoder.

    Args:
        encoder: maps (B, 3, T, H, W) to (B, N, D).
        clips: uint8 (n, T, 3, H, W).
        batch: clips encoded at a time.
        pool: average over tokens.

    Returns:
        float32 on the CPU: (n, D) if pooled, else (n, N, D).
    """
    where = next(encoder.parameters()).device
    training, _ = encoder.training, encoder.eval()
    parts = []
    for start in range(0, len(clips), batch):
        features = encoder(normalise(torch.from_numpy(np.array(clips[start : start + batch]))).to(where))
        parts.append((features.mean(1) if pool else features).float().cpu())
    encoder.train(training)
    return torch.cat(parts)


def pretrain(settings: Settings, clips: np.ndarray, folder: Path, watched: np.ndarray | None = None) -> JEPA:
    """Pre-train a JEPA and leave ``metrics.jsonl`` and a checkpoint in a folder; continues from a checkpoint there.

    Args:
        settings: model and training configuration.
        clips: training clips, uint8 (n, clips_per_video, T, 3, H, W).
        folder: where the run is kept; a killed run goes on from its last checkpoint.
        watched: clips, uint8 (m, T, 3, H, W), whose features are watched during training.

    Raises:
        FloatingPointError: the loss is not finite; the message names the step and the checkpoint.
    """
    config, where = settings.training, device()
    model = JEPA(settings, config.seed).to(where).train()
    optimizer = make_optimizer(model.trained_modules(config.stop_gradient), config)
    first = load_checkpoint(folder, model, optimizer, settings)
    bar = tqdm(
        range(first, config.steps), desc="pre-training", unit="step", file=sys.stdout, initial=first, total=config.steps
    )
    for step in bar:
        set_schedules(optimizer, step, config)
        masks = draw(
            config.mask, settings.grid, config.batch, torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        )
        masks = [Mask(m.context.to(where), m.target.to(where)) for m in masks]
        loss = model(training_batch(step, clips, config).to(where), masks, config.stop_gradient)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss {loss.item()} in step {step}; the last good checkpoint is in {folder}; lower the learning rate"
            )
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], config.gradient_clip
        )
        optimizer.step()
        momentum = cosine(step / config.steps, *config.ema)
        follow(model.target_encoder, model.encoder, momentum)
        if step % config.log_every == 0 or step == config.steps - 1:
            facts = {
                "loss": loss.item(),
                "gradient_norm": norm.item(),
                "learning_rate": optimizer.param_groups[0]["lr"],
            }
            watch(model, folder, watched, {"step": step, "clips": (step + 1) * config.batch, "ema": momentum, **facts})
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if (step + 1) % config.checkpoint_every == 0:
            save_checkpoint(folder, model, optimizer, step + 1, settings)
    return model


def watch(model: JEPA, folder: Path, watched: np.ndarray | None, row: dict[str, float]) -> None:
    """Append a row to ``metrics.jsonl``, with spread and effective rank of the context encoder's features."""
    if watched is not None:
        row["spread"], row["effective_rank"] = spread_and_rank(encode(model.encoder, watched))
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, "time": time.time()}) + "\n")


def read_metrics(folder: Path) -> pd.DataFrame:
    """The metrics of a run, one row per logged step; after a restart the later record of a step counts."""
    return (
        pd.read_json(folder / "metrics.jsonl", lines=True)
        .drop_duplicates("step", keep="last")
        .sort_values("step", ignore_index=True)
    )


def save_checkpoint(folder: Path, model: JEPA, optimizer: torch.optim.Optimizer, step: int, settings: Settings) -> None:
    """Replace the checkpoint in a folder in one move."""
    state = {
        "step": step,
        "settings": json.dumps(asdict(settings.model)),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    temporary = folder / "checkpoint.pt.tmp"
    torch.save(state, temporary)
    os.replace(temporary, folder / "checkpoint.pt")


def load_checkpoint(folder: Path, model: JEPA, optimizer: torch.optim.Optimizer, settings: Settings) -> int:
    """Load a checkpoint, if there is one, and return the step to go on with.

    Raises:
        ValueError: the checkpoint was made for another geometry.
    """
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location=next(model.parameters()).device)
    _check_geometry(path, json.loads(state["settings"]), asdict(settings.model))
    _check_geometry(path, _shapes(state["model"]), _shapes(model.state_dict()))
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def load_encoder(path: Path, settings: Settings) -> Encoder:
    """Read an encoder from a safetensors file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the weights were made for another geometry.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no encoder at {path}; pre-train one (chapter 4)")
    encoder, weights = new_encoder(settings, 0), load_file(path)
    _check_geometry(path, _shapes(weights), _shapes(encoder.state_dict()))
    encoder.load_state_dict(weights)
    return encoder.to(device()).eval()


def _shapes(weights: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in weights.items()}


def _check_geometry(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in wanted | found:
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"{path}: made for another geometry: {name} is {found.get(name)}, these settings want "
                f"{wanted.get(name)}; use the profile it was made with or delete the file"
            )


def run(settings: Settings, clips: Clips) -> Path:
    """Pre-train with these settings, or find the finished run.

    Returns:
        Folder with ``encoder.safetensors`` (the context encoder, which the probes use; its slow average is
        not kept), ``predictor.safetensors``, ``metrics.jsonl`` and ``card.json``.
    """

    def make(folder: Path) -> dict[str, Any]:
        watched = clips.centre[:: max(1, len(clips.centre) // WATCHED_CLIPS)][:WATCHED_CLIPS]
        model = pretrain(settings, clips.training, folder, watched)
        save_file(model.encoder.state_dict(), folder / "encoder.safetensors")
        save_file(model.predictor.state_dict(), folder / "predictor.safetensors")
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        return {
            "steps": settings.training.steps,
            "clips": settings.training.steps * settings.training.batch,
            "seed": settings.training.seed,
        }

    return store.result("pretraining.run", training_inputs(settings, clips), make)


def training_inputs(settings: Settings, clips: Clips) -> dict[str, Any]:
    """What shapes a pre-trained encoder, for keys."""
    return {
        "recipe": settings.recipe,
        "clip": asdict(settings.clip),
        "model": asdict(settings.model),
        "training": asdict(settings.training),
        "data": clips.digest,
    }
