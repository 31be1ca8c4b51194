"""The planner looks up what `sample_size.power` computes."""

import pytest
from figures import power
from test_figure_votes import payload

from evidence import sample_size

MARKS = {"here": 194, "the paper": 194, "large": 400}


def test_the_figure_holds_the_power_at_every_place():
    data = payload(power.curves(0.12, MARKS, leads=(2, 5, 20), most=400))
    assert data["leads"] == [2, 5]
    assert {194, 400} <= set(data["videos"])
    assert data["videos"] == sorted(set(data["videos"]))
    for lead, told, needed in zip(data["leads"], data["told"], data["needed"], strict=True):
        assert told == [round(100 * sample_size.power(n, lead / 100, 0.12), 1) for n in data["videos"]]
        assert needed == sample_size.videos_needed(lead / 100, 0.12)


def test_marks_of_one_number_share_a_mark_and_the_slider_starts_there():
    data = payload(power.curves(0.12, MARKS, leads=(2, 5), most=400))
    assert data["marks"] == [{"n": 194, "name": "here and the paper"}, {"n": 400, "name": "large"}]
    assert data["start"] == [0, data["videos"].index(194)]


def test_the_picture_says_the_power_in_words():
    told = 100 * sample_size.power(194, 0.05, 0.12)
    text = power.curves(0.12, MARKS, leads=(5,), most=400).data
    assert f"With 194 videos (here and the paper) a lead of 5 points is told in {told:.0f} % of cases." in text


def test_no_lead_is_larger_than_the_disagreement():
    with pytest.raises(ValueError, match="disagreement of 1.0%"):
        power.curves(0.01, MARKS, leads=(2,), most=400)


def test_a_grid_of_two_digits_that_reaches_every_mark():
    assert power.grid({"few": 7, "many": 30_000}, 1000)[0] == 7
    assert power.grid({"few": 7, "many": 30_000}, 1000)[-1] == 30_000
    assert len(power.grid({}, 20_000)) == 37


def test_too_many_videos_are_not_counted():
    assert power.needed(0.0001, 0.5) is None
