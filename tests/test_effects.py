"""The statistic of runs and videos is right on simulated runs whose effects are known."""

import numpy as np
import pytest

from evidence import effects, factorial, trials
from evidence.effects import contrast, difference
from evidence.readouts import READOUTS


def simulated(rng, lead, runs=6, videos=300, run_noise=0.02, shared=0.1):
    """Answers of two arms: videos are hard or easy, each arm finds others hard, each run is better or worse."""
    hard = rng.normal(0, 0.2, videos)
    rows, arms = [], []
    for arm, ahead in (("new", lead), ("old", 0.0)):
        own = rng.normal(0, shared, videos)  # of the arm on a video, the same for its runs
        for _ in range(runs):
            chance = np.clip(0.4 + ahead + hard + own + rng.normal(0, run_noise), 0, 1)
            rows.append(rng.random(videos) < chance)
            arms.append(arm)
    return np.array(rows, dtype=float), arms


@pytest.mark.parametrize(("run_noise", "shared"), [(0.03, 0.0), (0.0, 0.25), (0.02, 0.15)])
def test_the_interval_covers_the_true_lead(run_noise, shared):
    """In 95 of 100 repetitions, wherever the noise comes from: runs, videos, or both."""
    rng, lead, trials = np.random.default_rng(0), 0.03, 400
    inside, tests = 0, 0
    for _ in range(trials):
        effect = difference(*simulated(rng, lead, run_noise=run_noise, shared=shared), "new", "old")
        low, high = effect.interval()
        inside += low < 100 * lead < high
        none = difference(*simulated(rng, 0.0, run_noise=run_noise, shared=shared), "new", "old")
        tests += none.p < 0.05
    assert 0.92 <= inside / trials <= 0.985, inside
    assert 0.015 <= tests / trials <= 0.08, tests


def test_leaving_out_a_source_is_too_sure():
    """The reason for two sources: runs alone would call far too many differences of nothing an effect."""
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(200):
        scores, arms = simulated(rng, 0.0, run_noise=0.01, shared=0.3, videos=200)
        of = np.array(arms) == "new"
        means = scores.mean(1)
        spread = np.sqrt(means[of].var(ddof=1) / of.sum() + means[~of].var(ddof=1) / (~of).sum())
        wrong += abs(means[of].mean() - means[~of].mean()) / spread > 2.23
    assert wrong / 200 > 0.15


def test_the_smallest_effect_is_seen_four_times_in_five():
    rng = np.random.default_rng(2)
    seen = np.mean([difference(*simulated(rng, 0.0), "new", "old").seen for _ in range(50)]) / 100
    told = [difference(*simulated(rng, seen), "new", "old").p < 0.05 for _ in range(300)]
    assert 0.7 < np.mean(told) < 0.9


def test_words():
    def of(points, error):
        return effects.Effect(points, error, 100, 10, 1000)

    assert of(3, 1).verdict() == effects.SUPPORTED
    assert of(-3, 1).verdict() == effects.CONTRADICTED
    assert of(0.3, 0.5).verdict() == effects.EQUIVALENT
    assert of(1, 1.5).verdict() == effects.INCONCLUSIVE
    assert of(3, 1).verdict(p=0.2) == effects.INCONCLUSIVE, "a corrected p counts"
    assert of(1, 0.2).verdict() == effects.SUPPORTED, "small, but told from 0"


def test_contrast_of_a_factorial_finds_what_was_put_in():
    """Known main effects and one interaction of the design come out within three of their errors."""
    rng, rows = np.random.default_rng(3), factorial.design()
    levels = np.array([list(row.values()) for row in rows])
    chance = 0.3 + levels[:, 5] * 0.05 + levels[:, 4] * 0.02 + levels[:, 4] * levels[:, 5] * 0.03
    chance = chance + rng.normal(0, 0.01, len(rows))
    scores = (rng.random((len(rows), 4000)) < chance[:, None]).astype(float)
    found = factorial.table(scores, rows)
    wanted = dict.fromkeys(found.index, 0.0) | {"spreading term": 10.0, "target": 4.0, "target x spreading term": 6.0}
    off = (found.points - np.array([wanted[name] for name in found.index])) / found.error
    assert off.abs().max() < 3.5
    assert np.sqrt((off**2).mean()) < 1.5
    assert (found.verdict[["spreading term", "target", "target x spreading term"]] == effects.SUPPORTED).all()


def test_an_effect_in_the_company_of_another():
    """The term gives 4 points with one target and 16 with the other, as put in."""
    rng, rows = np.random.default_rng(4), factorial.design()
    cards = []
    for row in rows:
        chance = 0.3 + row["spreading term"] * (0.05 + 0.03 * row["target"]) + rng.normal(0, 0.005)
        bits = [trials.packed(rng.random(2000) < chance) for _ in READOUTS]
        answers = {f"action, {r}, 1.0": {"n": 2000, "by_video": b} for r, b in zip(READOUTS, bits, strict=True)}
        cards.append({"levels": row, "answers": answers})
    for level, wanted in ((-1, 4), (1, 16)):
        points, low, high = factorial.effect_within(cards, "spreading term", {"target": level})
        assert points == pytest.approx(wanted, abs=0.8)
        assert low < points < high
        assert high - low < 2


def test_a_design_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="leave nothing"):
        contrast(np.ones((2, 5)), [1, -1], np.eye(2))
