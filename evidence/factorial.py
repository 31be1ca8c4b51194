"""What makes a small JEPA learn? Six choices of two kinds each, every combination once: a full factorial of 64 runs.

Written down before the first run:

- Base: the recipe ``adapted`` and the data of the control (data seed 2, 4 000 test videos), 24 000 clips a run, every
  run with a seed of its own. The order is random but for one thing: the first 32 runs are the half in which the product
  of all levels is +1. So the work may end there: main effects and interactions of two are then free of each other.
- Primary outcome: the mean of the four readouts with all labels. Beside it: the same with a tenth of the labels.
- Effect of a choice: the mean of the runs with it less the mean of those without, `effects.contrast`. The error is over
  runs and over videos: of runs from what main effects and interactions of two do not explain.
- Six main effects are tested, Holm over the six, at the level of 5 %. Equivalent: the 90 % interval lies within 2
  points of 0. Interactions of two, fifteen, are listed with Holm of their own.

Differences from what V-JEPA's own ablations ask: three quarters hidden leaves four of sixteen cells, and a block is one
rectangle, since sixteen cells are too few for a union of several. Two of the six are what `adapted` changes of V-JEPA.

Book: the page on what makes a small JEPA learn.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from evidence.effects import contrast
from evidence.experiments import trained
from evidence.trials import TRIALS as FOLDER
from evidence.trials import Trial, path_of, score
from picojepa.config import Settings
from picojepa.jepa import JEPA
from picojepa.masking import Mask
from picojepa.stats import holm

# Factor -> (what level -1 is, what level +1 is).
FACTORS = {
    "mask": ("scattered cells (tube)", "one block"),
    "hidden": ("half", "three quarters"),
    "target encoder": ("slow average (EMA)", "copy at every step"),
    "loss": ("absolute error", "squared error"),
    "target": ("as in V-JEPA", "less what the clip shares"),
    "spreading term": ("none", "variance-covariance"),
}
FIRST_SEED = 200


def block(grid: tuple[int, int, int], ratio: float, batch: int, generator: torch.Generator) -> Mask:
    """Hide one rectangle of cells in every time slice: a share ``ratio``, of a random shape and place for each of B."""
    slices, rows, columns = grid
    hidden = round(ratio * rows * columns)
    shapes = [(h, hidden // h) for h in range(1, rows + 1) if hidden % h == 0 and hidden // h <= columns]
    visible = torch.ones(batch, rows, columns, dtype=torch.bool)
    for clip in range(batch):
        height, width = shapes[int(torch.randint(len(shapes), (1,), generator=generator))]
        top = int(torch.randint(rows - height + 1, (1,), generator=generator))
        left = int(torch.randint(columns - width + 1, (1,), generator=generator))
        visible[clip, top : top + height, left : left + width] = False
    flat = visible.flatten(1).repeat(1, slices)  # (B, N)
    order = flat.to(torch.uint8).argsort(dim=1, descending=True, stable=True)  # visible first, each part ascending
    return Mask(*order.split([int(flat[0].sum()), int((~flat[0]).sum())], dim=1))


class BlockJEPA(JEPA):
    """One block is hidden in place of scattered cells."""

    version = 1

    def draw_masks(self, batch: int, generator: torch.Generator) -> list[Mask]:
        """See `block`."""
        return [block(self.settings.grid, self.settings.training.mask.ratio, batch, generator)]


class SquaredJEPA(JEPA):
    """Squared in place of absolute error."""

    version = 1

    def distance(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(predicted, wanted)


class SquaredBlockJEPA(SquaredJEPA, BlockJEPA):
    """Both."""

    version = 1


OBJECTIVES: dict[tuple[int, int], type[JEPA] | None] = {
    (-1, -1): None,
    (1, -1): BlockJEPA,
    (-1, 1): SquaredJEPA,
    (1, 1): SquaredBlockJEPA,
}


def changed(settings: Settings, levels: dict[str, int]) -> Settings:
    """Settings with the levels of four of the factors; mask and loss are the objective's."""
    high = {name: level > 0 for name, level in levels.items()}
    return trained(
        settings,
        mask=replace(settings.training.mask, ratio=0.75 if high["hidden"] else 0.5),
        ema=(0.0, 0.0) if high["target encoder"] else None,
        target="minus clip mean" if high["target"] else "last block",
        spreading="variance-covariance" if high["spreading term"] else "none",
    )


def design() -> list[dict[str, int]]:
    """All combinations of levels: the half with the product +1 first, each half in random order."""
    rows = [dict(zip(FACTORS, levels, strict=True)) for levels in product((-1, 1), repeat=len(FACTORS))]
    order = np.random.default_rng(0).permutation(len(rows))
    return sorted((rows[i] for i in order), key=lambda row: -int(np.prod(list(row.values()))))


def trial(number: int, levels: dict[str, int]) -> Trial:
    """One run of the design."""
    change: Callable[[Settings], Settings] = partial(changed, levels=levels)
    objective = OBJECTIVES[levels["mask"], levels["loss"]]
    name = f"factorial-{number:02d}"
    return Trial(name, FIRST_SEED + number, change, objective, levels=levels)


TRIALS = [trial(number, levels) for number, levels in enumerate(design())]


def columns(rows: Sequence[Mapping[str, int]]) -> pd.DataFrame:
    """Levels of every main effect and of every interaction of two, -1 or 1, one row for each run."""
    levels = pd.DataFrame(rows)[list(FACTORS)]
    pairs = {f"{one} x {other}": levels[one] * levels[other] for one, other in combinations(FACTORS, 2)}
    return levels.assign(**pairs)


def table(scores: np.ndarray, rows: Sequence[Mapping[str, int]]) -> pd.DataFrame:
    """Every effect with its interval, p values and word; an interaction is half the difference of two effects.

    Args:
        scores: of every run on every video, 0 to 1, (runs, videos).
        rows: levels of the runs.

    Returns:
        One row for each main effect and each interaction of two: points, low, high, error, p, p (Holm), verdict, seen.
    """
    signs = columns(rows)
    design = np.column_stack([np.ones(len(signs)), signs])
    found = {name: contrast(scores, signs[name] / (len(signs) / 2), design) for name in signs}
    corrected = [
        p for family in (list(FACTORS), list(signs)[len(FACTORS) :]) for p in holm([found[n].p for n in family])
    ]
    lines = []
    for (name, effect), p in zip(found.items(), corrected, strict=True):
        low, high = effect.interval()
        line = {"effect": name, "points": effect.points, "low": low, "high": high, "error": effect.error}
        lines.append(line | {"p": effect.p, "p (Holm)": p, "verdict": effect.verdict(p), "seen": effect.seen})
    return pd.DataFrame(lines).set_index("effect")


def finished(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The cards of all 64 runs, or of the first half while the second is not complete.

    Raises:
        FileNotFoundError: not even the first half is there; the message names the command.
    """
    paths = [path_of(trial, folder) for trial in TRIALS]
    there = [path.is_file() for path in paths]
    count = next((n for n in (len(TRIALS), len(TRIALS) // 2) if all(there[:n])), 0)
    if not count:
        raise FileNotFoundError(f"{sum(there)} cards in {folder}; `python -m evidence.trials factorial` makes the rest")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths[:count]]


def effects_of(cards: Sequence[Mapping[str, Any]], share: float = 1.0, question: str = "action") -> pd.DataFrame:
    """See `table`: effects on the mean of the four readouts with a share of the labels."""
    return table(np.array([score(card, question, share) for card in cards]), [card["levels"] for card in cards])


def runs_of(cards: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each run: levels in words, accuracy (%) with all labels and with a tenth, and signs of collapse."""
    rows = []
    for card in cards:
        levels = {name: FACTORS[name][card["levels"][name] > 0] for name in FACTORS}
        scores = {"accuracy": 100 * score(card).mean(), "a tenth": 100 * score(card, share=0.1).mean()}
        course = card["course"]
        signs = {"RankMe": course["effective_rank"][-1], "LiDAR": card["lidar"], "spread": course["spread"][-1]}
        signs |= {"last loss": course["loss"][-1]}
        rows.append(levels | scores | signs | {"similarity": course["similarity"][-1]})
    return pd.DataFrame(rows)


def effect_within(
    cards: Sequence[Mapping[str, Any]], name: str, given: Mapping[str, int], share: float = 1.0
) -> tuple[float, float, float]:
    """What a choice does in the runs with given levels of others: points and the ends of the 95 % interval.

    The noise is learned from all runs, so it is approximate where groups are not equally noisy.
    """
    rows = [card["levels"] for card in cards]
    signs = columns(rows)
    inside = np.array([all(row[key] == level for key, level in given.items()) for row in rows])
    scores = np.array([score(card, share=share) for card in cards])
    design = np.column_stack([np.ones(len(rows)), signs])
    effect = contrast(scores, signs[name] * inside / (inside.sum() / 2), design)
    return effect.points, *effect.interval()
