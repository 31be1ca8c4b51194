"""What stored runs and studies say of a claim: leads on the same videos, verdicts, and the ledger of all claims.

Book: chapter 8, and the pages on experiments, probes and committees.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from evidence import factorial, runs
from evidence.records import CARDS, FIRST, STUDIES, committed_cards, primary_measure
from picojepa import stats
from picojepa.stats import LEVEL, holm, seed_interval
from picojepa.store import data_file

COLUMNS = ("tested here as", "points (95 %)", "over", "p")
UNSURE = "cannot be told here"
NOT_RUN: dict[str, Any] = {"tested here as": "", "points (95 %)": "", "over": "", "p": None, "verdict": "not run"}


def study_cards(study: str, folder: Path = STUDIES, profile: str = FIRST) -> list[dict[str, Any]]:
    """The cards of one study, by seed; see `records.committed_cards`."""
    return committed_cards(f"{study}-{profile}", folder)


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


def half_interval(n: int) -> str:
    """How far the Wilson interval of a score of one half reaches with n videos, such as ``43 to 57``."""
    low, high = stats.wilson(n // 2, n)
    return f"{100 * low:.0f} to {100 * high:.0f}"


def verdict(low: float, high: float) -> str:
    """The word for a claim that something is above 0, from the ends of its interval."""
    if low > 0:
        return "supported"
    return "not supported" if high < 0 else UNSURE


def in_words(interval: tuple[float, float, float], unit: str = "") -> str:
    """Mean and interval of a difference as text, such as ``+1.0 points (-2.0 to +4.0)``."""
    mean, low, high = interval
    ends = f"{low:+.1f} to {high:+.1f}" if np.isfinite(low + high) else "too few for an interval"
    return f"{mean:+.1f}{unit} ({ends})"


def over_chance(gain: tuple[float, float, float], unit: str = "") -> tuple[str, str]:
    """What was found beside what chance leaves, such as ``+9.1 (by chance -2.0 to +3.1)``, and the word for it.

    Args:
        gain: of `tsne.purity_gain`: found, and the ends of the band that chance alone leaves.
        unit: of the number that was found.
    """
    found, low, high = gain
    return f"{found:+.1f}{unit} (by chance {low:+.1f} to {high:+.1f})", verdict(found - high, found - low)


def claim(text: str, where: str, test: str, interval: tuple[float, float, float], over: str) -> dict[str, str]:
    """One row of the table of verdicts.

    Args:
        text: what is claimed.
        where: where it is claimed.
        test: the difference that must be above 0.
        interval: mean, low and high of that difference, in percentage points.
        over: number and kind of what the interval speaks about.
    """
    names = {"claim": text, "where": where, "tested here as": test}
    return names | {"points (95 %)": in_words(interval), "over": over, "verdict": verdict(*interval[1:])}


def claim_over_chance(text: str, where: str, test: str, gain: tuple[float, float, float], over: str) -> dict[str, str]:
    """A row as of `claim`, with the band that chance leaves in place of an interval; see `over_chance`."""
    found, word = over_chance(gain)
    return {**claim(text, where, test, gain, over), "points (95 %)": found, "verdict": word}


def held_back(row: Mapping[str, Any], p: float | None, level: float = LEVEL) -> dict[str, Any]:
    """A row of `ledger.claim` whose word needs two things: an interval that leaves 0 out, and a p below the level.

    Interval and test are both approximations and can fall on either side of the line. Then it cannot be told.

    Args:
        row: with the verdict of its interval.
        p: of a test of the same difference, or None if there is none: the verdict of the interval stays.
        level: that p must be below.
    """
    word = UNSURE if p is not None and p >= level else row["verdict"]
    return {**row, "p": p, "verdict": word}


def over_seeds(values: Sequence[float], test: str, over: str) -> dict[str, Any]:
    """A row of the ledger from differences, one for each seed, in points; one seed has no interval, and p is 1."""
    found = np.asarray(values, dtype=float)
    interval = seed_interval(found)
    p = float(scipy.stats.ttest_1samp(found, 0).pvalue) if np.isfinite(interval[1]) else 1.0
    return {**claim("", "", test, interval, over), "p": p}


def compared(cards: Path, _: Path, name: str, control: str = "primary", sign: int = 1) -> dict[str, Any]:
    """The control minus the changed training, or with sign -1 the other way round; one run gives no verdict."""
    table = runs.accuracies(cards, control)
    if name not in table:
        raise FileNotFoundError(f"no cards of {name!r} in {cards}; run `make experiments`")
    found = runs.effects(table).loc[name]
    pair = ["ours" if control == "primary" else control, name][::sign]
    low, high = sorted((sign * found.low, sign * found.high))
    test, over = f"10 classes, linear probe, {' - '.join(pair)}", loaded(int(found.seeds))
    row = {**claim("", "", test, (sign * found["mean"], low, high), over), "p": float(found.p)}
    return row if found.seeds > 1 else {**row, "p": None, "verdict": UNSURE}


def gated(cards: Path, _: Path, name: str, what: str) -> dict[str, Any]:
    """What was not run, since an experiment had to beat random weights first, and by how much it did."""
    gain = primary_measure(committed_cards(f"{name}-{FIRST}", cards)).difference
    seen = over_seeds(gain, "", "")["points (95 %)"]
    test = f"{what}: not run. Training on {name} had to beat random weights first; it gave {seen} points"
    return NOT_RUN | {"tested here as": test, "over": f"{len(gain)} seeds (loaded)"}


def led(_: Path, studies: Path, study: str, first: str, second: str) -> dict[str, Any]:
    """How far a member or committee is ahead of another on the 4 000 videos; see `lead`."""
    cards = study_cards(study, studies)
    over = f"{loaded(len(cards))} of {len(cards[0]['labels']['large'])} videos"
    return over_seeds([lead(card, first, second) for card in cards], f"{first} - {second}", over)


def claimed(_: Path, studies: Path, study: str, place: str, test: str) -> dict[str, Any]:
    """A number (points) that cards of a study hold, by its path, such as ``claims.P9``."""
    part, _dot, key = place.partition(".")
    values = [card[part][key] for card in study_cards(study, studies) if key in card.get(part, {})]
    if not values:
        raise FileNotFoundError(f"no card of {study!r} holds {place}; run `make experiments`")
    return over_seeds(values, test, loaded(len(values)))


def of_factorial(_: Path, __: Path, name: str, sign: str) -> dict[str, Any]:
    """What a choice of the factorial does: the other way less the first one, or with sign -1 the first less the other.

    Its p is as it is; the ledger corrects it in the claim's family.
    """
    cards = factorial.finished()
    found, way = factorial.effects_of(cards).loc[name], int(sign)
    low, high = sorted((way * found.low, way * found.high))
    one, other = factorial.FACTORS[name][::way]
    test = f"mean of four readouts, {name}: {other} - {one}"
    videos = cards[0]["answers"]["action, k-NN, 1.0"]["n"]
    over = f"{len(cards)} runs x {videos:,} videos (loaded, stand-in)".replace(",", " ", 1)
    return {**claim("", "", test, (way * found.points, low, high), over), "p": float(found.p)}


def loaded(seeds: int) -> str:
    """What a row from cards speaks about."""
    return f"{seeds} seed{'s' if seeds > 1 else ''} (loaded, stand-in)"


# Kinds of evidence: (folder of the runs, folder of the studies, names) -> a row of the ledger.
EVIDENCE: dict[str, Callable[..., dict[str, Any]]] = {
    "experiment": compared,
    "reversed": partial(compared, sign=-1),
    "gate": gated,
    "factorial": of_factorial,
    "lead": led,
    "study": claimed,
    "text": lambda cards, studies, why: NOT_RUN | {"tested here as": why},
    "fact": lambda cards, studies, why: NOT_RUN | {"tested here as": why, "verdict": "not asked"},
}


def from_cards(evidence: str, cards: Path = CARDS, studies: Path = STUDIES) -> dict[str, Any]:
    """A row of the ledger from what a line of data/claims.csv names.

    Args:
        evidence: a kind of `EVIDENCE` and its names, such as ``lead STUDY | ONE | OTHER``.
        cards: folder of the runs.
        studies: folder of the studies.

    Raises:
        FileNotFoundError: there are no such cards yet.
        ValueError: another kind of evidence.
    """
    kind, _, names = evidence.partition(" ")
    if kind not in EVIDENCE:
        raise ValueError(f"unknown kind of evidence {kind!r} in data/claims.csv; known: {', '.join(EVIDENCE)}, live")
    return EVIDENCE[kind](cards, studies, *(name.strip() for name in names.split("|")))


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
    listed = pd.read_csv(data_file("claims.csv"), index_col="id", keep_default_na=False)
    if wrong := set(live) ^ set(listed.index[listed.evidence == "live"]):
        raise ValueError(f"claims tested live and claims listed as such differ: {', '.join(sorted(wrong))}")

    rows = {}
    for number, line in listed.iterrows():
        try:
            row = live[number] if line.evidence == "live" else from_cards(line.evidence, cards, studies)
        except FileNotFoundError:
            row = NOT_RUN
        rows[number] = {**NOT_RUN, **row, **line[["claim", "where", "note", "page"]]}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table["p (Holm)"], table["alone"] = None, _words(table, "p")
    families = table.index.str[0] + np.where(listed.evidence == "live", " live", " loaded")
    for family in set(families):
        members = table.index[(families == family) & table.p.notna()]
        table.loc[members, "p (Holm)"] = holm(list(table.p[members]))
    table["verdict"] = _words(table, "p (Holm)")
    return table[["claim", "where", *COLUMNS, "p (Holm)", "verdict", "alone", "note", "page"]].rename_axis("id")


def _words(table: pd.DataFrame, column: str) -> list[str]:
    """The verdict of each row by its interval and the p value of a column."""
    p_values = [None if pd.isna(p) else p for p in table[column]]
    return [held_back(row, p)["verdict"] for row, p in zip(table.to_dict("records"), p_values, strict=True)]
