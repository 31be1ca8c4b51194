"""The stand-in data set: deterministic, counted like the paper's lists, open to further actions, resumable."""

import io
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pandas as pd
import pytest
from torchcodec.decoders import VideoDecoder

import standin
from picojepa import store
from picojepa.config import PROFILES
from standin import ACTIONS, SCENES, StandInConfig, files
from standin.actions import MANNER, action, draw_numbers, rest, stand, wave
from standin.plan import RATES, VERSION

# Videos of each action in the paper's published lists, and those of the actions that it labels.
PRETRAINING = {
    "abseiling": 957,
    "acting_in_play": 749,
    "adjusting_glasses": 590,
    "air_drumming": 892,
    "alligator_wrestling": 610,
    "answering_questions": 548,
    "applauding": 667,
    "applying_cream": 559,
    "archaeological_excavation": 661,
    "archery": 970,
}
LABELLED = {"abseiling": 957, "adjusting_glasses": 589, "alligator_wrestling": 610, "archaeological_excavation": 661}
VALIDATION = {"abseiling": 48, "adjusting_glasses": 48, "alligator_wrestling": 48, "archaeological_excavation": 50}
SMALL = StandInConfig(scale=0.001, validation_scale=0.01, seconds=(0.3, 0.5))


def one_of(label: str, config: StandInConfig = SMALL) -> dict:
    """The first row of a class."""
    table = standin.plan(config)
    return table[table["label"] == label].iloc[0].to_dict()


@pytest.fixture(scope="module")
def full() -> pd.DataFrame:
    """The plan of the paper's actions at the size of its lists."""
    table = standin.plan(StandInConfig(scale=1.0))
    return table[table["label"].isin(PRETRAINING)]


def test_counts_are_those_of_the_paper(full):
    pretrain, validation = full[full["split"] == "pretrain"], full[full["split"] == "validation"]
    assert len(pretrain) == 7203
    assert pretrain.groupby("label").size().to_dict() == PRETRAINING
    assert pretrain[pretrain["labelled"]].groupby("label").size().to_dict() == LABELLED
    assert validation[validation["labelled"]].groupby("label").size().to_dict() == VALIDATION
    assert (len(validation), validation["labelled"].sum()) == (482, 194)


def test_the_names_are_those_of_the_papers_lists():
    assert {*PRETRAINING} <= {*standin.CLASSES}
    assert {*LABELLED} <= {*standin.LABELLED_CLASSES}
    assert {*PRETRAINING} <= {*SCENES}


def test_every_profile_has_eight_training_and_four_validation_videos_a_class():
    for settings in PROFILES.values():
        sizes = standin.plan(settings.data).groupby(["split", "label"]).size()
        assert sizes["pretrain"].min() >= 8
        assert sizes["validation"].min() >= 4
        assert len(sizes) == 2 * len(standin.CLASSES)


def test_a_smaller_plan_is_a_part_of_the_larger_one(full):
    small = standin.plan(StandInConfig(scale=0.05)).set_index("path").drop(columns="labelled")
    pd.testing.assert_frame_equal(small, full.set_index("path").loc[small.index].drop(columns="labelled"))


def test_rows_are_fit_for_the_codec(full):
    assert full["path"].is_unique
    assert full["seed"].is_unique
    assert (full["width"] % 2 == 0).all()
    assert (full["height"] % 2 == 0).all()
    assert full["frames"].min() >= 18  # one and a half seconds at 12 a second
    assert set(full["fps"]) == set(RATES)


@pytest.mark.parametrize(("correlation", "share"), [(0.0, 0.1), (0.2, 0.28), (1.0, 1.0)])
def test_share_of_own_scenes_follows_the_correlation(correlation, share):
    table = standin.plan(StandInConfig(scale=0.3, scene_correlation=correlation))
    table = table[table["label"].isin(SCENES)]
    assert (table["scene"] == table["label"]).mean() == pytest.approx(share, abs=0.03)  # 2 600 videos


# ---------------------------------------------------------------- one more action


@pytest.fixture
def one_more():
    """Function that enters an action between the others, without a scene of its own."""

    def enter() -> None:
        @action(pretraining=600)
        def applying_paint(c, m):
            return stand(m).reach(0.3 + 0.2j * wave(c), rest(m))

    yield enter
    ACTIONS.pop("applying_paint", None)


def test_one_more_action_changes_no_other_video(one_more):
    before, row = standin.plan(SMALL), one_of("archery")
    frames = standin.render(row, SMALL)
    one_more()
    table = standin.plan(SMALL)
    assert sorted(table["label"].unique()) == sorted([*standin.CLASSES, "applying_paint"])
    assert table["path"].is_unique
    assert table["seed"].is_unique
    pd.testing.assert_frame_equal(table[table["label"] != "applying_paint"].reset_index(drop=True), before)
    np.testing.assert_array_equal(standin.render(one_of("archery"), SMALL), frames)


@pytest.mark.parametrize("correlation", [0.0, 1.0])
def test_an_action_without_a_scene_plays_in_any(one_more, correlation):
    one_more()
    table = standin.plan(StandInConfig(scene_correlation=correlation)).query("label == 'applying_paint'")
    assert table.groupby("split").size().to_dict() == {"pretrain": 300, "validation": 48}
    assert set(table["scene"]) == set(SCENES)
    assert not table["labelled"].any()
    assert standin.render(table.iloc[0].to_dict(), SMALL).any()


def test_an_action_needs_a_name_of_its_own(one_more):
    one_more()
    with pytest.raises(ValueError, match="there is an action applying_paint already; give this one another name"):
        one_more()


# ---------------------------------------------------------------- frames


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


@pytest.mark.parametrize("label", ACTIONS)
def test_every_action_moves_and_stays_in_sight(label):
    manner = draw_numbers(MANNER, np.random.default_rng(0))
    poses = [ACTIONS[label].motion(manner.start + cycles, manner) for cycles in np.linspace(0, 3, 30)]
    assert len({pose.hands for pose in poses}) > 10
    assert max(abs(point) for pose in poses for point in (*pose.hands, *pose.feet)) < 1.2


# ---------------------------------------------------------------- files


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
    videos = sorted(folder.rglob("*.mp4"))
    content, times = videos[3].read_bytes(), [video.stat().st_mtime_ns for video in videos]
    videos[3].unlink()
    videos[3].with_name(f".{videos[3].name}.1.partial").write_bytes(b"half a video")
    table = standin.generate(SMALL, folder, workers=1, stream=io.StringIO())
    assert len(table) == len(videos)
    assert videos[3].read_bytes() == content
    assert [a != b for a, b in zip(times, (v.stat().st_mtime_ns for v in videos), strict=True)].count(True) == 1
    provoked("a file is missing, another is half", "generating videos")


def test_complete_folder_is_read_not_made(folder, monkeypatch):
    monkeypatch.setattr(files, "write_video", None)
    table = standin.generate(SMALL, folder)
    assert table["sha256"].str.len().eq(64).all()
    pd.testing.assert_frame_equal(table.drop(columns="sha256"), standin.plan(SMALL), check_dtype=False)


def test_a_folder_still_fits_when_a_setting_is_added(folder):
    @dataclass(frozen=True)
    class Later(StandInConfig):
        weather: float = field(default=0.0, metadata={"added": True})

    later = Later(**asdict(SMALL))
    assert standin.generate(later, folder)["sha256"].str.len().eq(64).all()
    with pytest.raises(ValueError, match="generator.json.*delete"):
        standin.generate(replace(later, weather=0.5), folder)


def test_another_configuration_is_refused(folder, provoked):
    with pytest.raises(ValueError, match="generator.json.*delete"):
        standin.generate(replace(SMALL, seed=2), folder)
    provoked("a folder that holds other videos", "generating videos")


def test_the_plan_of_the_book_is_what_it_was():
    """Whoever changes what is planned raises `standin.plan.VERSION`, and writes the new digest here."""
    table = standin.plan(PROFILES["laptop"].data)
    drawn = table[["path", "scene", "seed", "frames", "width", "gop", "crf", "travel", "props"]]
    assert (VERSION, store.digest(drawn.astype(str).to_numpy().tolist())) == ("2", "e282e5965a9c6bde")
