"""Cards of runs, stored results and benchmarks are read; a missing one names the command; words of verdicts."""

import json
from dataclasses import replace

import pytest

from evidence import ledger, records
from picojepa import store


def test_cards_of_this_data_are_listed(pipelines, monkeypatch):
    pipeline = pipelines[1]
    monkeypatch.setenv("PICOJEPA_CACHE", str(pipeline.cache))
    table = records.stored_cards(pipeline.settings, pipeline.clips)
    stages = sorted(table.stage)
    wanted = ["data.clips", "ensemble.heads", "ensemble.predictions", "pretraining.run", "probing.baselines"]
    assert stages == [*wanted, *["probing.encoder"] * 4]  # two tasks, trained and random; none of the other data seed
    assert (table.version >= 1).all()
    assert table.date.is_monotonic_increasing


def test_an_empty_store_lists_no_cards(pipelines, cache):
    assert len(records.stored_cards(pipelines[1].settings, pipelines[1].clips)) == 0


def test_a_run_card_tells_what_was_run(pipelines):
    pipeline = pipelines[1]
    card = records.run_card(pipeline.settings, pipeline.run)
    assert card["steps, batch, clips seen"] == "20, 16, 320"
    assert card["profile, recipe"] == "tiny, vjepa"
    assert card["version, data"] == f"pretraining.run 1, {pipeline.clips.digest}"
    assert card["weights"].startswith("trained on ")


def test_where_weights_come_from_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "BUNDLED", tmp_path)
    assert "comes with the book" in records.origin(tmp_path / "run")
    assert "trained on the machine" in records.origin(tmp_path.parent / "run")


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
    table = records.primary_measure(records.committed_cards("primary-x", tmp_path))
    assert table.index.tolist() == [0, 1]
    assert table["pre-trained"].tolist() == [50, 56.25]
    assert table.difference.tolist() == [25, 33.75]
    attentive = records.primary_measure(records.committed_cards("primary-x", tmp_path), probe="attentive")
    assert attentive.difference.tolist() == [28.75, 37.5]


def test_another_data_seed_changes_every_card(pipelines):
    one, two = pipelines[1], pipelines[2]
    told = [records.run_card(p.settings, p.run)["version, data"] for p in (one, two)]
    assert told[0] != told[1]
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
