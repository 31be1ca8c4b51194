"""How encoders are judged: what is asked, with how many labels, and what the limits of the stand-in say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from evidence import baselines, control, gates, pilot, readouts
from picojepa import data
from picojepa.architecture import new_encoder
from picojepa.clips import normalise
from picojepa.jepa import JEPA
from standin import CLASSES, COUNTER


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Settings and clips of the gates in miniature: 80 training, 40 validation and 20 further videos."""
    folder = tmp_path_factory.mktemp("second")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PICOJEPA_CACHE", str(folder))
        base = gates.gate_settings()
        made = replace(base.data, scale=0.001, validation_each=4, counter_each=2, seconds=(1.1, 1.3))
        settings = replace(
            base,
            data=made,
            clip=replace(base.clip, size=32, clips_per_video=1),
            model=replace(base.model, width=24, depth=1, heads=2, predictor_width=18, predictor_heads=2),
            probe=replace(base.probe, attentive_epochs=1, supervised_epochs=1),
        )
        yield settings, data.load_clips(settings)


def test_questions_are_asked_of_the_right_videos(small):
    _, clips = small
    for question, column in gates.COLUMNS.items():
        task, counter = gates.ask(clips, question), gates.ask(clips, question, COUNTER)
        for rows, labels in ((task.train, task.train_labels), (task.test, task.test_labels)):
            assert clips.videos[column].iloc[rows].tolist() == [task.classes[i] for i in labels]
        assert set(clips.videos.split.iloc[counter.test]) == {COUNTER}
        assert (len(task.train), len(task.test), len(counter.test)) == tuple(
            count * len(CLASSES) for count in (8, 4, 2)
        )
    assert gates.ask(clips, "travel").classes == ("left", "right")


def test_still_clips_hold_one_frame(small):
    _, clips = small
    still = gates.stills(clips)
    assert still.digest != clips.digest
    for made, of in ((still.training, clips.training), (still.centre, clips.centre)):
        assert made.shape == of.shape
    np.testing.assert_array_equal(still.centre[:, 0], clips.centre[:, 4])
    assert not np.diff(still.centre.astype(int), axis=1).any()


def test_a_limit_is_held_or_not():
    line = gates.row("action", "frame differences", [1] * 39 + [0] * 61)
    assert (line["held"], line["accuracy"], line["limits"]) == (True, 39.0, (0, 40))
    assert not gates.row("action", "frame differences", [1] * 41 + [0] * 59)["held"]
    assert not gates.row("action", "supervised", [1] * 79 + [0] * 21)["held"]
    assert "held" not in gates.row("action", "frame differences", [1], COUNTER), "limits are for the validation list"


def test_the_report_names_every_limit(small):
    rows = gates.report(*small, few := {"action": 64, "travel": 64})
    said = {(row["question"], row["features"]) for row in rows if "held" in row}
    assert said == {*gates.LIMITS}
    assert gates.report(*small, few) == rows, "found again"


def test_a_tenth_of_the_labels_is_the_same_for_everyone_and_of_every_class(small):
    task = gates.ask(small[1], "action")
    chosen = readouts.labelled_share(task, 0.5)
    counts = np.bincount(task.train_labels[chosen])
    assert counts.tolist() == [4] * len(task.classes)
    assert readouts.labelled_share(task, 1.0).tolist() == list(range(len(task.train)))
    np.testing.assert_array_equal(chosen, readouts.labelled_share(task, 0.5))


def test_spread_over_time_sees_change_and_not_place():
    tokens = torch.zeros(2, 4 * 9, 3)
    tokens[0, :, 1] = torch.arange(4.0).repeat_interleave(9)  # changes from slice to slice
    tokens[1, :, 1] = torch.arange(9.0).repeat(4)  # differs from place to place
    found = readouts.mean_and_spread(tokens, 4)
    assert found.shape == (2, 6)
    assert found[0, 3:].tolist() == pytest.approx([0, torch.arange(4.0).std().item(), 0])
    assert found[1, 3:].tolist() == [0, 0, 0]


def test_readouts_are_found_again(small, monkeypatch):
    settings, clips = small
    tasks = {question: gates.ask(clips, question) for question in ("action", "travel")}
    encoder = new_encoder(settings.model, settings.grid, 0)
    found = readouts.readouts(encoder, "random weights 0", settings, clips, tasks)
    assert {*found} == {*tasks}
    for of in found.values():
        assert {*of} == {*readouts.READOUTS}
        assert all(0 <= percent <= 100 for shares in of.values() for percent in shares.values())
    monkeypatch.setattr(readouts, "read", None)  # whoever reads again fails
    assert readouts.readouts(encoder, "random weights 0", settings, clips, tasks) == found


def test_every_try_differs_from_the_others():
    base = pilot.pilot_settings()
    made = {name: change(base) for name, change in pilot.TRIES.items() if not name.endswith("random weights")}
    assert len({(repr(settings), name.endswith(pilot.ALONE)) for name, settings in made.items()}) == len(made)
    assert all(settings.training.clips == pilot.CLIPS for settings in made.values())


def test_what_spreads_alone_learns_nothing_from_its_prediction(small):
    settings, clips = small
    asked = pilot.trained(settings, spreading="variance-covariance", spreading_weight=0.1)
    batch, masks = normalise(torch.from_numpy(np.array(clips.training[:4, 0]))), torch.Generator().manual_seed(0)
    mask = pilot.SpreadingAlone(asked, 0).draw_masks(4, masks)
    for kind, learns in ((JEPA, True), (pilot.SpreadingAlone, False)):
        model = kind(asked, 0)
        loss, _ = model(batch, mask)
        loss.backward()
        term = model.spreading(model.encoder(batch, mask[0].context))
        assert (loss > 1.001 * term) == learns
        assert torch.isclose(loss, term) != learns
        assert any(parameter.grad is not None for parameter in model.predictor.parameters()) == learns
        assert model.encoder.embed.weight.grad.abs().max() > 0


def test_the_table_of_tries_is_whole():
    table = pd.read_csv(pilot.PILOT)
    assert not table.duplicated(["try", "seed", "clips"]).any()
    columns = [f"{q}, {r}, {s:g}" for q in pilot.QUESTIONS for r in readouts.READOUTS for s in readouts.SHARES]
    assert table[columns].notna().all(axis=None)
    assert "random weights" in set(table["try"])


def test_the_control_reports_every_lead_and_condition(small):
    """In miniature: the numbers of the report are those of its parts."""
    settings, clips = small
    settings = pilot.trained(settings, spreading="variance-covariance", spreading_weight=0.01, learning_rate=0.03)
    short = replace(settings.training, clips=64, batch=16, log_every=1, watch_every=2, checkpoint_every=10)

    def made(seed: int):
        return replace(settings, training=replace(short, seed=seed))

    report = control.control(made, clips, (100, 101))
    assert report["seeds"] == 2
    assert [(row["readout"], row["labels"]) for row in report["readouts"]] == [
        (readout, share) for share in readouts.SHARES for readout in (*readouts.READOUTS, control.MEAN)
    ]
    found = [control.of_seed(made(seed), clips) for seed in (100, 101)]
    row = report["readouts"][0]
    for kind in ("pretrained", "random"):
        mean = np.mean([of[kind]["action"]["linear, mean"]["1.0"] for of in found])
        assert row[kind] == pytest.approx(mean, abs=0.01)
    assert row["lead"] == pytest.approx(row["pretrained"] - row["random"], abs=0.02)
    assert row["lead_low"] <= row["lead"] <= row["lead_high"]
    assert row["by_seed"]["pretrained"] == [of["pretrained"]["action"]["linear, mean"]["1.0"] for of in found]
    assert control.mean_lead(report["readouts"], 1.0) == pytest.approx(
        np.mean([row["lead"] for row in report["readouts"][:4]]), abs=0.02
    )
    assert found[0]["spread"] != found[0]["pretrained"], "the twin is another encoder"
    twin = report["twins"][0]
    assert twin["pretrained"] == row["pretrained"]
    assert twin["spread"] == pytest.approx(np.mean([of["spread"]["action"]["linear, mean"]["1.0"] for of in found]))
    assert row["baseline"] == max(control.baseline(settings, clips, name, 1.0, False) for name in baselines.BASELINES)
    assert {*report["conditions"]} == {*control.CONDITIONS}
    assert len(report["courses"][0]["rank"]) == len(report["courses"][0]["step"])
    assert control.control(made, clips, (100, 101)) == report, "found again"


def test_conditions_can_fail_and_hold():
    row = {"lead": 20.0, "lead_low": 5.0, "pretrained": 60.0, "random": 40.0, "baseline": 40.0}
    rows = [{"readout": r, "labels": s, **row} for r in (*readouts.READOUTS, control.MEAN) for s in readouts.SHARES]
    report = {
        "readouts": rows,
        "twins": rows,
        "questions": {"travel": rows},
        "fine_tuning": {"lead": 6.0},
        "courses": [{"rank": [4, 9, 8]}],
    }
    assert all(holds(report) for holds in control.CONDITIONS.values())
    worse = {
        "every lead": {"readouts": [{**rows[0], "lead_low": -0.1}, *rows[1:]]},
        "mean lead with all": {"readouts": [{**r, "lead": 14.0} for r in rows]},
        "mean lead with a tenth": {"readouts": [{**r, "lead": 9.0} for r in rows]},
        "what predicts": {"twins": [{**r, "lead": -0.1 if r["labels"] < 1 else 9.0} for r in rows]},
        "above every baseline": {"readouts": [{**rows[0], "baseline": 61.0}, *rows[1:]]},
        "fine-tuning": {"fine_tuning": {"lead": 4.9}},
        "the motion": {"questions": {"travel": [{**rows[0], "random": 61.0}, *rows[1:]]}},
        "no seed": {"courses": [{"rank": [4, 9, 4]}]},
    }
    for start, change in worse.items():
        name = next(name for name in control.CONDITIONS if name.startswith(start))
        assert not control.CONDITIONS[name](report | change), name


def test_a_line_of_the_pilot_replaces_its_older_one(tmp_path, cache, monkeypatch):
    cache.mkdir()
    monkeypatch.setattr(pilot, "PILOT", tmp_path / "pilot.csv")
    for seed, clips, accuracy in ((0, 10, 1.0), (1, 10, 2.0), (0, 10, 3.0), (0, 20, 4.0)):
        pilot.add({"try": "a", "seed": seed, "clips": clips, "accuracy": accuracy})
    assert pd.read_csv(pilot.PILOT).accuracy.tolist() == [3.0, 2.0, 4.0]
