"""Decoded clips, and what turns them into a network's input.

Letters: B or n clips, C = 3 channels, T frames, H = W pixels. Book: chapter 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from picojepa import require, require_whole

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, red, green, blue, as in the paper's code
STD = (0.229, 0.224, 0.225)
CROP_ASPECT = (0.75, 1.35)  # width / height of a random crop, logarithmically uniform, as in V-JEPA


@dataclass(frozen=True)
class ClipConfig:
    """How a clip is cut from a video: C = 3 channels, T = ``frames``, H = W = ``size`` pixels."""

    frames: int = 8
    size: int = 64  # pixels; frames are squashed to a square
    frames_per_second: float | None = 8.0  # None: frames at the video's own rate, ``stride`` apart
    stride: int = 1  # frames from one to the next, with frames_per_second=None
    clips_per_video: int = 4  # training clips kept per video; epoch e uses clip e % clips_per_video

    def __post_init__(self) -> None:
        require_whole(self, "frames", "size", "stride", "clips_per_video")
        rate = self.frames_per_second
        require(rate is None or rate > 0, f"frames_per_second must be above 0 or None, not {rate}")


@dataclass(frozen=True)
class Clips:
    """Decoded clips of a whole list, memory-mapped from disk."""

    videos: pd.DataFrame  # the readable ones, training first; row i belongs to centre[i]
    training: np.ndarray  # random clips of the training videos, uint8 (n_training, clips_per_video, T, C, H, W)
    centre: np.ndarray  # the centre clip of every video, uint8 (n, T, C, H, W)
    skipped: pd.DataFrame  # path and reason of the unreadable videos
    digest: str  # of the list and of every decoded pixel, for results that are made from them
    folder: Path | None = None  # of decoded clips with the data report; None: they were not decoded from files

    def select(self, which: pd.Series) -> np.ndarray:
        """Row numbers of the videos for which a boolean column holds."""
        return np.flatnonzero(which.to_numpy())


def label_numbers(labels: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Class names as int64 numbers, (n,)."""
    return torch.tensor([classes.index(label) for label in labels], dtype=torch.int64)


def normalise(clips: Tensor) -> Tensor:
    """uint8 (B, T, C, H, W) to float32 (B, C, T, H, W) with ImageNet's mean and standard deviation."""
    mean = torch.tensor(MEAN, device=clips.device).view(3, 1, 1, 1) * 255
    std = torch.tensor(STD, device=clips.device).view(3, 1, 1, 1) * 255
    return (clips.permute(0, 2, 1, 3, 4) - mean) / std


def crop_boxes(count: int, area: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Random boxes to crop, as shares of the frame: (count, 4) with left, top, width, height.

    Args:
        count: number of boxes, one for each clip.
        area: smallest and largest share of the frame that a box keeps.
        generator: source of randomness.
    Source: V-JEPA appendix ("random resized crop"). Book: chapter 1.
    """
    chosen, place = torch.rand(count, 2, generator=generator), torch.rand(count, 2, generator=generator)
    kept = area[0] + (area[1] - area[0]) * chosen[:, 0]
    aspect = CROP_ASPECT[0] * (CROP_ASPECT[1] / CROP_ASPECT[0]) ** chosen[:, 1]  # width / height
    size = torch.stack([(kept * aspect).sqrt(), (kept / aspect).sqrt()], 1).clamp_max(1)
    return torch.cat([place * (1 - size), size], 1)


def crop(clips: Tensor, boxes: Tensor) -> Tensor:
    """Cut a box out of every clip, the same in all its frames, and stretch it over the whole frame.

    Args:
        clips: float (B, C, T, H, W), as is the result.
        boxes: (B, 4), see `crop_boxes`.
    """
    corner, size = boxes[:, :2], boxes[:, 2:]
    centre = 2 * corner + size - 1  # in coordinates from -1 to 1
    matrix = torch.cat([torch.diag_embed(size), centre.unsqueeze(-1)], -1)  # (B, 2, 3)
    frames = clips.flatten(1, 2)  # (B, C * T, H, W)
    grid = F.affine_grid(matrix, list(frames.shape), align_corners=False)
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False).reshape(clips.shape)
