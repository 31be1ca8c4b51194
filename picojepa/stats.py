"""Intervals and tests: what is known of a score, of a difference on the same videos, and of one over seeds.

Each interval speaks about one population: new videos, or new training runs. scipy and statsmodels compute.

Book: chapter 8.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

LEVEL = 0.05  # a p value below it counts
FEWEST = 5  # videos for an interval: of four, tosses of a coin have one sign in one case of eight
FEWEST_UNLIKE = 6  # videos that two classifiers answer unlike: of five, tosses have one sign in one case of sixteen


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


def seed_interval(differences: np.ndarray | Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and t interval of paired differences over seeds: (mean, low, high); of a single seed, without ends."""
    differences = np.asarray(differences, dtype=float)
    mean = float(differences.mean())
    if len(differences) < 2 or np.ptp(differences) == 0:
        return mean, -np.inf, np.inf
    ends = stats.ttest_1samp(differences, 0).confidence_interval(level)
    return mean, float(ends.low), float(ends.high)


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
    samples = [np.asarray(sample, dtype=float) for sample in (values, minus) if sample is not None]
    few = min(map(len, samples)) < FEWEST
    if minus is None and not samples[0].all():
        few = few or int(np.count_nonzero(samples[0])) < FEWEST_UNLIKE

    def difference(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        means = [part.mean(axis) for part in parts]
        return means[0] - means[1] if len(means) == 2 else means[0]

    mean = float(difference(*samples))
    if few:
        return mean, -np.inf, np.inf
    if all(np.ptp(sample) == 0 for sample in samples):
        return mean, mean, mean
    how = {"n_resamples": draws, "confidence_level": level, "method": "percentile", "batch": 500}
    ends = stats.bootstrap(samples, difference, vectorized=True, rng=seed, **how).confidence_interval
    return mean, float(ends.low), float(ends.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values of one family, corrected so that the chance of a single false word in the family is at most the level.

    Source: Holm 1979, as statsmodels computes it. Book: chapter 8.
    """
    return list(map(float, multipletests(p_values, LEVEL, method="holm")[1])) if len(p_values) else []
