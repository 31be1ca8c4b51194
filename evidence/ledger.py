"""What stored runs and studies say of a claim: effects over seeds, leads on the same videos, and the ledger.

Book: chapter 8, and the pages on experiments, probes and committees.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import statsmodels.api as sm

from evidence.records import CARDS, STUDIES, committed_cards, primary_measure
from picojepa import stats
from picojepa.stats import LEVEL, holm, seed_interval
from picojepa.store import DATA

COLLAPSE = 0.1  # share of the first spread of the features, below which a run has collapsed (chapter 4)
COLUMNS = ("tested here as", "points (95 %)", "over", "p")


# ---------------------------------------------------------------- cards


def study_cards(study: str, folder: Path = STUDIES, profile: str = "laptop") -> list[dict[str, Any]]:
    """The cards of one study, by seed; see `records.committed_cards`."""
    return committed_cards(f"{study}-{profile}", folder)


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
    geometry = committed_cards(f"{control}-laptop", folder)[0]["settings"]["model"]
    by_name: dict[str, list[dict[str, Any]]] = {control: []}
    for path in sorted(folder.glob("*-laptop-*.json")):
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


def right_answers(card: Mapping[str, Any], name: str, on: str = "large") -> np.ndarray:
    """Which videos a member or committee of a study got right, bool (n,).

    Args:
        card: of a study of committees.
        name: of a member or committee; ``"mean of GROUP"`` gives the share of the group's members that are right.
        on: ``validation``, or ``large``: the 4 000 unseen videos.
    """
    if name.startswith("mean of "):
        members = card["members"][name.removeprefix("mean of ")]
        return np.mean([right_answers(card, member, on) for member in members], axis=0)
    labels, given = (np.frombuffer(text.encode(), np.uint8) for text in (card["labels"][on], card["sheets"][name][on]))
    return labels == given


def lead(card: Mapping[str, Any], first: str, second: str, on: str = "large") -> float:
    """How many points more of the same videos ``first`` gets right than ``second``; see `right_answers`.

    With ``"each of GROUP"`` the second is the best member of a group.
    """
    if second.startswith("each of "):
        members = card["members"][second.removeprefix("each of ")]
        return min(lead(card, first, member, on) for member in members)
    return 100 * float(np.mean(right_answers(card, first, on) * 1.0 - right_answers(card, second, on)))


# ---------------------------------------------------------------- words


def half_interval(n: int) -> str:
    """How far the Wilson interval of a score of one half reaches with n videos, such as ``43 to 57``.

    Book: chapters 5 and 8.
    """
    low, high = stats.wilson(n // 2, n)
    return f"{100 * low:.0f} to {100 * high:.0f}"


def verdict(low: float, high: float) -> str:
    """The word for a claim that something is above 0, from the ends of its interval.

    Book: chapter 8.
    """
    if low > 0:
        return "supported"
    return "not supported" if high < 0 else "cannot be told here"


def in_words(interval: tuple[float, float, float], unit: str = "") -> str:
    """Mean and interval of a difference as text, such as ``+1.0 points (-2.0 to +4.0)``."""
    mean, low, high = interval
    ends = f"{low:+.1f} to {high:+.1f}" if np.isfinite(low + high) else "too few for an interval"
    return f"{mean:+.1f}{unit} ({ends})"


def claim(text: str, where: str, test: str, interval: tuple[float, float, float], over: str) -> dict[str, str]:
    """One row of the table of verdicts.

    Args:
        text: what is claimed.
        where: where it is claimed.
        test: the difference that must be above 0.
        interval: mean, low and high of that difference, in percentage points.
        over: number and kind of what the interval speaks about.
    """
    _, low, high = interval
    return {
        "claim": text,
        "where": where,
        "tested here as": test,
        "points (95 %)": in_words(interval),
        "over": over,
        "verdict": verdict(low, high),
    }


# ---------------------------------------------------------------- the ledger


def held_back(row: Mapping[str, Any], p: float | None, level: float = LEVEL) -> dict[str, Any]:
    """A row of `ledger.claim` whose word needs two things: an interval that leaves 0 out, and a p below the level.

    Interval and test are both approximations and can fall on either side of the line. Then it cannot be told.

    Args:
        row: with the verdict of its interval.
        p: of a test of the same difference, or None if there is none: the verdict of the interval stays.
        level: that p must be below.

    Book: chapter 8.
    """
    word = "cannot be told here" if p is not None and p >= level else row["verdict"]
    return {**row, "p": p, "verdict": word}


def over_seeds(values: Sequence[float], test: str, over: str) -> dict[str, Any]:
    """A row of the ledger from differences, one for each seed, in points; one seed has no interval, and p is 1."""
    found = np.asarray(values, dtype=float)
    interval = seed_interval(found)
    p = float(scipy.stats.ttest_1samp(found, 0).pvalue) if np.isfinite(interval[1]) else 1.0
    return {**claim("", "", test, interval, over), "p": p}


def from_cards(evidence: str, cards: Path = CARDS, studies: Path = STUDIES) -> dict[str, Any]:
    """A row of the ledger from what a line of data/claims.csv names.

    Args:
        evidence: ``experiment NAME | CONTROL``: the control (without one: ours) minus the changed training, and
            ``reversed NAME | CONTROL`` the other way round;
            ``gate NAME | WHAT``: what was not run, since NAME had to beat random weights first, and by how much it did;
            ``lead STUDY | ONE | OTHER``: members or committees on the 4 000 videos;
            ``study NAME | PATH``: a number (points) that each card of a study holds, such as ``labels.gain``.
        cards: folder of the runs.
        studies: folder of the studies.

    Raises:
        FileNotFoundError: there are no such cards yet.
        ValueError: another kind of evidence.
    """
    kind, _, rest = evidence.partition(" ")
    names = [name.strip() for name in rest.split("|")]
    if kind in ("experiment", "reversed"):
        return _of_experiment(names[0], names[1] if len(names) > 1 else "primary", cards, kind == "reversed")
    if kind == "gate":
        gain = primary_measure(committed_cards(f"{names[0]}-laptop", cards)).difference
        seen = over_seeds(gain, "", "")["points (95 %)"]
        test = f"{names[1]}: not run. Training on {names[0]} had to beat random weights first; it gave {seen} points"
        return {
            "tested here as": test,
            "points (95 %)": "",
            "over": f"{len(gain)} seeds (loaded)",
            "p": None,
            "verdict": "not run",
        }
    found = study_cards(names[0], studies)
    seeds = f"{len(found)} seeds (loaded, stand-in)" if len(found) > 1 else "1 seed (loaded, stand-in)"
    if kind == "lead":
        values = [lead(card, *names[1:3]) for card in found]
        videos = len(found[0]["labels"]["large"])
        return over_seeds(values, f"{names[1]} - {names[2]}", f"{seeds} of {videos} videos")
    if kind == "study":
        values = [value for card in found if (value := held(card, names[1])) is not None]
        if not values:
            raise FileNotFoundError(f"no card of {names[0]!r} holds {names[1]}; run `make experiments`")
        seeds = seeds.replace(str(len(found)), str(len(values)), 1)
        return over_seeds(values, names[2] if len(names) > 2 else names[1], seeds)
    raise ValueError(
        f"unknown kind of evidence {kind!r} in data/claims.csv; known: experiment, reversed, gate, lead, study"
    )


def held(card: Mapping[str, Any], path: str) -> float | None:
    """A number of a card by its path, such as ``claims.P9``, or None if the card has none there."""
    part: Any = card
    for key in path.split("."):
        part = part.get(key) if isinstance(part, Mapping) else None
    return None if part is None else float(part)


def _of_experiment(name: str, control: str, folder: Path, turned: bool) -> dict[str, Any]:
    """A row from the runs of an experiment: control minus experiment, or turned round; one run gives no verdict."""
    table = accuracies(folder, control)
    if name not in table:
        raise FileNotFoundError(f"no cards of {name!r} in {folder}; run `make experiments`")
    found = effects(table).loc[name]
    interval, pair = (found["mean"], found.low, found.high), ["ours" if control == "primary" else control, name]
    if turned:
        interval, pair = (-found["mean"], -found.high, -found.low), pair[::-1]
    seeds = "1 seed" if found.seeds == 1 else f"{found.seeds:.0f} seeds"
    test, over = f"10 classes, linear probe, {' - '.join(pair)}", f"{seeds} (loaded, stand-in)"
    row = {**claim("", "", test, interval, over), "p": float(found.p)}
    return row if found.seeds > 1 else {**row, "p": None, "verdict": "cannot be told here"}


def ledger(live: Mapping[str, Mapping[str, Any]], cards: Path = CARDS, studies: Path = STUDIES) -> pd.DataFrame:
    """Every claim of data/claims.csv with its test and verdict, one row each.

    A verdict needs an interval that leaves 0 out and a p below the level (`held_back`), after Holm's correction within
    the claim's family: the letter of its number, with what a chapter computed live and what is loaded apart, so that no
    loaded word depends on the build. A claim without a p value, such as a count, keeps the verdict of its interval.

    Args:
        live: for claims that a chapter tested, the row that `ledger.claim` gave, and ``p`` where there is one.
        cards: folder of the runs.
        studies: folder of the studies.

    Returns:
        One row per claim, its number as the index, with the columns claim, where, tested here as, points (95 %), over,
        p, p (Holm), verdict, alone (the verdict by the uncorrected p), note, page.

    Raises:
        ValueError: a claim of the list that should be tested live was not, or the other way round.
    """
    listed = pd.read_csv(DATA / "claims.csv", index_col="id", keep_default_na=False)
    if wrong := set(live) ^ set(listed.index[listed.evidence == "live"]):
        raise ValueError(f"claims tested live and claims listed as such differ: {', '.join(sorted(wrong))}")
    rows: dict[str, dict[str, Any]] = {}
    for number, listing in listed.iterrows():
        rows[str(number)] = {
            **_row(str(number), listing.evidence, live, cards, studies),
            **{key: listing[key] for key in ("claim", "where", "note", "page")},
        }
    table = pd.DataFrame(rows).T
    table["p (Holm)"], table["alone"] = None, _words(table, "p")
    families = table.index.str[0] + np.where(listed.evidence.loc[table.index] == "live", " live", " loaded")
    for family in set(families):
        rows_of = table.index[(families == family) & table.p.notna()]
        table.loc[rows_of, "p (Holm)"] = holm(list(table.p[rows_of]))
    table["verdict"] = _words(table, "p (Holm)")
    return table[["claim", "where", *COLUMNS, "p (Holm)", "verdict", "alone", "note", "page"]].rename_axis("id")


def _words(table: pd.DataFrame, column: str) -> list[str]:
    """The verdict of each row by its interval and the p value of a column."""
    p_values = [None if pd.isna(p) else p for p in table[column]]
    return [held_back(row, p)["verdict"] for row, p in zip(table.to_dict("records"), p_values, strict=True)]


def _row(
    number: str, evidence: str, live: Mapping[str, Mapping[str, Any]], cards: Path, studies: Path
) -> dict[str, Any]:
    """Test, interval and verdict of one claim."""
    empty = {**dict.fromkeys(COLUMNS, ""), "p": None, "verdict": "not run"}
    if evidence == "live":
        return {**empty, **live[number]}
    if not evidence:
        return empty
    if evidence.startswith("text "):
        return empty | {"tested here as": evidence.removeprefix("text ")}
    if evidence.startswith("fact "):
        return empty | {"tested here as": evidence.removeprefix("fact "), "verdict": "not asked"}
    try:
        return {**empty, **from_cards(evidence, cards, studies)}
    except FileNotFoundError:
        return empty
