"""Effects, leads, power and the ledger are computed from cards, and agree with other ways to compute them."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from evidence import factorial, ledger, records, runs, sample_size, trials
from evidence.experiments import EXPERIMENTS
from evidence.studies import all_studies
from picojepa import stats
from picojepa.store import DATA

CLAIMS = pd.read_csv(DATA / "claims.csv", index_col="id", keep_default_na=False)


def write_cards(folder, name, accuracies, width=128, spread=(1.0, 0.9)):
    """A card for each seed with this many of 100 videos right."""
    for seed, right in enumerate(accuracies):
        score = {"classes": 10, "probe": "linear", "n": 100}
        scores = [
            {**score, "features": "pre-trained", "right": right},
            {**score, "features": "random weights", "right": 20},
        ]
        model = {"width": width, "dropout": 0.0}
        card = {"experiment": name, "seed": seed, "scores": scores, "settings": {"model": model}}
        card["course"] = {"spread": spread}
        (folder / f"{name}-first-{seed}.json").write_text(json.dumps(card))


def write_study(folder, name, seed, **content):
    (folder / f"{name}-first-{seed}.json").write_text(json.dumps({"seed": seed, **content}))


CARD = {
    "labels": {"large": "00112233", "validation": "01"},
    "members": {"pair": ["a", "b"]},
    "sheets": {
        "a": {"large": "00110000", "validation": "01"},  # 4 of 8
        "b": {"large": "33112200", "validation": "00"},  # 4 of 8
        "vote": {"large": "00112200", "validation": "01"},  # 6 of 8
    },
}


# ---------------------------------------------------------------- effects


def test_the_effect_of_one_experiment_is_a_paired_t_test(tmp_path):
    ours, changed = [40, 50, 60, 70, 41], [30, 45, 52, 66, 40]
    write_cards(tmp_path, "primary", ours)
    write_cards(tmp_path, "F1", changed)
    row = runs.effects(runs.accuracies(tmp_path)).loc["F1"]
    wanted = scipy.stats.ttest_rel(ours, changed)
    interval = wanted.confidence_interval()
    assert row["mean"] == pytest.approx(np.mean(np.subtract(ours, changed)))
    assert (row.low, row.high, row.p) == pytest.approx((interval.low, interval.high, wanted.pvalue))


def test_noise_is_learned_from_all_experiments(tmp_path):
    write_cards(tmp_path, "primary", [40, 50, 60])
    write_cards(tmp_path, "F1", [30])
    with np.errstate(all="ignore"):
        alone = runs.effects(runs.accuracies(tmp_path))
    assert not np.isfinite(alone.loc["F1", "high"]) or alone.loc["F1", "high"] > 1e3
    write_cards(tmp_path, "F2", [41, 49, 61])
    together = runs.effects(runs.accuracies(tmp_path))
    assert together.loc["F1", "seeds"] == 1
    assert 0 < together.loc["F1", "low"] < 10 < together.loc["F1", "high"] < 20
    assert together.loc["F2", "high"] - together.loc["F2", "low"] < 8


def test_collapsed_runs_do_not_shrink_the_noise_of_others(tmp_path):
    write_cards(tmp_path, "primary", [40, 50, 60])
    write_cards(tmp_path, "F1", [30, 45, 49])
    noise = scipy.stats.sem([10, 5, 11]) * np.sqrt(3 / 2)
    alone = runs.effects(runs.accuracies(tmp_path)).loc["F1"]
    write_cards(tmp_path, "V2-no-stop", [10, 10, 10], spread=(1.0, 0.5, 0.01))
    both = runs.effects(runs.accuracies(tmp_path))
    assert tuple(both.loc["F1"]) == pytest.approx(tuple(alone))
    assert both.loc["V2-no-stop", "mean"] == pytest.approx(40)
    wanted = scipy.stats.t.interval(0.95, 2, loc=40, scale=noise * np.sqrt(2 / 3))
    assert tuple(both.loc["V2-no-stop", ["low", "high"]]) == pytest.approx(wanted)


def test_experiments_of_another_geometry_are_not_compared(tmp_path):
    write_cards(tmp_path, "primary", [40, 50])
    write_cards(tmp_path, "8x8", [45, 55], width=64)
    write_cards(tmp_path, "8x8-causal", [44, 50], width=64)
    assert list(runs.accuracies(tmp_path)) == ["primary"]
    assert list(runs.accuracies(tmp_path, control="8x8")) == ["8x8", "8x8-causal"]


@pytest.mark.parametrize("name", ["8x8", "8x8-first"])
def test_cards_of_an_experiment_are_not_those_of_another_whose_name_begins_alike(name, tmp_path):
    write_cards(tmp_path, "8x8-causal", [44, 50])
    with pytest.raises(FileNotFoundError, match="make experiments"):
        records.committed_cards(name, tmp_path)
    write_cards(tmp_path, "8x8", [45])
    assert [card["experiment"] for card in records.committed_cards("8x8-first", tmp_path)] == ["8x8"]


# ---------------------------------------------------------------- leads and power


def test_a_lead_is_counted_on_the_same_videos():
    assert ledger.right_answers(CARD, "a").tolist() == [True] * 4 + [False] * 4
    assert ledger.lead(CARD, "vote", "a") == pytest.approx(25)
    assert ledger.lead(CARD, "a", "vote") == pytest.approx(-25)
    assert ledger.lead(CARD, "a", "b", on="validation") == pytest.approx(50)
    assert ledger.lead(CARD, "vote", "mean of pair") == pytest.approx(25)
    better = CARD | {"sheets": CARD["sheets"] | {"b": {"large": "00112233", "validation": "01"}}}
    assert ledger.lead(better, "vote", "each of pair") == pytest.approx(-25), "the best member counts"


@pytest.mark.parametrize(("n", "lead", "disagree"), [(8, 0.3, 0.6), (9, 0.0, 0.5), (7, 0.4, 0.4)])
def test_power_is_what_counting_every_outcome_gives(n, lead, disagree):
    chances = {1: (disagree + lead) / 2, -1: (disagree - lead) / 2, 0: 1 - disagree}
    wanted = 0.0
    for outcome in product((1, -1, 0), repeat=n):
        signs = np.array(outcome)
        if stats.mcnemar(signs == 1, signs == -1)[2] < stats.LEVEL:
            wanted += float(np.prod([chances[sign] for sign in outcome]))
    assert sample_size.power(n, lead, disagree) == pytest.approx(wanted, abs=1e-12)


def test_enough_videos_are_enough_and_fewer_are_not():
    needed = sample_size.videos_needed(0.05, 0.2)
    assert sample_size.power(needed, 0.05, 0.2) >= 0.8 > sample_size.power(int(0.93 * needed), 0.05, 0.2)
    assert needed < sample_size.videos_needed(0.02, 0.2)
    with pytest.raises(ValueError, match="more than 1024"):
        sample_size.videos_needed(0.001, 0.2, most=1024)


def test_holm_multiplies_the_smallest_by_the_size_of_the_family():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([]) == []


# ---------------------------------------------------------------- the ledger


def live():
    """A row for each claim that chapter 8 tests itself."""
    row = ledger.claim("", "", "a difference", (1.0, 0.5, 1.5), "9 videos")
    return dict.fromkeys(CLAIMS.index[CLAIMS.evidence == "live"], row)


def test_the_ledger_says_what_the_cards_say_and_what_was_not_run(tmp_path):
    write_cards(tmp_path, "primary", [40, 50, 60])
    write_cards(tmp_path, "F4", [20, 31, 39])
    write_cards(tmp_path, "F2", [60, 69, 81])
    write_cards(tmp_path, "V6", [40, 50, 61])
    write_cards(tmp_path, "V11-fast", [60, 71, 79])
    write_cards(tmp_path, "F5", [10])
    studies = tmp_path / "studies"
    studies.mkdir()
    for seed in range(3):
        write_study(studies, "labels", seed, claims={"V7": 5.0 + seed / 10})
    table = ledger.ledger(live(), tmp_path, studies)
    assert table.index.is_unique
    words = table.verdict.to_dict()
    assert (words["F4"], words["F2"], words["V6"]) == ("supported", "not supported", "cannot be told here")
    assert words["V11b"] == "supported", "the claim is about the changed run"
    assert words["V7"] == "supported"
    assert words["F5"] == "cannot be told here", "one run gives no verdict, however far it is"
    assert pd.isna(table.p["F5"])
    assert words["F3"] == words["P7"] == words["V9a"] == "not run"
    assert words["P5"] == "supported", "a count keeps the verdict it came with"
    family = table[table.index.str.startswith("F") & table.p.notna() & (CLAIMS.evidence != "live")]
    wanted = multipletests(list(family.p), method="holm")[1]
    assert list(family["p (Holm)"]) == pytest.approx(list(wanted))


def test_a_closed_gate_was_not_run_and_says_why(tmp_path):
    write_cards(tmp_path, "8x8", [40, 41, 42])
    row = ledger.from_cards("gate 8x8 | other masks", tmp_path, tmp_path)
    assert row["verdict"] == "not run"
    assert row["p"] is None
    assert row["points (95 %)"] == "", "the points are of another claim"
    assert row["tested here as"].count(ledger.in_words(stats.seed_interval(np.array([20.0, 21.0, 22.0])))) == 1


@pytest.mark.parametrize(("low", "p", "word"), [(0.5, 0.04, 1), (0.5, 0.06, 0), (-0.5, 0.04, 0), (0.5, None, 1)])
def test_a_word_needs_the_interval_and_the_p_value(low, p, word):
    row = ledger.claim("", "", "a difference", (1.0, low, 1.5), "9 videos")
    assert ledger.held_back(row, p)["verdict"] == ["cannot be told here", "supported"][word]
    assert ledger.held_back(row, p)["p"] == p


@pytest.mark.parametrize(
    ("gain", "word"),
    [((9.1, -2.0, 3.1), "supported"), ((3.0, -2.0, 3.1), "cannot be told here"), ((-2.5, -2.0, 3.1), "not supported")],
)
def test_what_lies_outside_of_what_chance_leaves_has_a_word(gain, word):
    row = ledger.claim_over_chance("patches lie together", "Figure 3", "purity - chance", gain, "20 videos")
    assert row["verdict"] == word
    assert row["points (95 %)"] == f"{gain[0]:+.1f} (by chance -2.0 to +3.1)", "no interval is claimed"
    assert set(row) == set(ledger.claim("", "", "", gain, ""))


def test_what_has_nothing_to_measure_says_why(tmp_path):
    for kind, word in {"text": "not run", "fact": "not asked"}.items():
        row = ledger.from_cards(f"{kind} four classes here", tmp_path, tmp_path)
        assert (row["tested here as"], row["verdict"], row["p"]) == ("four classes here", word, None)


def test_an_interval_and_a_test_that_differ_are_no_verdict_without_correction_either(tmp_path):
    row = ledger.claim("", "", "a difference", (-5.7, -11.3, -0.5), "194 videos")
    table = ledger.ledger(live() | {"P1": {**row, "p": 0.06}, "P6": {**row, "p": 0.04}}, tmp_path, tmp_path)
    assert table.alone[["P1", "P6"]].tolist() == ["cannot be told here", "not supported"]
    assert table.verdict["P6"] == "cannot be told here", "two claims in the family: p is doubled"


def test_a_p_value_that_does_not_survive_its_family_is_no_verdict(tmp_path):
    rows = live()
    number = next(n for n in rows if n.startswith("P"))
    alone = {**rows, number: {**rows[number], "p": 0.03}}
    assert ledger.ledger(alone, tmp_path, tmp_path).verdict[number] == "supported"
    others = {n: {**row, "p": 0.9} for n, row in rows.items() if n.startswith("P")}
    family = ledger.ledger({**rows, **others, number: {**rows[number], "p": 0.03}}, tmp_path, tmp_path)
    assert family.verdict[number] == "cannot be told here"


def test_a_claim_that_was_forgotten_or_invented_is_refused(tmp_path):
    rows = live()
    rows.pop("P1")
    with pytest.raises(ValueError, match="P1"):
        ledger.ledger(rows, tmp_path, tmp_path)
    with pytest.raises(ValueError, match="P99"):
        ledger.ledger(live() | {"P99": rows["P6"]}, tmp_path, tmp_path)


def test_unknown_evidence_is_refused(tmp_path):
    write_study(tmp_path, "labels", 0, claims={})
    with pytest.raises(ValueError, match="guess"):
        ledger.from_cards("guess labels | a | b", tmp_path, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"claims\.V7"):
        ledger.from_cards("study labels | claims.V7 | test", tmp_path, tmp_path)


def test_every_experiment_and_study_named_exists_and_every_claim_is_listed():
    kinds = CLAIMS.evidence.str.split().str[0]
    named = CLAIMS.evidence[kinds.isin(["experiment", "reversed"])].str.split().str[1]
    assert set(named) <= set(EXPERIMENTS)
    assert set(CLAIMS.evidence[kinds.isin(["lead", "study"])].str.split().str[1]) <= set(all_studies())
    families = {number.rstrip("abcdLM") for number in CLAIMS.index}
    wanted = {f"P{n}" for n in range(1, 10)} | {f"F{n}" for n in range(1, 15)} | {f"V{n}" for n in range(1, 12)}
    assert families == (wanted | {"W1", "W2", "W3", "B1", "B2", "B3", "B4"}) - {"V10"}, "V10 needs a finer grid"


def test_a_claim_of_the_factorial_has_its_effect_and_sign():
    """Of the committed runs, by hand: a mean of one half of them less that of the other."""
    cards = factorial.finished()
    halves = {
        way: [trials.score(card).mean() for card in cards if card["levels"]["target encoder"] == way] for way in (-1, 1)
    }
    lead = 100 * (np.mean(halves[-1]) - np.mean(halves[1]))
    row = ledger.from_cards("factorial target encoder | -1")
    assert row["points (95 %)"].startswith(f"{lead:+.1f} (")
    assert row["over"].startswith(f"{len(cards)} runs x 4 000 videos")
    other = ledger.from_cards("factorial target encoder | 1")
    assert other["p"] == row["p"]
    assert (row["verdict"], other["verdict"]) == ("supported", "not supported")


def test_committed_studies_of_committees_are_whole():
    for path in sorted(records.STUDIES.glob("committees-first-*.json")):
        card = json.loads(path.read_text(encoding="utf-8"))
        assert len(card["labels"]["large"]) == 4 * 1000
        assert {len(sheet["large"]) for sheet in card["sheets"].values()} == {4000}
        for group, members in card["members"].items():
            votes = np.array([list(card["sheets"][name]["large"]) for name in members])
            clear = (votes == votes[0]).all(0)
            hard = np.array(list(card["sheets"][f"{group}: hard"]["large"]))
            assert (hard[clear] == votes[0][clear]).all(), "where all agree, the vote says the same"
