"""Videos that look alike on both sides of a split.

Book: chapter 1, and the page on one's own videos.
"""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from figures.plots import short_name
from footage.lists import SPLITS
from picojepa.clips import Clips

RISE = 2  # levels of 255 by which grey must rise for a bit: where all is even, noise must not decide
# Bits of 192 in which two fingerprints may differ: new encodings differ in 0 to 7, drawn figures in 4 or more.
ALIKE = 4


def fingerprints(clips: np.ndarray) -> np.ndarray:
    """For the first, middle and last frame, whether grey rises from each of 8 x 9 places to its right.

    Args:
        clips: uint8 (n, T, 3, H, W).

    Returns:
        bool (n, 192).

    Source: difference hash (Krawetz 2013). Book: the page on one's own videos.
    """
    found = np.empty((len(clips), 192), dtype=bool)
    for number, clip in enumerate(clips):
        frames = torch.from_numpy(np.array(clip[[0, len(clip) // 2, -1]])).float().mean(1, keepdim=True)
        small = F.adaptive_avg_pool2d(frames, (8, 9))  # (3, 1, 8, 9)
        found[number] = (small.diff(dim=-1) > RISE).flatten()
    return found


def near_duplicates(clips: Clips, limit: int = ALIKE) -> pd.DataFrame:
    """Pairs of a training and a validation video whose centre clips look alike, the most alike first.

    Args:
        clips: the whole list.
        limit: bits in which the `fingerprints` may differ.

    Returns:
        One row per pair: training and validation (file with its folder), bits.

    Book: chapter 1, and the page on one's own videos.
    """
    bits = np.packbits(fingerprints(clips.centre), axis=1)  # (n, 24)
    training, validation = (clips.select(clips.videos.split == split) for split in SPLITS)
    names, rows = clips.videos.path.map(short_name), []
    for video in validation:
        differ = np.bitwise_count(bits[training] ^ bits[video]).sum(1)
        close = np.flatnonzero(differ <= limit)
        rows += [(names[training[i]], names[video], int(differ[i])) for i in close]
    table = pd.DataFrame(rows, columns=["training", "validation", "bits"])
    return table.sort_values(["bits", "training", "validation"], ignore_index=True)
