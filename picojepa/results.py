"""Putting it together: the paper's tables beside ours, intervals, arithmetic checks and run cards.

Book: chapter 8.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from picojepa import store, weights
from picojepa.clips import Clips
from picojepa.config import DATA, LABELLED_CLASSES, PAPER_VALIDATION, ROOT, Settings
from picojepa.data import labelled_classes, quarters
from picojepa.ensemble import MEMBERS
from picojepa.probing import accuracy

CARDS = DATA / "cards"
BENCHMARKS = ROOT / "benchmarks"
FEWEST = 5  # videos for an interval: of four, tosses of a coin have one sign in one case of eight
FEWEST_UNLIKE = 6  # videos that two classifiers answer unlike: of five, tosses have one sign in one case of sixteen


# ---------------------------------------------------------------- the paper's numbers


def paper_table(number: int) -> pd.DataFrame:
    """Table 1, 2 or 3 as the paper prints it (percent in 2 and 3).

    Source: pico-JEPA Tables 1-3. Book: chapter 8.
    """
    return pd.read_csv(DATA / "paper" / f"table{number}.csv", index_col=0)


def nearest_count(percent: float, n: int) -> tuple[int, float]:
    """The count k for which k / n comes nearest to a percentage, and the distance in percentage points."""
    k = round(percent / 100 * n)
    return k, abs(100 * k / n - percent)


def paper_counts() -> pd.DataFrame:
    """Right answers behind each cell of the paper's Table 2, by class and model."""
    table = paper_table(2).loc[list(LABELLED_CLASSES)]
    sizes = dict(zip(LABELLED_CLASSES, PAPER_VALIDATION, strict=True))
    return table.apply(
        lambda row: [nearest_count(p, sizes[row.name])[0] for p in row], axis=1, result_type="broadcast"
    ).astype(int)


def paper_scores() -> pd.DataFrame:
    """Accuracy with its Wilson interval over videos (percent) and n of each model in the paper's Table 2, pooled.

    Source: pico-JEPA Table 2, as counts of videos. Book: chapter 8.
    """
    n = sum(PAPER_VALIDATION)
    rows: list[dict[str, Any]] = []
    for model, k in paper_counts().sum().items():
        low, high = wilson(k, n)
        rows.append({"model": model, "accuracy": 100 * k / n, "low": 100 * low, "high": 100 * high, "n": n})
    return pd.DataFrame(rows)


def impossible_cells(tolerance: float = 0.005) -> pd.DataFrame:
    """Cells of the paper's Table 2 that are no multiple of one video (granularity check, GRIM).

    Args:
        tolerance: rounding of the printed percentages, in percentage points.

    Source: Brown and Heathers 2017 for the check. Book: chapter 8.
    """
    rows: list[dict[str, Any]] = []
    for label, n in zip(LABELLED_CLASSES, PAPER_VALIDATION, strict=True):
        for model, percent in paper_table(2).loc[label].items():
            k, distance = nearest_count(percent, n)
            if distance > tolerance + 1e-9:
                rows.append(
                    {"class": label, "model": model, "printed": percent, "nearest": f"{k}/{n} = {100 * k / n:.2f}"}
                )
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- intervals


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson interval of a share, over the population of videos: k of n -> (low, high), 0 to 1."""
    interval = stats.binomtest(int(k), int(n)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> tuple[int, int, float]:
    """Exact McNemar test of two classifiers on the same videos.

    Args:
        right_a: bool (n,), was each video answered correctly by a.
        right_b: the same for b.

    Returns:
        Videos that only a got right, videos that only b got right, two-sided p.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    both = only_a + only_b
    return only_a, only_b, float(stats.binomtest(only_a, both).pvalue) if both else 1.0


def seed_interval(differences: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Mean and t interval of paired differences over seeds: (mean, low, high); of a single seed, without ends."""
    differences = np.asarray(differences, dtype=float)
    mean = differences.mean()
    if len(differences) < 2 or np.ptp(differences) == 0:
        return float(mean), -np.inf, np.inf
    low, high = stats.t.interval(level, len(differences) - 1, loc=mean, scale=stats.sem(differences))
    return float(mean), float(low), float(high)


def bootstrap_interval(
    values: np.ndarray, minus: np.ndarray | None = None, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over videos with a percentile bootstrap interval: (mean, low, high), in the unit of the input.

    Fewer than `FEWEST` videos say nothing of others: the interval has no ends then (-inf to inf). Nor do
    differences of which some are 0, as of two classifiers on the same videos, and fewer than `FEWEST_UNLIKE` are not.

    Args:
        values: one number per video, (n,); for two classifiers on the same videos the differences.
        minus: numbers of other videos, (m,), whose mean is taken off.
        level: of the interval.
        draws: how often the videos are drawn again, with replacement.
        seed: of the draws.

    Book: chapter 8.
    """
    rng = np.random.default_rng(seed)

    def means(sample: np.ndarray) -> np.ndarray:
        return sample[rng.integers(len(sample), size=(draws, len(sample)))].mean(1)  # (draws,)

    values = np.asarray(values, dtype=float)
    mean, drawn, few = values.mean(), means(values), len(values) < FEWEST
    if minus is not None:
        minus = np.asarray(minus, dtype=float)
        mean, drawn, few = mean - minus.mean(), drawn - means(minus), few or len(minus) < FEWEST
    elif not values.all():
        few = int(np.count_nonzero(values)) < FEWEST_UNLIKE
    if few:
        return float(mean), -np.inf, np.inf
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(mean), float(low), float(high)


def half_interval(n: int) -> str:
    """How far the Wilson interval of a score of one half reaches with n videos, such as ``43 to 57``.

    Book: chapters 5 and 8.
    """
    low, high = wilson(n // 2, n)
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


def score_table(tables: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Accuracy with its Wilson interval over videos (percent) and n, one row per group of a prediction table."""
    rows: list[dict[str, Any]] = []
    for names, group in tables.groupby(by, sort=False):
        low, high = wilson((group.predicted == group.label).sum(), len(group))
        rows.append(
            {
                **dict(zip(by, names, strict=True)),
                "accuracy": 100 * accuracy(group),
                "low": 100 * low,
                "high": 100 * high,
                "n": len(group),
            }
        )
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- our tables


def with_intervals(table: pd.DataFrame, decimals: int = 0) -> pd.DataFrame:
    """Accuracy and its Wilson interval over videos in percent, as text, by class (rows) and member (columns).

    Book: chapter 8.
    """
    pooled = score_table(table, ["member"]).assign(label="all videos")
    scores = pd.concat([score_table(table, ["label", "member"]), pooled])
    text = [
        f"{a:.{decimals}f} ({lo:.{decimals}f}–{hi:.{decimals}f})"
        for a, lo, hi in scores[["accuracy", "low", "high"]].to_numpy()
    ]
    wide = scores.assign(text=text).pivot(index="label", columns="member", values="text")
    return wide.loc[list(dict.fromkeys(scores.label))].rename_axis(index=None, columns=None)


def table1(settings: Settings, clips: Clips) -> pd.DataFrame:
    """Instances for each model: width, videos for pre-training, for the classifier, for validation.

    Source: pico-JEPA Table 1. Book: chapters 1 and 8.
    """
    videos, quarter = clips.videos, quarters(clips.videos)
    validation = int(((videos.split == "validation") & videos.label.isin(labelled_classes(videos))).sum())
    sizes = [int((quarter > 0).sum()), *(int((quarter == q).sum()) for q in range(1, 5))]
    shared = {"width": settings.model.width, "pre-training videos": int((videos.split == "pretrain").sum())}
    rows = [
        {"model": m, **shared, "classification videos": n, "validation videos": validation}
        for m, n in zip(MEMBERS, sizes, strict=True)
    ]
    return pd.DataFrame(rows).set_index("model")


# ---------------------------------------------------------------- run cards


def stored_cards(settings: Settings, clips: Clips) -> pd.DataFrame:
    """One row per stored result made with this profile's data: stage, date, seconds, hardware, code."""
    rows = []
    for path in sorted((store.cache_folder() / "results").glob(f"*/{store.CARD}")):
        card, finished = json.loads(path.read_text(encoding="utf-8")), path.parent.suffix != ".partial"
        if finished and clips.digest in (card["inputs"].get("data"), card.get("digest")):
            rows.append(
                {
                    "stage": card["stage"],
                    "date": card["date"],
                    "seconds": card["seconds"],
                    "machine": card["machine"],
                    "code": card["code"],
                }
            )
    columns = ["stage", "date", "seconds", "machine", "code"]
    return pd.DataFrame(rows, columns=columns).sort_values("date", ignore_index=True)


def run_card(settings: Settings, folder: Path) -> pd.Series:
    """What a reader must know of a stored run: profile, length, seed, hardware, seconds, code and data."""
    card = store.card(folder)
    training = settings.training
    facts = {
        "profile, recipe": f"{settings.profile}, {settings.recipe}",
        "steps, batch, clips seen": f"{training.steps}, {training.batch}, {training.steps * training.batch}",
        "seed": training.seed,
        "machine": f"{card['machine']}, accelerator: {card['accelerator']}, torch {card['torch']}",
        "made": f"{card['date']}, in {card['seconds']:.0f} s",
        "weights": weights.origin(folder),
        "code, data": f"{card['code']}, {card['inputs'].get('data', 'none')}",
    }
    return pd.Series(facts, name="run card")


def committed_cards(experiment: str, folder: Path = CARDS) -> list[dict[str, Any]]:
    """The cards that ``make experiments`` wrote for one experiment or study, by seed.

    Raises:
        FileNotFoundError: there are none; the message names the command that makes them.
    """
    paths = sorted(folder.glob(f"{experiment}-*.json"))
    if not paths:
        raise FileNotFoundError(f"no cards of {experiment!r} in {folder}; run `make experiments`")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def benchmark(name: str = "cpu", folder: Path = BENCHMARKS) -> dict[str, Any]:
    """The record that ``make bench`` wrote on one machine: clips a second, seconds and gigabytes, and where.

    Raises:
        FileNotFoundError: there is none; the message names the command that makes it.

    Book: chapters 2 and 3, and the page on larger machines.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no benchmark record at {path}; run `make bench`")
    return json.loads(path.read_text(encoding="utf-8"))


def measured_on(record: dict[str, Any]) -> str:
    """Machine, PyTorch and day of a benchmark record, for the reader who compares."""
    machine = record["hardware"]
    cores = f"{machine['cores']} cores, {machine['threads']} threads, accelerator: {machine['accelerator']}"
    return f"{machine['processor']}, {cores}, PyTorch {record['versions']['torch']}, {record['date'][:10]}"


def primary_measure(cards: list[dict[str, Any]], classes: int = 10, probe: str = "linear") -> pd.DataFrame:
    """Accuracy in percent of pre-trained and random weights for each seed, and their difference."""
    rows = []
    for card in cards:
        scores = {
            s["features"]: 100 * s["right"] / s["n"]
            for s in card["scores"]
            if s["classes"] == classes and s["probe"] == probe
        }
        rows.append({"seed": card["seed"], **scores})
    table = pd.DataFrame(rows).set_index("seed")
    return table.assign(difference=table["pre-trained"] - table["random weights"])
