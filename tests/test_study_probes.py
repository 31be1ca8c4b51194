"""Further questions to encoders: what is asked, of which videos, and that the page tests what was planned."""

import json
from dataclasses import replace
from functools import partial

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file

from evidence import baselines, study_probes
from evidence.study_probes import (
    PLANNED,
    STUDIES,
    TRAINED,
    linear_probe,
    mlp,
    one_frame,
    probe_of_clips,
    reordered,
    several,
    subset,
)
from evidence.supervision import supervised
from picojepa.architecture import new_encoder
from picojepa.clips import Clips
from picojepa.store import DATA
from standin import CLASSES


@pytest.fixture
def asked(tiny, tmp_path, cache, monkeypatch):
    """Settings and clips of 60 training and 20 validation videos, encoders that are there, and no files to read."""
    count, random = 80, np.random.default_rng(0)
    videos = pd.DataFrame(
        {"label": [CLASSES[i % 10] for i in range(count)], "split": ["pretrain"] * 60 + ["validation"] * 20}
    )
    labelled = videos.label.isin(CLASSES[::3])
    videos = videos.assign(path=[f"/videos/{i}.mp4" for i in range(count)], labelled=labelled)
    videos = videos.assign(scene=random.permutation(videos.label))
    pixels = random.integers(0, 256, (count, 2, 8, 3, 32, 32), dtype=np.uint8)
    clips = Clips(videos, pixels[:60], pixels[:, 0], videos.iloc[:0].assign(reason=""), "noise")

    def run_of(name, base, clips, seed):
        assert name in TRAINED.values()
        folder = tmp_path / f"{name}-{seed}"
        folder.mkdir(exist_ok=True)
        save_file(
            new_encoder(base.model, base.grid, 100 + len(name) + seed).state_dict(), folder / "encoder.safetensors"
        )
        return base, folder

    monkeypatch.setattr(study_probes, "run_of", run_of)
    monkeypatch.setattr(study_probes, "SHARES", {0.05: 1, 0.1: 2, 1.0: 1})
    monkeypatch.setattr(baselines, "frame_differences", lambda clips: clips.mean((1, 2, 3)))  # 256 take a minute
    monkeypatch.setattr(study_probes, "read_clips", lambda path, clip, at: torch.from_numpy(pixels[:2, 1]))
    return replace(tiny, probe=replace(tiny.probe, supervised_epochs=4)), clips


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_answers_for_every_video(name, asked):
    settings, clips = asked
    card = json.loads(json.dumps(STUDIES[name].make(settings, clips, 0)))
    rows = [tuple((k, v) for k, v in score.items() if k not in ("right", "by_video")) for score in card["scores"]]
    assert len(set(rows)) == len(rows), "every answer has a name of its own"
    for score in card["scores"]:
        digits = [int(digit) for digit in score["by_video"]]
        assert len(digits) == score["n"] <= 20
        assert sum(digits) == np.sum(score["right"])


def test_the_numbers_of_the_ledger_are_leads_in_points(asked):
    settings, clips = asked
    card = study_probes.labels(settings, clips, 0)
    right = pd.DataFrame(card["scores"]).set_index(["share", "features"]).right.map(np.mean).unstack() / 20 * 100
    ahead = right["pre-trained"] - right["pixel prediction"]
    assert card["claims"]["V7"] == pytest.approx(ahead[[0.05, 0.1]].mean() - ahead[1.0])
    card = study_probes.appearance(settings, clips, 0)
    right = pd.DataFrame(card["scores"]).set_index(["task", "features"]).right.unstack() / 20 * 100
    ahead = right["pre-trained"] - right["still frames"]
    wanted = {"V8 actions": ahead.actions, "V8 scenes": ahead.scenes, "V8 scenes, granted": ahead.scenes + 5}
    assert card["claims"] == pytest.approx(wanted)


def test_fine_tuning_differs_from_scratch_in_its_start_alone(asked):
    settings, clips = asked
    scores = pd.DataFrame(study_probes.finetuned(settings, clips, 0)["scores"])
    trained = scores[scores.encoder == "trained"].set_index(["share", "start"])
    videos = trained.videos
    assert (trained.clips[1.0] == 2 * videos[1.0]).all(), "half of the four epochs of the baseline"
    assert (trained.clips[0.1] == 5 * videos[0.1]).all(), "a quarter more than all of them"
    task = study_probes.make_task(clips, CLASSES)
    config = replace(settings.probe, supervised_epochs=2, seed=0)
    scratch = supervised(replace(settings, probe=config), clips, task)
    wanted = study_probes.answers(scratch, task.test_labels)["by_video"]
    assert trained.by_video[1.0, "random weights"] == wanted, "from scratch is the book's own supervised baseline"


def test_few_labels_are_a_share_of_every_class():
    labels = np.repeat(np.arange(3), (100, 40, 10))
    assert np.bincount(labels[subset(labels, 0.1, 0, 0)]).tolist() == [10, 4, 1]
    assert np.bincount(labels[subset(labels, 0.01, 0, 0)]).tolist() == [1, 1, 1]
    assert np.array_equal(subset(labels, 1.0, 0, 0), np.arange(150))
    first = subset(labels, 0.1, 0, 0)
    assert np.array_equal(first, subset(labels, 0.1, 0, 0))
    assert not np.array_equal(first, subset(labels, 0.1, 0, 1))
    assert not np.array_equal(first, subset(labels, 0.1, 1, 0))


def test_frames_change_their_order_and_nothing_else():
    clips = np.arange(5 * 8).reshape(5, 8, 1, 1, 1) * np.ones((1, 1, 3, 2, 2), dtype=int)
    shuffled, pairs = reordered(clips), reordered(clips, 2)
    for changed in (shuffled, pairs):
        assert not np.array_equal(changed, clips)
        assert np.array_equal(np.sort(changed, axis=1), clips)
    first, second = pairs[:, ::2], pairs[:, 1::2]
    assert (second - first == 1).all()
    assert (first % 2 == 0).all(), "a pair is what one token holds"
    assert (one_frame(clips) == clips[:, 4:5]).all()


def test_frame_differences_know_where_something_moves():
    clips = np.zeros((2, 8, 3, 32, 32), dtype=np.uint8)
    clips[1, ::2, :, :2, :2] = 200  # blinks in the corner
    found = baselines.frame_differences(clips).reshape(2, 16, 16)
    assert (found[0] == 0).all()
    assert found[1, 0, 0] == 200
    assert found[1].sum() == 200


def test_several_clips_of_a_video_keep_their_places():
    generator = torch.Generator().manual_seed(0)
    train, labels = torch.randn(40, 5, generator=generator), torch.arange(40) % 2
    test = torch.randn(3, 7, 5, generator=generator)
    each = [linear_probe(train.numpy(), labels.numpy(), clip.numpy()) for clip in test]
    found = several(partial(linear_probe, train.numpy(), labels.numpy()), test)
    np.testing.assert_allclose(found, each, atol=1e-6)


def test_clips_of_one_video_are_in_one_fold(monkeypatch):
    """Ten videos of a class with four clips: three folds by clip would cut some videos."""
    kept, wanted = {}, study_probes.LogisticRegressionCV

    def spy(**how):
        kept.update(how)
        return wanted(**how)

    monkeypatch.setattr(study_probes, "LogisticRegressionCV", spy)
    train, labels = torch.randn(20, 4, 5, generator=torch.Generator().manual_seed(0)), torch.arange(20) // 10
    scores = probe_of_clips(train, labels, train[:, 0].numpy())
    assert scores.shape == (20, 2)
    video = np.arange(80) // 4
    assert len(kept["cv"]) == 3
    for learned, held in kept["cv"]:
        assert not set(video[learned]) & set(video[held])
        assert np.bincount(labels.numpy()[video[held]]).min() >= 12, "every class is in every fold"


def test_a_hidden_layer_finds_what_no_line_can(tiny):
    points = torch.randn(400, 12, generator=torch.Generator().manual_seed(0))
    labels = (points[:, 0] * points[:, 1] > 0).long()  # exclusive or
    probe = study_probes.trained_head(mlp, 1e-2, 60, tiny)
    right = (probe(points, labels, points).argmax(1) == labels.numpy()).mean()
    line = (linear_probe(points.numpy(), labels.numpy(), points.numpy()).argmax(1) == labels.numpy()).mean()
    assert right > 0.9 > 0.7 > line


def test_scenes_take_the_place_of_actions(asked):
    _, clips = asked
    task = study_probes.scene_task(clips)
    assert [CLASSES[i] for i in task.test_labels] == clips.videos.scene.iloc[task.test].tolist()
    assert [CLASSES[i] for i in task.train_labels] == clips.videos.scene.iloc[task.train].tolist()


def test_the_page_tests_what_was_planned():
    page = nbformat.read(ROOT / "book" / "probes.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown").lower()
    for name, test in PLANNED.items():
        assert f"- **{name.lower()}.** {test.lower()}" in text


def test_committed_cards_are_of_one_set_of_videos():
    cards = [json.loads(p.read_text()) for name in STUDIES for p in (DATA / "studies").glob(f"{name}-first-*.json")]
    experiment = json.loads((DATA / "cards" / "primary-first-0.json").read_text())
    for card in cards:
        assert card["data"] == experiment["inputs"]["data"]
        for score in card["scores"]:
            assert sum(map(int, score["by_video"])) == np.sum(score["right"])
            assert len(score["by_video"]) == score["n"]
