"""The stand-in data set: deterministic, counted like the paper's lists, resumable."""

import io
import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from torchcodec.decoders import VideoDecoder

import standin
from picojepa.config import PAPER_PRETRAINING, PROFILES
from picojepa.store import DATA
from standin import CLASSES, LABELLED_CLASSES, StandInConfig

SMALL = StandInConfig(scale=0.001, validation_scale=0.01, seconds=(0.3, 0.5))


def one_of(label: str, config: StandInConfig = SMALL) -> dict:
    """The first row of a class."""
    table = standin.plan(config)
    return table[table["label"] == label].iloc[0].to_dict()


@pytest.fixture(scope="module")
def full() -> pd.DataFrame:
    """The plan at the size of the paper's lists."""
    return standin.plan(StandInConfig(scale=1.0))


def test_counts_are_those_of_the_paper(full):
    pretrain, validation = full[full["split"] == "pretrain"], full[full["split"] == "validation"]
    assert len(pretrain) == 7203
    assert pretrain.groupby("label").size().to_dict() == dict(zip(CLASSES, PAPER_PRETRAINING, strict=True))
    assert pretrain[pretrain["labelled"]].groupby("label").size().to_dict() == dict(
        zip(LABELLED_CLASSES, (957, 589, 610, 661), strict=True)
    )
    assert (len(validation), validation["labelled"].sum()) == (482, 194)


def test_every_profile_has_eight_training_and_four_validation_videos_a_class():
    for settings in PROFILES.values():
        sizes = standin.plan(settings.data).groupby(["split", "label"]).size()
        assert sizes["pretrain"].min() >= 8
        assert sizes["validation"].min() >= 4
        assert len(sizes) == 20


def test_a_smaller_plan_is_a_part_of_the_larger_one(full):
    small = standin.plan(StandInConfig(scale=0.05)).set_index("path").drop(columns="labelled")
    pd.testing.assert_frame_equal(small, full.set_index("path").loc[small.index].drop(columns="labelled"))


def test_rows_are_fit_for_the_codec(full):
    assert full["path"].is_unique
    assert full["seed"].is_unique
    assert (full["width"] % 2 == 0).all()
    assert (full["height"] % 2 == 0).all()
    assert full["frames"].min() >= 24
    assert set(full["fps"]) == set(standin.RATES)


@pytest.mark.parametrize(("correlation", "share"), [(0.0, 0.1), (0.2, 0.28), (1.0, 1.0)])
def test_share_of_own_scenes_follows_the_correlation(correlation, share):
    table = standin.plan(StandInConfig(scale=0.3, scene_correlation=correlation))
    assert (table["scene"] == table["label"]).mean() == pytest.approx(share, abs=0.03)  # 2 600 videos


def test_same_seed_same_frames_and_another_seed_others():
    row = one_of("archery")
    frames = standin.render(row, SMALL)
    assert frames.shape == (row["frames"], row["height"], row["width"], 3)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, standin.render(row, SMALL))
    assert (frames != standin.render({**row, "seed": row["seed"] + 1}, SMALL)).mean() > 0.5
    assert one_of("archery", replace(SMALL, seed=SMALL.seed + 1))["seed"] != row["seed"]


def test_two_actions_of_one_seed_differ_in_the_figure_only():
    frames = [standin.render({**one_of("archery"), "label": label}, SMALL) for label in ("archery", "applauding")]
    equal = (frames[0] == frames[1]).all(axis=-1).mean(axis=(1, 2))  # (T,)
    assert (equal > 0.75).all()
    assert (equal < 1).all()


def test_two_scenes_of_one_seed_share_the_figure():
    frames = [standin.render({**one_of("archery"), "scene": scene}, SMALL) for scene in ("archery", "applauding")]
    equal = (frames[0] == frames[1]).all(axis=-1).mean(axis=(1, 2))
    assert (equal > 0.03).all()


@pytest.mark.parametrize("label", CLASSES)
def test_every_action_moves_and_stays_in_sight(label):
    manner = standin.draw_numbers(standin.MANNER, np.random.default_rng(0))
    poses = [standin.ACTIONS[label](manner.start + cycles, manner) for cycles in np.linspace(0, 3, 30)]
    assert len({pose.hands for pose in poses}) > 10
    assert max(abs(point) for pose in poses for point in (*pose.hands, *pose.feet)) < 1.2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A generated data set of 120 very short videos."""
    folder = tmp_path_factory.mktemp("standin")
    standin.generate(SMALL, folder, workers=1, stream=io.StringIO())
    return folder


def test_files_decode_to_what_was_rendered(folder):
    for row in standin.plan(SMALL).iloc[::30].to_dict("records"):
        decoder = VideoDecoder(folder / row["path"], dimension_order="NHWC")
        decoded = decoder[:].numpy().astype(float)
        assert decoder.metadata.average_fps == pytest.approx(row["fps"], rel=1e-3)
        assert decoder.metadata.codec == "h264"
        error = np.mean((decoded - standin.render(row, SMALL)) ** 2)
        assert 10 * np.log10(255**2 / error) > 25


def test_interrupted_generation_makes_only_what_is_missing(folder, provoked):
    files = sorted(folder.rglob("*.mp4"))
    content, times = files[3].read_bytes(), [file.stat().st_mtime_ns for file in files]
    files[3].unlink()
    files[3].with_name(f".{files[3].name}.1.partial").write_bytes(b"half a video")
    table = standin.generate(SMALL, folder, workers=1, stream=io.StringIO())
    assert len(table) == len(files)
    assert files[3].read_bytes() == content
    assert [a != b for a, b in zip(times, (f.stat().st_mtime_ns for f in files), strict=True)].count(True) == 1
    provoked("a file is missing, another is half", "generating videos")


def test_complete_folder_is_read_not_made(folder, monkeypatch):
    monkeypatch.setattr(standin, "write_video", None)
    table = standin.generate(SMALL, folder)
    assert table["sha256"].str.len().eq(64).all()
    pd.testing.assert_frame_equal(table.drop(columns="sha256"), standin.plan(SMALL), check_dtype=False)


def test_another_configuration_is_refused(folder, provoked):
    with pytest.raises(ValueError, match="generator.json.*delete"):
        standin.generate(replace(SMALL, seed=2), folder)
    provoked("a folder that holds other videos", "generating videos")


def test_the_committed_manifest_is_what_the_generator_plans():
    """Hashes belong to the machine where the files were made and are not compared."""
    settings = PROFILES["laptop"]
    listed = pd.read_csv(DATA / "standin" / "laptop.csv")
    pd.testing.assert_frame_equal(listed.drop(columns="sha256"), standin.plan(settings.data), check_exact=False)
    made = json.loads((DATA / "standin" / "laptop.json").read_text())
    assert made == {"version": standin.VERSION, "config": json.loads(json.dumps(asdict(settings.data)))}
