"""How many videos a comparison takes: the power of McNemar's exact test.

Book: the page on committees.
"""

import numpy as np
from scipy import stats

from picojepa.stats import LEVEL


def power(n: int, lead: float, disagree: float, level: float = LEVEL) -> float:
    """Probability that McNemar's exact test tells two classifiers apart.

    Args:
        n: videos that both answer.
        lead: true difference of their accuracies, 0 to 1.
        disagree: share of the videos that only one of them gets right, at least ``lead``.
        level: of the test.
    Book: the page on committees.
    """
    counts = np.arange(n + 1)  # videos on which one of the two is right
    # McNemar's p is below the level if the fewer wins are at most this many.
    most = stats.binom.ppf(level / 2, counts, 0.5) - 1
    share = (1 + lead / disagree) / 2 if disagree else 0.5
    told = stats.binom.cdf(most, counts, share) + stats.binom.cdf(most, counts, 1 - share)
    return float(np.sum(stats.binom.pmf(counts, n, disagree) * told))


def videos_needed(lead: float, disagree: float, wanted: float = 0.8, most: int = 2**17) -> int:
    """Fewest videos with which McNemar's exact test tells a lead with some probability, to about two per cent.

    Raises:
        ValueError: more than ``most`` would be needed.
    """
    low, high = 1, 2
    while power(high, lead, disagree) < wanted:
        low, high = high, 2 * high
        if high > most:
            raise ValueError(f"more than {most} videos are needed")
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, lead, disagree) >= wanted else (middle, high)
    return high
