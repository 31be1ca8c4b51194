"""The door to the trained model: any video, several at once, a folder, one's own classes."""

import json
import shutil
import sys

import numpy as np
import pytest
from conftest import BUNDLED
from PIL import Image

from picojepa import classify, data, ensemble, store
from picojepa.ensemble import MEMBERS, VOTES
from standin import LABELLED_CLASSES

CLIPS = BUNDLED.parent


@pytest.fixture
def asked(monkeypatch, tmp_path, capsys):
    """Function that asks as the shell does: arguments -> (exit status, what was printed)."""
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PICOJEPA_DATA", raising=False)
    monkeypatch.delenv("PICOJEPA_PROFILE", raising=False)

    def ask(*words):
        monkeypatch.setattr(sys, "argv", ["classify", *map(str, words)])
        status = classify.main()
        return status, capsys.readouterr().out

    return ask


def test_the_books_own_model_opens_without_videos_or_training(asked):
    status, said = asked(CLIPS / "abseiling.mp4")
    assert status == 0
    for name in (*MEMBERS, *VOTES, *LABELLED_CLASSES):
        assert name in said
    assert "Right on 194 held-out videos: General 73 % (67 to 79), majority vote 66 %" in said
    assert "chance is 25 %" in said
    assert "only ever seen drawn stick figures" in said
    assert "PICOJEPA_DATA=FOLDER" in said
    assert not list((store.cache_folder()).glob("results/*")), "nothing was trained"


def test_the_picture_holds_the_frames_that_were_looked_at(asked, tmp_path):
    status, said = asked("--json", "--frames", tmp_path / "seen", CLIPS / "abseiling.mp4")
    line = json.loads(said)
    pixels = np.asarray(Image.open(line["frames"]))
    clip = data.read_clips(CLIPS / "abseiling.mp4", classify.bundled().settings.clip, [0.5])[0].numpy()
    assert pixels.shape == (64, 8 * 64, 3)
    np.testing.assert_array_equal(pixels[:, :64], clip[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(pixels[:, -64:], clip[-1].transpose(1, 2, 0))


def test_files_and_folders_in_one_start_and_a_bad_file_costs_itself_only(asked, tmp_path):
    (tmp_path / "some").mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(CLIPS / "abseiling.mp4", tmp_path / "some" / name)
    (tmp_path / "bad.mp4").write_text("no video")
    status, said = asked("--json", tmp_path / "bad.mp4", CLIPS / "applauding.mp4", tmp_path / "some")
    lines = [json.loads(line) for line in said.splitlines()]
    assert status == 1
    assert "not readable as video" in lines[0]["error"]
    assert len(lines) == 4
    first, second = lines[2]["members"], lines[3]["members"]
    assert first == second
    assert first["soft vote"].keys() == {"answer", "certainty", *LABELLED_CLASSES}


def test_the_shipped_heads_are_those_of_the_shipped_encoder():
    known = json.loads((classify.BUNDLED / classify.DOOR).read_text())
    assert (store.BUNDLED / known["run"] / "encoder.safetensors").is_file()
    assert known["n"] == 194
    assert {*known["right"]} == {*MEMBERS, *VOTES}


def test_a_model_of_ones_own_videos(asked, pipelines, monkeypatch):
    """Found again or trained; here it is the tiny one of the tests."""
    pipeline = pipelines[1]
    monkeypatch.setattr(classify.data, "load_clips", lambda settings: pipeline.clips)
    monkeypatch.setattr(classify.pretraining, "run", lambda settings, clips: pipeline.run)
    monkeypatch.setattr(ensemble, "train_members", lambda *_: pipeline.heads)
    monkeypatch.setattr(ensemble, "predictions", lambda *_: pipeline.votes)
    monkeypatch.setattr(classify.data, "source", lambda: CLIPS)
    monkeypatch.setattr(classify.config, "settings", lambda profile=None, recipe=None: pipeline.settings)
    status, said = asked(CLIPS / "abseiling.mp4")
    assert status == 0
    assert f"Trained on {CLIPS}" in said
    right = int((pipeline.votes.query("member == 'General'").eval("predicted == label")).sum())
    n = int((pipeline.votes.member == "General").sum())
    assert f"Right on {n} held-out videos: General {100 * right / n:.0f} %" in said
