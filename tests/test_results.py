"""The paper's arithmetic, and our tables recomputed."""

import numpy as np
import pandas as pd
import pytest

import standin
from evidence import arithmetic
from footage.lists import paper_lists
from picojepa import results, stats
from picojepa.clips import Clips
from picojepa.config import settings
from picojepa.ensemble import MEMBERS
from standin import CLASSES, LABELLED_CLASSES, StandInConfig

# ---------------------------------------------------------------- the paper's numbers


def test_the_ensemble_of_the_paper_leads_by_one_video():
    counts = arithmetic.paper_counts()
    assert counts["General"].tolist() == [28, 24, 27, 32]
    assert counts["majority vote"].tolist() == [33, 19, 26, 34]
    assert (counts["General"].sum(), counts["majority vote"].sum()) == (111, 112)
    assert counts["Partial 3"].sum() == counts[list(MEMBERS[1:])].sum().max() == 107
    assert results.paper_total("validation") == 194


def test_the_papers_scores_are_shares_of_its_validation_videos():
    scores = arithmetic.paper_scores().set_index("model")
    assert list(scores.index) == list(results.paper_table(2))
    assert set(scores.n) == {194}
    low, high = stats.wilson(112, 194)
    assert tuple(scores.loc["majority vote", ["accuracy", "low", "high"]]) == pytest.approx(
        (100 * 112 / 194, 100 * low, 100 * high)
    )


def test_totals_of_the_papers_lists():
    found = {column: results.paper_total(column) for column in ("pretraining", "labelled", "validation")}
    assert found == {"pretraining": 7203, "labelled": 2817, "validation": 194}


def test_two_cells_of_the_paper_are_no_multiple_of_a_video():
    found = arithmetic.impossible_cells()
    assert found.to_dict("records") == [
        {"class": "adjusting_glasses", "model": "Partial 2", "printed": 37.92, "nearest": "18/48 = 37.50"},
        {"class": "alligator_wrestling", "model": "Partial 2", "printed": 47.67, "nearest": "23/48 = 47.92"},
    ]


def test_nearest_count_by_trying_all():
    for n in (48, 50):
        for percent in np.arange(0, 100.01, 0.37):
            k, distance = arithmetic.nearest_count(percent, n)
            tried = [abs(100 * c / n - percent) for c in range(n + 1)]
            assert distance == pytest.approx(min(tried))
            assert tried[k] == pytest.approx(min(tried))


def test_the_papers_tables_are_as_printed():
    accuracy, certainty, instances = (results.paper_table(n) for n in (2, 3, 1))
    means = accuracy.loc[list(LABELLED_CLASSES)].mean()
    assert (means - accuracy.loc["mean of 4 classes"]).abs().max() < 0.0151  # rounded to two decimals
    assert certainty.loc["alligator_wrestling", "General"] == 63.68
    assert instances.iloc[:, 0].to_dict() == dict(zip(MEMBERS, (2817, 706, 707, 707, 697), strict=True))


def test_table_1_of_the_paper():
    videos = standin.plan(StandInConfig(scale=1.0))
    videos = videos[videos.label.isin(paper_lists().index)]
    clips = Clips(videos, np.empty(0), np.empty(0), pd.DataFrame(), "none")
    table = results.table1(settings("paper"), clips)
    assert table.index.tolist() == list(MEMBERS)
    assert table["classification videos"].tolist() == [2817, 706, 707, 707, 697]
    assert set(table["pre-training videos"]) == {7203}
    assert set(table["validation videos"]) == {194}
    assert set(table["width"]) == {192}


# ---------------------------------------------------------------- our tables


def test_scores_with_intervals_are_recomputed(pipelines):
    table = pipelines[1].votes
    for row in results.score_table(table, ["member", "label"]).to_dict("records"):
        own = table[(table.member == row["member"]) & (table.label == row["label"])]
        k = int((own.predicted == row["label"]).sum())
        low, high = stats.wilson(k, 5)
        assert (row["accuracy"], row["low"], row["high"], row["n"]) == pytest.approx((20 * k, 100 * low, 100 * high, 5))


def test_table_1_of_a_pipeline(pipelines):
    table = results.table1(pipelines[1].settings, pipelines[1].clips)
    assert table["classification videos"].tolist() == [32, 8, 8, 8, 8]
    assert set(table["pre-training videos"]) == {8 * len(CLASSES)}
    assert set(table["validation videos"]) == {20}
