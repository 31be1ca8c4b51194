"""Committees: twins have not seen their fold, more videos are unseen ones, votes and calibration are what they say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import brier_score_loss

import standin
from evidence import study_committees
from evidence.study_committees import calibration, committee, head_on, large_test, member, neighbours_on, parts_of
from picojepa.config import settings
from picojepa.fitting import ProbeConfig
from picojepa.heads import LinearHead
from standin import LABELLED_CLASSES

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
    assert set(decided) == {
        "soft",
        "hard",
        "hard, class order",
        "hard, first member",
        "hard, by lot",
        "weighted",
        "stack",
    }
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
    pixels, labels = large_test(base, each=3)
    assert pixels.shape == (12, *pixels.shape[1:])
    assert pixels.dtype == np.uint8
    assert torch.bincount(labels).tolist() == [3, 3, 3, 3]
    (listed,) = tmp_path.rglob("data.test_large-*/videos.csv")
    videos, known = pd.read_csv(listed), standin.plan(base.data)
    assert not set(videos.seed) & set(known.seed)
    assert set(videos.label) == set(LABELLED_CLASSES)
    row = videos.iloc[0].to_dict()
    again = study_committees.one_more(row, base.data, base.clip, _folder(tmp_path, row))
    assert np.array_equal(again, pixels[0])


def _folder(tmp_path, row):
    (tmp_path / "again" / row["path"]).parent.mkdir(parents=True)
    return tmp_path / "again"


def test_heads_of_every_kind_learn_what_can_be_learned():
    labels = torch.arange(80) % 4
    features = torch.eye(4)[labels] * 3 + torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
    asked = {"large": np.arange(60, 80)}
    config = replace(ProbeConfig(), epochs=30)
    for fit in (
        head_on(features, labels, LinearHead, 30, 0.1, config),
        head_on(features, labels, study_committees.WideHead, 30, 0.01, config),
        neighbours_on(features, labels, 5),
    ):
        found = fit(np.arange(60), asked)["large"]
        assert found.sum(1) == pytest.approx(np.ones(20), abs=1e-5)
        assert (found.argmax(1) == labels[60:].numpy()).mean() > 0.8
