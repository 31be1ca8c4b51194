"""The table of votes tells in words what the module computes."""

import json
import re

import figures
import numpy as np
import pytest
from figures import votes
from test_ensemble import TIE, random_scores

from picojepa import ensemble
from picojepa.clips import Clips, label_numbers
from picojepa.probing import Task
from standin import CLASSES

NAMES = ["red", "green", "blue", "dark green"]


def payload(figure) -> dict:
    """The data of an interactive figure."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', figure.data, re.DOTALL).group(1))


@pytest.fixture
def asked(noise: Clips) -> tuple[Clips, Task, np.ndarray]:
    """Ten videos, a task of two classes that asks about all of them, and scores of five members, (5, 10, 2)."""
    labels = label_numbers(noise.videos.label, CLASSES[:2])
    rows = np.arange(len(labels))
    return noise, Task(CLASSES[:2], rows, rows, labels, labels), random_scores(5, 10, 2)


@pytest.mark.parametrize("members", [3, 4, 5])
def test_the_words_name_the_winner_of_the_vote(members):
    scores = random_scores(members)
    wanted, ties = ensemble.majority_vote(scores), ensemble.leaders(scores).sum(1) > 1
    assert ties.sum() > 50
    for video, (winner, tie) in enumerate(zip(wanted, ties, strict=True)):
        words, found = votes.steps(scores[:, video], NAMES)
        assert found == winner
        assert words[-1].endswith(f": {NAMES[winner]}.")
        assert len(words) == 2 + tie
        assert ("a tie of" in " ".join(words)) == tie


def test_the_words_of_a_tie_made_by_hand():
    words, _ = votes.steps(TIE[:, 0], NAMES)
    assert words == [
        "Count the votes: red 2 and blue 2.",
        "No class leads alone: a tie of red and blue.",
        "Sum the certainty of all 4 voters: red 1.10 and blue 1.90. The larger sum wins: blue.",
    ]


def test_sums_that_are_close_are_told_with_more_digits_and_equal_ones_by_the_order_of_the_list():
    close = np.array([[0.6, 0.4], [0.6, 0.4], [0.4004, 0.5996], [0.4, 0.6]])
    assert "red 2.000 and green 2.000" not in votes.steps(close, NAMES)[0][-1]
    assert "red 2.0004 and green 1.9996" in votes.steps(close, NAMES)[0][-1]
    words, found = votes.steps(np.array([[0.75, 0.25], [0.25, 0.75]]), NAMES)
    assert found == ensemble.majority_vote(np.array([[[0.75, 0.25]], [[0.25, 0.75]]]))[0] == 0
    assert "The sums are equal" in words[-1]


def test_kinds_against_the_prediction_table(asked):
    clips, task, scores = asked
    table = ensemble.decide(clips, task, scores)
    right = (table.predicted == table.label).to_numpy().reshape(-1, 10)
    vote, general = right[5], right[0]
    kinds = votes.kinds_of_videos(scores, task.test_labels.numpy())
    assert kinds["the vote is right, General is wrong"].tolist() == np.flatnonzero(vote & ~general).tolist()
    assert kinds["General is right, the vote is wrong"].tolist() == np.flatnonzero(general & ~vote).tolist()
    assert kinds["all five are wrong"].tolist() == np.flatnonzero(~right[:5].any(0)).tolist()
    assert len(kinds["all videos"]) == 10


def test_the_figure_holds_every_video_as_it_was_predicted(asked):
    clips, task, scores = asked
    table = ensemble.decide(clips, task, scores)
    data = payload(figure := votes.table(clips, task, table))
    assert re.search(r'<img alt="[^"]*Count the votes', figure.data)
    assert data["names"] == [str(number) for number in range(10)]
    assert [one["truth"] for one in data["videos"]] == task.test_labels.tolist()
    votes_in_table = table[table.member == "majority vote"].predicted.map(CLASSES.index)
    assert [one["vote"] for one in data["videos"]] == votes_in_table.tolist()
    for row, one in enumerate(data["videos"]):
        for member, top in enumerate(one["top"]):
            assert top[0] == [scores[member, row].argmax(), round(100 * scores[member, row].max())]
    assert all(film["frames"] == 8 and film["src"].startswith("data:image/webp") for film in data["films"])


def test_films_stay_small_and_those_that_matter_come_first(monkeypatch):
    clips = np.random.default_rng(0).integers(0, 256, (6, 16, 3, 224, 224), dtype=np.uint8)
    (one,) = figures.films(clips[:1], [0])
    assert (one["frames"], one["height"]) == (8, 75)
    monkeypatch.setattr(figures, "BUDGET", 2.5 * len(one["src"]))
    assert [film is not None for film in figures.films(clips, [4, 1, 0, 2, 3, 5])] == [
        False,
        True,
        False,
        False,
        True,
        False,
    ]
