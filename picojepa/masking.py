"""Which tokens are hidden: tube, multi-block and causal masks.

A clip becomes a grid of tokens (time slices, rows, columns), numbered in that order. A mask splits
them: *context* tokens are shown to the encoder, *target* tokens must be predicted.

Book: chapter 2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from picojepa import require, require_whole

Grid = tuple[int, int, int]

# V-JEPA's two masks for every clip: (number of blocks, share of the frame that each covers).
SHORT_RANGE = (8, 0.15)
LONG_RANGE = (2, 0.70)
ASPECT_RATIO = (0.75, 1.5)  # height / width of a block


@dataclass(frozen=True)
class MaskConfig:
    """Which cells of the (rows, columns) grid are hidden."""

    strategy: str = "tube"  # a name in STRATEGIES; V-JEPA calls the tube random tube
    ratio: float = 0.75  # tube: share of the cells that is hidden in every frame
    visible_slices: int = 2  # causal: time slices that stay visible

    def __post_init__(self) -> None:
        known = ", ".join(STRATEGIES)
        require(self.strategy in STRATEGIES, f"unknown mask strategy {self.strategy!r}; known: {known}")
        require(0 < self.ratio < 1, f"the masked share must lie strictly between 0 and 1, not {self.ratio}")
        require_whole(self, "visible_slices")


@dataclass(frozen=True)
class Mask:
    """Token numbers of the context, (B, N_context), and of the target, (B, N_target), int64, ascending."""

    context: Tensor
    target: Tensor


def tube(grid: Grid, ratio: float, batch: int, generator: torch.Generator) -> Mask:
    """Hide the same random cells of the frame in every time slice: a share ``ratio``, equally many in each of B masks.

    Raises:
        ValueError: the ratio leaves no cell visible or none hidden.
    Source: pico-JEPA section 3 ("tube" occlusion). Book: chapter 2.
    """
    slices, rows, columns = grid
    cells = rows * columns
    hidden = round(ratio * cells)
    said = f"a masked share of {ratio} hides {hidden} of {cells} cells"
    require(0 < hidden < cells, f"{said}; at least one must be hidden and one visible")
    visible = torch.ones(batch, cells, dtype=torch.bool)
    visible.scatter_(1, torch.rand(batch, cells, generator=generator).argsort(dim=1)[:, :hidden], False)
    return _split(visible.unsqueeze(1).expand(-1, slices, -1))


def multiblock(grid: Grid, batch: int, generator: torch.Generator) -> list[Mask]:
    """Hide a union of blocks that span all frames: one short-range and one long-range mask.

    Source: V-JEPA section 3.2 and appendix; the block size is drawn once per batch. Book: chapter 2.
    """
    outside = [_outside_blocks(grid, *kind, batch, generator) for kind in (SHORT_RANGE, LONG_RANGE)]
    return [_split(visible.unsqueeze(1).expand(-1, grid[0], -1)) for visible in outside]


def causal(grid: Grid, visible_slices: int, batch: int, generator: torch.Generator) -> Mask:
    """Hide short-range blocks and everything after the first time slices.

    Raises:
        ValueError: no time slice, or all of them, would stay visible.
    Source: V-JEPA ablation "causal multi-block". Book: chapter 2.
    """
    said = f"{visible_slices} of {grid[0]} time slices visible"
    require(0 < visible_slices < grid[0], f"{said}; at least one must be visible and one hidden")
    outside = _outside_blocks(grid, *SHORT_RANGE, batch, generator)  # (B, cells)
    visible = outside.unsqueeze(1).repeat(1, grid[0], 1)  # (B, slices, cells)
    visible[:, visible_slices:] = False
    return _split(visible)


# Strategy -> how the masks of a batch are drawn; all masks of the list are used on the same clips.
STRATEGIES: dict[str, Callable[[MaskConfig, Grid, int, torch.Generator], list[Mask]]] = {
    "tube": lambda config, grid, batch, generator: [tube(grid, config.ratio, batch, generator)],
    "multiblock": lambda config, grid, batch, generator: multiblock(grid, batch, generator),
    "causal": lambda config, grid, batch, generator: [causal(grid, config.visible_slices, batch, generator)],
}


def draw(config: MaskConfig, grid: Grid, batch: int, generator: torch.Generator) -> list[Mask]:
    """Draw the masks for one batch, by the strategy of the configuration; see `STRATEGIES`."""
    return STRATEGIES[config.strategy](config, grid, batch, generator)


def masks_per_clip(config: MaskConfig, grid: Grid) -> int:
    """How many masks a strategy draws for every clip."""
    return len(draw(config, grid, 1, torch.Generator()))


def _outside_blocks(grid: Grid, blocks: int, scale: float, batch: int, generator: torch.Generator) -> Tensor:
    """Cells outside a union of blocks, bool (B, rows * columns), at least one for every clip."""
    _, rows, columns = grid
    aspect = torch.empty(1).uniform_(*ASPECT_RATIO, generator=generator).item()
    area = scale * rows * columns
    height = max(1, min(rows, round((area * aspect) ** 0.5)))
    width = max(1, min(columns, round((area / aspect) ** 0.5)))
    if height == rows and width == columns:
        height -= 1  # a block as large as the frame would leave no context
    visible = torch.zeros(batch, rows, columns, dtype=torch.bool)
    for clip in range(batch):
        while not visible[clip].any():
            visible[clip] = True
            for _ in range(blocks):
                top = int(torch.randint(rows - height + 1, (1,), generator=generator))
                left = int(torch.randint(columns - width + 1, (1,), generator=generator))
                visible[clip, top : top + height, left : left + width] = False
    return visible.flatten(1)


def _split(visible: Tensor) -> Mask:
    """Turn visibility, bool (B, slices, cells), into token numbers, cut to the shortest list of the batch."""
    flat = visible.flatten(1)  # (B, N)
    shown, hidden = int(flat.sum(1).min()), int((~flat).sum(1).min())
    order = flat.to(torch.uint8).argsort(dim=1, descending=True, stable=True)  # visible first, each part ascending
    first_hidden = flat.sum(1, keepdim=True) + torch.arange(hidden)
    return Mask(order[:, :shown].contiguous(), order.gather(1, first_hidden))
