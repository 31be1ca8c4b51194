"""What changes of the training do: the accuracy of all runs, and effects over seeds.

Book: the page on experiments, and chapter 8.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import statsmodels.api as sm

from evidence.records import CARDS, FIRST, committed_cards, primary_measure

COLLAPSE = 0.1  # share of the first spread of the features, below which a run has collapsed (chapter 4)


def accuracies(
    folder: Path = CARDS, control: str = "primary", classes: int = 10, probe: str = "linear"
) -> pd.DataFrame:
    """Accuracy (%) of every experiment that has the geometry of ``control``: seeds (rows) by experiments (columns).

    Args:
        folder: where the cards are.
        control: the experiment that the others changed in one point; it comes first.
        classes: 10, or 4 (the labelled list).
        probe: linear, attentive or k-NN.

    Raises:
        FileNotFoundError: there are no cards of ``control``.
    """
    geometry = committed_cards(f"{control}-{FIRST}", folder)[0]["settings"]["model"]
    by_name: dict[str, list[dict[str, Any]]] = {control: []}
    for path in sorted(folder.glob(f"*-{FIRST}-*.json")):
        card = json.loads(path.read_text(encoding="utf-8"))
        own = dict(card["settings"]["model"], dropout=geometry["dropout"])
        if own == geometry:
            by_name.setdefault(card["experiment"], []).append(card)
    columns = {name: primary_measure(cards, classes, probe)["pre-trained"] for name, cards in by_name.items()}
    table = pd.DataFrame(columns).sort_index()
    table.attrs["collapsed"] = [name for name, cards in by_name.items() if collapsed(cards)]
    return table


def collapsed(cards: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every run that was watched ended with nearly the same features for all clips."""
    spreads = [card["course"]["spread"] for card in cards if "course" in card]
    return bool(spreads) and all(spread[-1] < COLLAPSE * spread[0] for spread in spreads)


def effects(table: pd.DataFrame) -> pd.DataFrame:
    """How many points the first column of `accuracies` is ahead of each other one: mean, low, high, p, seeds.

    All columns are fitted together: accuracy = experiment + seed + noise, ordinary least squares. So the size of the
    noise is learned from all runs, and three seeds of one experiment need not tell it alone. The intervals (95 %) are
    over seeds, and take the noise to be as large in every experiment. That is wrong for runs that collapsed, which all
    end at chance: they do not enter the fit, and are compared by the noise of the others.

    Source: the analysis of variance with blocks, as statsmodels computes it. Book: the page on experiments.
    """
    control, others, apart = table.columns[0], list(table.columns[1:]), table.attrs["collapsed"]
    together = table[[control, *(name for name in others if name not in apart)]]
    rows, noise, freedom = _fitted(together)
    for name in (name for name in others if name in apart):
        ahead = (table[control] - table[name]).dropna()
        spread = {"loc": ahead.mean(), "scale": np.sqrt(2 * noise / len(ahead))}
        low, high = scipy.stats.t.interval(0.95, freedom, **spread)
        p = 2 * scipy.stats.t.sf(abs(ahead.mean()) / spread["scale"], freedom)
        rows.loc[name] = [ahead.mean(), low, high, p, len(ahead)]
    return rows.loc[others].rename_axis(f"{control} minus")


def _fitted(table: pd.DataFrame) -> tuple[pd.DataFrame, float, float]:
    """Effects of one least-squares fit, the variance of its noise, and the degrees of freedom of that."""
    long = table.rename_axis("seed").reset_index().melt("seed", var_name="experiment").dropna()
    others = list(table.columns[1:])
    design = pd.get_dummies(long.seed, prefix="seed").join(pd.get_dummies(long.experiment)[others]).astype(float)
    fit = sm.OLS(long.value, design).fit()
    ends = fit.conf_int()
    columns = {"mean": -fit.params, "low": -ends[1], "high": -ends[0], "p": fit.pvalues, "seeds": design.sum()}
    return pd.DataFrame(columns).loc[others], float(fit.mse_resid), float(fit.df_resid)
