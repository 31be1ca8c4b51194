"""Committees: twins have not seen their fold, more videos are unseen ones, votes and calibration are what they say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import brier_score_loss

import standin
from evidence import members
from evidence.members import calibration, committee, head_on, large_test, member, neighbours_on, parts_of
from picojepa.config import settings
from picojepa.ensemble import TIE_RULES
from picojepa.fitting import ProbeConfig

FOUR = ("abseiling", "adjusting_glasses", "alligator_wrestling", "archaeological_excavation")
RANDOM = np.random.default_rng(0)


def answers(n, sure=None):
    """Probabilities (n, 4), all by lot or all for one class."""
    scores = RANDOM.dirichlet(np.ones(4), n)
    return scores if sure is None else 0.7 * np.eye(4)[np.full(n, sure)] + 0.3 * scores


def test_a_twin_has_not_seen_its_fold():
    seen = []

    def fit(rows, asked):
        seen.append((set(rows), {name: set(of) for name, of in asked.items()}))
        return {name: np.repeat(np.asarray(of)[:, None], 4, axis=1).astype(float) for name, of in asked.items()}

    rows, folds = np.array([1, 3, 4, 6]), [np.array([4, 0]), np.array([1, 5, 2]), np.array([3, 6])]
    found = member(fit, rows, folds, {"large": np.array([7, 8])})
    assert [s[0] for s in seen[:-1]] == [{1, 3, 6}, {3, 4, 6}, {1, 4}]
    assert seen[-1] == ({1, 3, 4, 6}, {"large": {7, 8}})
    assert found["folds"][:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6], "in the order of the list"
    assert "folds" not in member(fit, rows, [], {"large": np.array([7])})


def test_the_twin_of_a_bag_keeps_what_was_drawn_twice():
    seen = []

    def fit(rows, asked):
        seen.append(sorted(rows.tolist()))
        return {name: np.zeros((len(of), 4)) for name, of in asked.items()}

    member(fit, np.array([3, 1, 3, 0, 1, 3]), [np.array([0, 2]), np.array([1, 3])], {"large": np.array([4])})
    assert seen == [[1, 1, 3, 3, 3], [0], [0, 1, 1, 3, 3, 3]]


def test_parts_share_every_class():
    labels = torch.tensor([0] * 12 + [1] * 24)
    parts = parts_of(labels, 4, seed=1)
    assert sorted(np.concatenate(parts)) == list(range(36))
    assert [np.bincount(labels[part]).tolist() for part in parts] == [[3, 6]] * 4


def test_weights_and_stack_learn_from_the_folds_alone():
    labels = torch.arange(40) % 4
    right = {"folds": 0.7 * np.eye(4)[labels] + 0.3 * answers(40), "validation": answers(6, 2), "large": answers(9, 2)}
    wrong = {"folds": answers(40), "validation": answers(6, 1), "large": answers(9, 1)}
    decided = committee([right, wrong], labels)
    assert (decided["stack"]["large"].argmax(1) == 2).all(), "it listens to the member that was right on the folds"
    assert (decided["weighted"]["large"].argmax(1) == 2).all()
    assert np.allclose(decided["soft"]["large"], (right["large"] + wrong["large"]) / 2)
    assert set(decided) == {"soft", "hard", *(f"hard, {rule}" for rule in list(TIE_RULES)[1:]), "weighted", "stack"}
    assert (decided["hard, class order"]["large"].argmax(1) == 1).all(), "a tie"
    assert "stack" not in committee([{k: v for k, v in right.items() if k != "folds"}] * 2, labels)


def test_calibration_is_honest_where_certainty_is_accuracy():
    labels = np.array([0] * 6 + [1] * 4)
    scores = np.tile([0.6, 0.4, 0.0, 0.0], (10, 1))
    found = calibration(scores, labels)
    assert found["ece"] == pytest.approx(0)
    assert found["bins"] == [[0.6, 0.6, 10]]
    assert found["brier"] == pytest.approx(((scores - np.eye(4)[labels]) ** 2).sum(1).mean())
    assert found["brier"] == pytest.approx(brier_score_loss(labels, scores, labels=[0, 1, 2, 3]))
    assert calibration(np.eye(4)[[1] * 10], labels)["ece"] == pytest.approx(0.6)


def test_more_videos_are_unseen_and_of_the_labelled_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path))
    base = settings("smoke")
    pixels, labels = large_test(base, FOUR, each=3)
    assert pixels.shape == (12, *pixels.shape[1:])
    assert pixels.dtype == np.uint8
    assert torch.bincount(labels).tolist() == [3, 3, 3, 3]
    (listed,) = tmp_path.rglob("evidence.test_large-*/videos.csv")
    videos, known = pd.read_csv(listed), standin.plan(base.data)
    assert not set(videos.seed) & set(known.seed)
    assert set(videos.label) == set(FOUR)
    assert np.array_equal(members.one_more(videos.iloc[0].to_dict(), base), pixels[0])
    monkeypatch.setattr(members, "one_more", None)
    assert np.array_equal(large_test(base, FOUR, each=3)[0], pixels), "found again"


def test_more_videos_of_another_generator_are_others(tmp_path, monkeypatch):
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path))
    base = settings("smoke")
    large_test(base, FOUR, each=1)
    large_test(replace(base, data=replace(base.data, occluders=0.5)), FOUR, each=1)
    assert len(list(tmp_path.rglob("evidence.test_large-*/videos.csv"))) == 2


def test_there_are_no_more_of_ones_own_videos(tmp_path, monkeypatch):
    monkeypatch.setenv("PICOJEPA_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="unset PICOJEPA_DATA"):
        large_test(settings("smoke"), FOUR)


def test_heads_of_every_kind_learn_what_can_be_learned():
    labels = torch.arange(80) % 4
    features = torch.eye(4)[labels] * 3 + torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
    asked = {"large": np.arange(60, 80)}
    config = replace(ProbeConfig(), epochs=30)
    for fit in (
        head_on(features, labels, config),
        head_on(features, labels, config, members.wide_head, peak=0.01),
        neighbours_on(features, labels, 5),
    ):
        found = fit(np.arange(60), asked)["large"]
        assert found.sum(1) == pytest.approx(np.ones(20), abs=1e-5)
        assert (found.argmax(1) == labels[60:].numpy()).mean() > 0.8
