"""Arithmetic checks of what the paper prints: which counts of videos its percentages can be.

Book: chapter 8.
"""

from typing import Any

import pandas as pd

from footage.lists import paper_lists
from picojepa.results import paper_table, paper_total, score


def nearest_count(percent: float, n: int) -> tuple[int, float]:
    """The count k for which k / n comes nearest to a percentage, and the distance in percentage points."""
    k = round(percent / 100 * n)
    return k, abs(100 * k / n - percent)


def paper_counts() -> pd.DataFrame:
    """Right answers behind each cell of the paper's Table 2, by class and model."""
    sizes = paper_lists().validation.dropna()
    table = paper_table(2).loc[sizes.index]
    return table.apply(lambda column: [nearest_count(p, n)[0] for p, n in zip(column, sizes, strict=True)]).astype(int)


def paper_scores() -> pd.DataFrame:
    """Accuracy with its Wilson interval over videos (percent) and n of each model in the paper's Table 2, pooled.

    Source: pico-JEPA Table 2, as counts of videos. Book: chapter 8.
    """
    n = paper_total("validation")
    return pd.DataFrame([{"model": model, **score(k, n)} for model, k in paper_counts().sum().items()])


def impossible_cells(tolerance: float = 0.005) -> pd.DataFrame:
    """Cells of the paper's Table 2 that are, within rounding, no multiple of one video (granularity check, GRIM).

    Source: Brown and Heathers 2017 for the check. Book: chapter 8.
    """
    rows: list[dict[str, Any]] = []
    for label, n in paper_lists().validation.dropna().astype(int).items():
        for model, percent in paper_table(2).loc[label].items():
            k, distance = nearest_count(percent, n)
            if distance > tolerance + 1e-9:
                nearest = f"{k}/{n} = {100 * k / n:.2f}"
                rows.append({"class": label, "model": model, "printed": percent, "nearest": nearest})
    return pd.DataFrame(rows)
