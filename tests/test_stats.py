"""Intervals and tests against other libraries and closed forms; what few videos or seeds cannot say."""

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from picojepa import stats


@pytest.mark.parametrize(("k", "n"), [(111, 194), (112, 194), (0, 48), (50, 50), (1, 3)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_is_statsmodels_and_the_closed_form(k, n, level):
    found = stats.wilson(k, n, level)
    assert found == pytest.approx(proportion_confint(k, n, 1 - level, method="wilson"), abs=1e-9)
    z, p = scipy.stats.norm.ppf((1 + level) / 2), k / n
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    assert found == pytest.approx((middle - half, middle + half), abs=1e-9)


def test_the_papers_interval_is_about_50_to_64_percent():
    assert [100 * end for end in stats.wilson(111, 194)] == pytest.approx([50, 64], abs=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_is_statsmodels(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random(60) < 0.8, rng.random(60) < 0.5
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    only_a, only_b, p = stats.mcnemar(a, b)
    assert (only_a, only_b) == (table[0][1], table[1][0])
    assert p == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_mcnemar_without_disagreement():
    right = np.array([True, False])
    assert stats.mcnemar(right, right) == (0, 0, 1.0)


def test_seed_interval_is_that_of_the_paired_t_test():
    a, b = np.array([40.1, 42.0, 39.5, 41.2, 43.3]), np.array([19.0, 22.5, 18.1, 20.2, 21.0])
    mean, low, high = stats.seed_interval(a - b)
    interval = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((np.mean(a - b), interval.low, interval.high))
    half = 2.776445 * np.std(a - b, ddof=1) / np.sqrt(5)  # t of four degrees of freedom
    assert high - mean == pytest.approx(half, rel=1e-5)


def test_bootstrap_interval_is_near_the_normal_one():
    values = np.random.default_rng(0).random(400)
    mean, low, high = stats.bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert mean == values.mean()
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)
    assert stats.bootstrap_interval(values) == (mean, low, high)
    assert stats.bootstrap_interval(values, seed=1) != (mean, low, high)
    narrow = stats.bootstrap_interval(values, level=0.5)
    assert low < narrow[1] < narrow[2] < high


@pytest.mark.parametrize("unlike", [1, 5, 6])
def test_two_classifiers_that_hardly_differ_cannot_be_told_apart(unlike):
    """A sign test needs six videos on one side for p < 0.05; with fewer the interval has no ends."""
    differences = np.repeat([100.0, 0.0], [unlike, 40 - unlike])
    mean, low, high = stats.bootstrap_interval(differences)
    assert mean == 100 * unlike / 40
    assert (low > 0) == (unlike == 6)
    assert (high < np.inf) == (unlike == 6)
    assert (stats.mcnemar(differences > 0, np.zeros(40, dtype=bool))[2] < stats.LEVEL) == (unlike == 6)


@pytest.mark.parametrize("given", [[1.0, 2, 3, 4], [[1.0, 2, 3, 4], [1.0] * 9], [[1.0] * 9, [1.0, 2, 3, 4]]])
def test_four_videos_say_nothing_of_others(given):
    mean, low, high = stats.bootstrap_interval(*given) if len(given) == 2 else stats.bootstrap_interval(given)
    assert np.isfinite(mean)
    assert (low, high) == (-np.inf, np.inf)


def test_numbers_that_are_all_the_same_have_an_interval_without_length():
    assert stats.bootstrap_interval(np.full(9, 0.5)) == (0.5, 0.5, 0.5)
    assert stats.bootstrap_interval(np.full(9, 0.5), np.full(7, 0.25)) == (0.25, 0.25, 0.25)


def test_bootstrap_of_a_difference_of_two_groups():
    rng = np.random.default_rng(0)
    a, b = rng.normal(3, 1, 300), rng.normal(1, 2, 200)
    mean, low, high = stats.bootstrap_interval(a, minus=b)
    half = 1.96 * np.sqrt(a.var() / 300 + b.var() / 200)
    assert mean == pytest.approx(a.mean() - b.mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)


@pytest.mark.parametrize("differences", [[3.0], [3.0, 3.0, 3.0]])
def test_one_seed_or_seeds_without_spread_give_no_interval(differences):
    assert stats.seed_interval(differences) == (3.0, -np.inf, np.inf)


def test_holm_by_hand():
    """The smallest p is multiplied by the number of tests, the next one by one less; none below the one before."""
    assert stats.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert stats.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert stats.holm([]) == []


@pytest.mark.parametrize("disagree", range(1, 60, 2))
def test_a_net_difference_of_one_video_is_never_significant(disagree):
    a = np.zeros(194, dtype=bool)
    b = a.copy()
    a[: disagree // 2] = True
    b[disagree // 2 : disagree] = True
    only_a, only_b, p = stats.mcnemar(a, b)
    assert (only_b - only_a, p) == (1, 1.0)
