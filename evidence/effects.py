"""One statistic for every question to runs: a contrast, with its error over runs and over videos.

Each run r answers the same videos v: y[r, v] is its score on one. A contrast weighs the runs with c[r], which add up to
0, such as a half less the other half. How wrong it can be has two sources, and a claim about new runs *and* new videos
must bear both:

- runs: what is left of the runs' means when the design is fitted, sigma^2 sum(c^2);
- videos: the variance over videos of sum(c[r] y[r, v]), divided by their number;
- what is in both, noise of a single answer, is taken off once.

Source: the variance of two crossed groups, Cameron, Gelbach and Miller 2011. tests/test_effects.py tries it on
simulated runs whose effects are known.

Book: the page on what makes a small JEPA learn, and the ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from picojepa.stats import LEVEL

MARGIN = 2.0  # points: a smaller difference does not matter to anyone who trains one encoder
POWER = 0.8  # with which the smallest effect is seen

SUPPORTED, CONTRADICTED, EQUIVALENT, INCONCLUSIVE = "supported", "contradicted", "equivalent", "inconclusive"


@dataclass(frozen=True)
class Effect:
    """A contrast in points, its 95 % interval, and what a test says of it.

    Attributes:
        points: the contrast.
        error: its standard error over runs and videos.
        freedom: degrees of freedom of the error.
        runs: that enter it.
        videos: that each run answered.
    """

    points: float
    error: float
    freedom: float
    runs: int
    videos: int

    @property
    def p(self) -> float:
        """Two-sided p of "the true contrast is 0"."""
        return float(2 * stats.t.sf(abs(self.points) / self.error, self.freedom))

    def interval(self, level: float = 1 - LEVEL) -> tuple[float, float]:
        """The ends of an interval."""
        half = stats.t.ppf((1 + level) / 2, self.freedom) * self.error
        return self.points - half, self.points + half

    @property
    def seen(self) -> float:
        """The smallest true contrast that would be told from 0 in four cases of five, points."""
        return float((stats.t.ppf(1 - LEVEL / 2, self.freedom) + stats.t.ppf(POWER, self.freedom)) * self.error)

    def verdict(self, p: float | None = None) -> str:
        """The word for "this contrast is above 0".

        Args:
            p: corrected for the tests beside it; None: as it is.
        """
        if (self.p if p is None else p) < LEVEL:
            return SUPPORTED if self.points > 0 else CONTRADICTED
        low, high = self.interval(1 - 2 * LEVEL)  # two one-sided tests (Schuirmann 1987)
        return EQUIVALENT if -MARGIN < low and high < MARGIN else INCONCLUSIVE


def contrast(scores: np.ndarray, weights: Sequence[float] | np.ndarray, design: np.ndarray) -> Effect:
    """A weighed difference of runs, in points.

    Args:
        scores: of every run on every video, 0 to 1, (runs, videos).
        weights: of the runs, (runs,); they add up to 0, and the positive ones to 1 for a difference of two means.
        design: what explains the runs' means, (runs, columns), such as one column for each arm. Its residual is the
            noise of runs.

    Raises:
        ValueError: the design leaves nothing to learn the noise from.
    """
    c, means = np.asarray(weights, dtype=float), scores.mean(1)
    hat = design @ np.linalg.pinv(design)
    freedom = len(c) - int(round(np.trace(hat)))
    if freedom < 1:
        raise ValueError(
            f"{len(c)} runs and a design of {design.shape[1]} columns leave nothing to learn the noise from"
        )
    left = scores - hat @ scores  # (runs, videos)
    noise = float(np.sum((means - hat @ means) ** 2)) / freedom
    over_runs = noise * float(np.sum(c**2))
    n = scores.shape[1]
    over_videos = float(np.var(c @ scores, ddof=1)) / n
    single = float(np.sum(left.var(axis=1, ddof=1)) / freedom / n * np.sum(c**2))
    error = np.sqrt(max(over_runs + over_videos - single, over_runs, over_videos))
    return Effect(100 * float(c @ means), 100 * float(error), freedom, int(np.count_nonzero(c)), n)


def arms_design(arms: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """One column for each arm, (runs, arms), and their names in the order of the columns."""
    names = list(dict.fromkeys(arms))
    return np.array([[arm == name for name in names] for arm in arms], dtype=float), names


def difference(scores: np.ndarray, arms: Sequence[str], first: str, second: str) -> Effect:
    """How many points the arm ``first`` is ahead of ``second``; the noise of runs is learned from all arms."""
    design, _ = arms_design(arms)
    of = np.array(arms)
    weights = (of == first) / np.sum(of == first) - (of == second) / np.sum(of == second)
    return contrast(scores, weights, design)
