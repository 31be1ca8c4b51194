"""The paper's arithmetic, intervals against other libraries and closed forms, cards."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

import standin
from evidence import ledger, records
from picojepa import results, stats, store
from picojepa.clips import Clips
from picojepa.config import PAPER_VALIDATION, settings
from picojepa.ensemble import MEMBERS
from standin import LABELLED_CLASSES, StandInConfig

# ---------------------------------------------------------------- the paper's numbers


def test_the_ensemble_of_the_paper_leads_by_one_video():
    counts = results.paper_counts()
    assert counts["General"].tolist() == [28, 24, 27, 32]
    assert counts["majority vote"].tolist() == [33, 19, 26, 34]
    assert (counts["General"].sum(), counts["majority vote"].sum()) == (111, 112)
    assert counts["Partial 3"].sum() == counts[list(MEMBERS[1:])].sum().max() == 107
    assert sum(PAPER_VALIDATION) == 194


def test_two_cells_of_the_paper_are_no_multiple_of_a_video():
    found = results.impossible_cells()
    assert found.to_dict("records") == [
        {"class": "adjusting_glasses", "model": "Partial 2", "printed": 37.92, "nearest": "18/48 = 37.50"},
        {"class": "alligator_wrestling", "model": "Partial 2", "printed": 47.67, "nearest": "23/48 = 47.92"},
    ]


def test_nearest_count_by_trying_all():
    for n in (48, 50):
        for percent in np.arange(0, 100.01, 0.37):
            k, distance = results.nearest_count(percent, n)
            tried = [abs(100 * c / n - percent) for c in range(n + 1)]
            assert distance == pytest.approx(min(tried))
            assert tried[k] == pytest.approx(min(tried))


def test_the_papers_tables_are_as_printed():
    accuracy, certainty, instances = (results.paper_table(n) for n in (2, 3, 1))
    means = accuracy.loc[list(LABELLED_CLASSES)].mean()
    assert (means - accuracy.loc["mean of 4 classes"]).abs().max() < 0.0151  # rounded to two decimals
    assert certainty.loc["alligator_wrestling", "General"] == 63.68
    assert instances.iloc[:, 0].to_dict() == dict(zip(MEMBERS, (2817, 706, 707, 707, 697), strict=True))


@pytest.mark.parametrize("disagree", range(1, 60, 2))
def test_a_net_difference_of_one_video_is_never_significant(disagree):
    a = np.zeros(194, dtype=bool)
    b = a.copy()
    a[: disagree // 2] = True
    b[disagree // 2 : disagree] = True
    only_a, only_b, p = stats.mcnemar(a, b)
    assert (only_b - only_a, p) == (1, 1.0)


def test_table_1_of_the_paper():
    videos = standin.plan(StandInConfig(scale=1.0))
    clips = Clips(videos, np.empty(0), np.empty(0), pd.DataFrame(), "none")
    table = results.table1(settings("paper"), clips)
    assert table.index.tolist() == list(MEMBERS)
    assert table["classification videos"].tolist() == [2817, 706, 707, 707, 697]
    assert set(table["pre-training videos"]) == {7203}
    assert set(table["validation videos"]) == {194}
    assert set(table["width"]) == {192}


# ---------------------------------------------------------------- intervals


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


@pytest.mark.parametrize(("unlike", "word"), [(0, "cannot be told here"), (5, "cannot be told here"), (6, "supported")])
def test_two_classifiers_that_hardly_differ_cannot_be_told_apart(unlike, word):
    differences = np.repeat([100.0, 0.0], [unlike, 40 - unlike])  # a sign test needs six for p < 0.05
    assert ledger.verdict(*stats.bootstrap_interval(differences)[1:]) == word


def test_bootstrap_of_a_difference_of_two_groups():
    rng = np.random.default_rng(0)
    a, b = rng.normal(3, 1, 300), rng.normal(1, 2, 200)
    mean, low, high = stats.bootstrap_interval(a, minus=b)
    half = 1.96 * np.sqrt(a.var() / 300 + b.var() / 200)
    assert mean == pytest.approx(a.mean() - b.mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.1, 2, "supported"),
        (-2, -0.1, "not supported"),
        (-1, 1, "cannot be told here"),
        (0.0, 1, "cannot be told here"),
    ],
)
def test_verdicts(low, high, word):
    assert ledger.verdict(low, high) == word
    row = ledger.claim("c", "w", "t", ((low + high) / 2, low, high), "5 seeds")
    assert row["verdict"] == word
    assert f"({low:+.1f} to {high:+.1f})" in row["points (95 %)"]


# ---------------------------------------------------------------- our tables


def test_scores_with_intervals_are_recomputed(pipelines):
    table = pipelines[1].votes
    for row in results.score_table(table, ["member", "label"]).to_dict("records"):
        own = table[(table.member == row["member"]) & (table.label == row["label"])]
        k = int((own.predicted == row["label"]).sum())
        low, high = stats.wilson(k, 5)
        assert (row["accuracy"], row["low"], row["high"], row["n"]) == pytest.approx((20 * k, 100 * low, 100 * high, 5))
    text = results.with_intervals(table)
    assert text.shape == (5, 7)
    k = int((table[table.member == "General"].predicted == table[table.member == "General"].label).sum())
    low, high = stats.wilson(k, 20)
    assert text.loc["all videos", "General"] == f"{5 * k} ({100 * low:.0f}–{100 * high:.0f})"


def test_table_1_of_a_pipeline(pipelines):
    table = results.table1(pipelines[1].settings, pipelines[1].clips)
    assert table["classification videos"].tolist() == [32, 8, 8, 8, 8]
    assert set(table["pre-training videos"]) == {80}
    assert set(table["validation videos"]) == {20}


# ---------------------------------------------------------------- cards


def test_cards_of_this_data_are_listed(pipelines, monkeypatch):
    pipeline = pipelines[1]
    monkeypatch.setenv("PICOJEPA_CACHE", str(pipeline.cache))
    table = records.stored_cards(pipeline.settings, pipeline.clips)
    stages = sorted(table.stage)
    wanted = ["data.clips", "ensemble.heads", "ensemble.predictions", "pretraining.run", "probing.baselines"]
    assert stages == [*wanted, "probing.run", "probing.run"]  # and none of the other data seed
    assert table.date.is_monotonic_increasing


def test_an_empty_store_lists_no_cards(pipelines, cache):
    assert len(records.stored_cards(pipelines[1].settings, pipelines[1].clips)) == 0


def test_a_run_card_tells_what_was_run(pipelines):
    pipeline = pipelines[1]
    card = records.run_card(pipeline.settings, pipeline.run)
    assert card["steps, batch, clips seen"] == "20, 16, 320"
    assert card["profile, recipe"] == "tiny, vjepa"
    assert pipeline.clips.digest in card["code, data"]
    assert store.card(pipeline.run)["code"] in card["code, data"]


def test_missing_cards_name_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no cards of 'primary' in {tmp_path}; run `make experiments`"):
        records.committed_cards("primary", tmp_path)


def test_the_primary_measure_is_a_difference_per_seed(tmp_path):
    for seed, (trained, random) in enumerate([(40, 20), (45, 18)]):
        scores = [
            {"classes": classes, "probe": probe, "features": features, "right": right + extra, "n": 80}
            for features, right in (("pre-trained", trained), ("random weights", random))
            for classes, probe, extra in (
                (10, "linear", 0),
                (4, "linear", 7),
                (10, "attentive", 3 * (features[0] == "p")),
            )
        ]
        (tmp_path / f"primary-x-{seed}.json").write_text(json.dumps({"seed": seed, "scores": scores}))
    table = records.primary_measure(records.committed_cards("primary", tmp_path))
    assert table.index.tolist() == [0, 1]
    assert table["pre-trained"].tolist() == [50, 56.25]
    assert table.difference.tolist() == [25, 33.75]
    attentive = records.primary_measure(records.committed_cards("primary", tmp_path), probe="attentive")
    assert attentive.difference.tolist() == [28.75, 37.5]


def test_another_data_seed_changes_every_table(pipelines):
    one, two = pipelines[1], pipelines[2]
    assert (
        records.run_card(one.settings, one.run)["code, data"] != records.run_card(two.settings, two.run)["code, data"]
    )
    from_csv = [store.card(p.run)["inputs"]["data"] for p in (one, two)]
    assert from_csv == [one.clips.digest, two.clips.digest]
    assert replace(one.settings, data=two.settings.data) == two.settings


def test_a_benchmark_record_is_read_and_a_missing_one_names_the_command(tmp_path):
    (tmp_path / "desk.json").write_text('{"date": "2026-11-21", "cost": []}')
    assert records.benchmark("desk", tmp_path) == {"date": "2026-11-21", "cost": []}
    with pytest.raises(FileNotFoundError, match=r"cpu\.json; run `make bench`"):
        records.benchmark(folder=tmp_path)


def test_a_benchmark_says_where_and_when():
    machine = {"processor": "a chip", "cores": 2, "threads": 4, "accelerator": "none"}
    record = {"hardware": machine, "versions": {"torch": "2.13.0"}, "date": "2026-11-21T10:00:00+00:00"}
    text = records.measured_on(record)
    assert text == "a chip, 2 cores, 4 threads, accelerator: none, PyTorch 2.13.0, 2026-11-21"
