"""Putting it together: the paper's tables beside ours, and arithmetic checks of what it prints.

Book: chapter 8.
"""

from typing import Any

import pandas as pd

from footage.lists import labelled_classes, paper_labelled, paper_lists, quarters  # noqa: F401
from picojepa import stats, store
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.ensemble import MEMBERS


def paper_table(number: int) -> pd.DataFrame:
    """Table 1, 2 or 3 as the paper prints it (percent in 2 and 3). Source: pico-JEPA Tables 1-3."""
    return pd.read_csv(store.data_file(f"paper/table{number}.csv"), index_col=0)


def paper_total(column: str) -> int:
    """Videos in one of the paper's lists: pretraining, labelled or validation."""
    return int(paper_lists()[column].sum())


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
    return pd.DataFrame([{"model": model, **_score(k, n)} for model, k in paper_counts().sum().items()])


def _score(k: int, n: int) -> dict[str, Any]:
    """Accuracy with its Wilson interval over videos (percent), and n."""
    low, high = stats.wilson(k, n)
    return {"accuracy": 100 * k / n, "low": 100 * low, "high": 100 * high, "n": n}


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


def score_table(tables: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Accuracy with its Wilson interval over videos (percent) and n, one row per group of a prediction table."""
    right = (tables.predicted == tables.label).groupby([tables[name] for name in by], sort=False).agg(["sum", "size"])
    return right.apply(lambda row: pd.Series(_score(row["sum"], row["size"])), axis=1).astype({"n": int}).reset_index()


def table1(settings: Settings, clips: Clips) -> pd.DataFrame:
    """Instances for each model: width, videos for pre-training, for the classifier, for validation.

    Source: pico-JEPA Table 1. Book: chapter 8.
    """
    videos, quarter = clips.videos, quarters(clips.videos)
    validation = int(((videos.split == "validation") & videos.label.isin(labelled_classes(videos))).sum())
    sizes = [int((quarter > 0).sum()), *(int((quarter == q).sum()) for q in range(1, 5))]
    shared = {"width": settings.model.width, "pre-training videos": int((videos.split == "pretrain").sum())}
    columns = {**shared, "classification videos": sizes, "validation videos": validation}
    return pd.DataFrame(columns, pd.Index(MEMBERS, name="model"))
