"""Putting it together: the paper's tables beside ours.

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


def score(k: int, n: int) -> dict[str, Any]:
    """Accuracy with its Wilson interval over videos (percent), and n."""
    low, high = stats.wilson(k, n)
    return {"accuracy": 100 * k / n, "low": 100 * low, "high": 100 * high, "n": n}


def score_table(tables: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Accuracy with its Wilson interval over videos (percent) and n, one row per group of a prediction table."""
    right = (tables.predicted == tables.label).groupby([tables[name] for name in by], sort=False).agg(["sum", "size"])
    return right.apply(lambda row: pd.Series(score(row["sum"], row["size"])), axis=1).astype({"n": int}).reset_index()


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
