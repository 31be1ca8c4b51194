"""What a frozen encoder says of clips, and cheap signs of whether it says anything.

Letters: n clips, N tokens, D width.

Book: chapters 4 (spread, rank, quick probe) and 5.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from picojepa import require
from picojepa.architecture import Encoder, new_encoder
from picojepa.clips import normalise
from picojepa.config import Settings
from picojepa.machine import device, seeded


@torch.no_grad()
def encode(
    encoder: nn.Module, clips: np.ndarray, batch: int = 64, pool: bool = True, noise: int | None = None
) -> Tensor:
    """Features of stored clips, uint8 (n, T, 3, H, W), from a frozen encoder: float32 (n, D), on the CPU.

    Args:
        encoder: maps (B, 3, T, H, W) to (B, N, D).
        clips: as they are stored.
        batch: clips encoded at a time.
        pool: average over tokens; without it the features are (n, N, D).
        noise: seed of the encoder's dropout; None: dropout is off, as it should be.
    """
    where, training, parts = next(encoder.parameters()).device, encoder.training, []
    encoder.train(noise is not None)
    with seeded(noise or 0):
        for start in range(0, len(clips), batch):
            features = encoder(normalise(torch.from_numpy(np.array(clips[start : start + batch]))).to(where))
            parts.append((features.mean(1) if pool else features).float().cpu())
    encoder.train(training)
    return torch.cat(parts)


def spread_and_rank(features: Tensor) -> tuple[float, float]:
    """How far apart the features of different clips, (n, D), lie, and in how many directions.

    Returns the mean over D of the standard deviation over clips, and the effective rank (the exponential of the
    entropy of the normalised singular values), between 1 and min(n, D).

    Source: Roy and Vetterli 2007 for the effective rank. Book: chapter 4.
    """
    centred = features.double() - features.double().mean(0)
    share = torch.linalg.svdvals(centred)
    share = share / share.sum().clamp_min(1e-12)
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return centred.std(0).mean().item(), entropy.exp().item()


def quick_probe(features: Tensor, labels: Sequence[str]) -> float | None:
    """Accuracy (0 to 1) of a ridge classifier on (n, D) in cross-validation: rough, but done in a tenth of a second.

    With a class of one clip there is nothing to validate with, and the answer is None.
    """
    rarest = min(Counter(labels).values())
    if rarest < 2 or len(set(labels)) < 2:
        return None
    model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=features.shape[1]))
    with threadpool_limits(1):
        return float(cross_val_score(model, features.numpy(), list(labels), cv=min(5, rarest)).mean())


def load_encoder(path: Path, settings: Settings) -> Encoder:
    """Read an encoder from a safetensors file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the weights were made for another geometry.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no encoder at {path}; pre-train one (chapter 4)")
    encoder = new_encoder(settings.model, settings.grid, 0)
    load_weights(encoder, load_file(path), path)
    return encoder.to(device()).eval()


def load_weights(module: nn.Module, weights: dict[str, Any], path: Path) -> None:
    """Give a module the weights of a file; ValueError if they were made for another geometry."""
    found, wanted = (
        {name: list(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
        for state in (weights, module.state_dict())
    )
    for name in wanted | found:
        said = f"{name} is {found.get(name)}, these settings want {wanted.get(name)}"
        remedy = "use the profile it was made with or delete the file"
        require(wanted.get(name) == found.get(name), f"{path}: made for another geometry: {said}; {remedy}")
    module.load_state_dict(weights)
