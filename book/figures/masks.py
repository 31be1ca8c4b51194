"""Every kind of mask over a clip that plays.

Book: chapter 2.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from IPython.display import HTML

import figures
from figures import plots
from picojepa import masking, published
from picojepa.masking import Grid, Mask, MaskConfig

RATIOS = (0.25, 0.5, 0.75, 0.9)
DRAWS = 12

Draw = Callable[[Grid, float, torch.Generator], Mask]  # of one clip


def _single_tokens(grid: Grid, ratio: float, generator: torch.Generator) -> Mask:
    """Tokens hidden one by one: a tube in a grid with a single time slice that holds all of them."""
    slices, rows, columns = grid
    return masking.tube((1, slices * rows, columns), ratio, 1, generator)


def _causal(grid: Grid, _: float, generator: torch.Generator) -> Mask:
    return masking.causal(grid, min(MaskConfig().visible_slices, grid[0] - 1), 1, generator)


# Name -> (whether a ratio has a meaning, how one mask is drawn).
KINDS: dict[str, tuple[bool, Draw]] = {
    "tube": (True, lambda grid, ratio, generator: masking.tube(grid, ratio, 1, generator)),
    "single tokens": (True, _single_tokens),
    "multi-block, short range": (False, lambda grid, _, generator: masking.multiblock(grid, 1, generator)[0]),
    "multi-block, long range": (False, lambda grid, _, generator: masking.multiblock(grid, 1, generator)[1]),
    "causal": (False, _causal),
    "as published: runs": (
        True,
        lambda grid, ratio, generator: published.runs(grid, MaskConfig("tube", ratio), 1, generator),
    ),
}


def explorer(clip: np.ndarray, grid: Grid, ratios: Sequence[float] = RATIOS, draws: int = DRAWS) -> HTML:
    """A clip that plays under a mask: kind, ratio and draw are the reader's choice.

    Args:
        clip: uint8 (T, 3, H, W).
        grid: (time slices, rows, columns) of tokens; T, H and W are multiples of them.
        ratios: masked shares to choose from, for the kinds that have one.
        draws: masks of each kind and ratio; draw n is the one of seed n.
    """
    kinds = []
    for name, (has_ratio, draw) in KINDS.items():
        drawn = [
            [told(draw(grid, ratio, torch.Generator().manual_seed(n)), grid) for n in range(draws)]
            for ratio in (ratios if has_ratio else ratios[:1])
        ]
        kinds.append({"name": name, "ratios": [f"{r:g}" for r in ratios] if has_ratio else [], "masks": drawn})
    data = {"clip": figures.film(clip), "grid": list(grid), "kinds": kinds}
    return figures.figure("masks", data, _picture(clip, grid), "Masks over a clip that plays")


def told(mask: Mask, grid: Grid) -> dict[str, Any]:
    """What the script knows of the mask of one clip: hidden tokens as bits in hexadecimal, and facts about them."""
    hidden = plots.hidden_grid(mask.target[0], grid)  # (slices, rows, columns)
    return {
        "bits": np.packbits(hidden).tobytes().hex(),
        "context": mask.context.shape[1],
        "target": mask.target.shape[1],
        "constant": bool((hidden == hidden[0]).all()),
    }


def _picture(clip: np.ndarray, grid: Grid) -> str:
    """One draw of each kind on one frame of each time slice."""
    hidden = [
        plots.hidden_grid(draw(grid, 0.75, torch.Generator().manual_seed(3)).target[0], grid)
        for _, draw in KINDS.values()
    ]
    frames = np.stack([plots.paint_mask(clip, h)[:: len(clip) // grid[0]] for h in hidden])
    text = f"One row for each kind of mask ({', '.join(KINDS)}), one frame for each time slice; orange is hidden."
    return figures.still(plots.show_clips(frames, list(KINDS)), text)
