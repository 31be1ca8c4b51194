"""The picture: a question that only motion answers, a list against the scenes, posts, and speed."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from torchcodec.decoders import VideoDecoder

import standin
from footage.lists import read_manifest
from standin import ACTIONS, COUNTER, SCENES, StandInConfig, filming
from standin.actions import draw_numbers
from standin.plan import TRAVELS

CONFIG = StandInConfig(scale=0.02, counter_each=20, seconds=(0.5, 0.8))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return standin.plan(CONFIG)


def still_camera(**changes: float) -> filming.Numbers:
    """A camera that only travels."""
    camera = draw_numbers(filming.CAMERA, np.random.default_rng(0))
    vars(camera).update({"shake": 0.0, "wander": 0.0, "climb": 0.0, "light": 0.0} | changes)
    return camera


# ---------------------------------------------------------------- the question that only motion answers


def test_both_ways_are_equally_often_and_independent_of_all_else():
    table = standin.plan(replace(CONFIG, scale=1.0, validation_each=100, counter_each=0))
    counts = table.groupby(["split", "label"]).travel.value_counts().unstack()
    assert (counts.left - counts.right).abs().max() <= 1
    shares = pd.crosstab(table.scene, table.travel, normalize="index").right
    assert (shares - 0.5).abs().max() < 0.06  # 760 videos of a scene: three standard deviations


def test_a_camera_that_goes_the_other_way_sees_the_same_world_in_reverse(table):
    row = table.iloc[0].to_dict()
    ways = [filming.camera_path({**row, "travel": way}, still_camera())[0] for way in TRAVELS]
    np.testing.assert_allclose(ways[0], ways[1][::-1], atol=1e-9)
    assert ways[1][-1].real > ways[1][0].real, "to the right"


def test_the_world_moves_against_the_travel():
    """Where the figure is not, the next frame is this one shifted by the camera's way."""
    picture = np.random.default_rng(0).integers(0, 256, (80, 160, 3), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
    world = filming.World(picture, float("nan"), 0.1, (0, 0, 0))
    before, after = world.seen(0j, (64, 48)), world.seen(6 + 0j, (64, 48))
    np.testing.assert_array_equal(after[:, :-6], before[:, 6:])
    half = world.seen(0.5 + 0j, (64, 48))
    assert (half[:, :-1] != before[:, :-1]).any() or (half == before).all(), "steps of half a pixel"


def test_the_figure_knows_nothing_of_the_travel(table):
    """Half way both cameras are at the same place, and then the two videos are the same to the last bit."""
    row = table.iloc[3].to_dict() | {"frames": 13, "occluder": 0.5}
    frames = [standin.render({**row, "travel": way}, CONFIG) for way in TRAVELS]
    np.testing.assert_array_equal(frames[0][6], frames[1][6])
    assert (frames[0][0] != frames[1][0]).any(-1).mean() > 0.2


def test_the_place_of_the_figure_tells_no_travel(table, monkeypatch):
    """In every frame, not only half way."""
    places: list[complex] = []

    class Noting(filming.Pencil):
        def __init__(self, frame, origin, *rest):
            places.append(origin)
            super().__init__(frame, origin, *rest)

    monkeypatch.setattr(filming, "Pencil", Noting)
    row = table.iloc[3].to_dict()
    for way in TRAVELS:
        standin.render({**row, "travel": way}, CONFIG)
    assert len(set(places)) > 5, "it wanders"
    assert places[: len(places) // 2] == places[len(places) // 2 :]


# ---------------------------------------------------------------- scenes, props, posts


def test_shares_of_own_scenes_and_props():
    table = standin.plan(replace(CONFIG, scale=1.0, counter_each=100))
    train, counter = table[table.split == "pretrain"], table[table.split == COUNTER]
    assert (train.scene == train.label).mean() == pytest.approx(0.5 + 0.5 / len(SCENES), abs=0.02)
    assert (counter.scene != counter.label).all()
    assert set(counter.groupby("label").scene.nunique()) == {len(SCENES) - 1}
    assert train.props.mean() == pytest.approx(0.75, abs=0.02)
    assert train.occluder.notna().mean() == pytest.approx(0.1, abs=0.015)
    assert Counter(counter.label) == dict.fromkeys(ACTIONS, 100)


def test_the_counter_list_changes_no_other_video(table):
    without = standin.plan(replace(CONFIG, counter_each=0))
    pd.testing.assert_frame_equal(table[table.split != COUNTER], without)


def test_a_post_covers_the_figure_and_stands_still_in_the_world():
    world = filming.World(np.zeros((200, 400, 3), dtype=np.uint8), 0.5, 0.25, (9, 9, 9))
    for camera, first in ((0, 24), (8, 16), (-8, 32)):
        frame = np.zeros((48, 64, 3), dtype=np.uint8)
        world.cover(frame, complex(camera))
        columns = np.flatnonzero((frame == 9).all((0, 2)))
        assert (columns[0], len(columns)) == (first, 16), camera
    away = np.zeros((48, 64, 3), dtype=np.uint8)
    world.cover(away, complex(90))
    assert not away.any()


def test_props_are_there_or_not(table):
    row = table[(table.label == "abseiling") & table.occluder.isna()].iloc[0].to_dict()
    frames = [standin.render({**row, "props": there}, CONFIG) for there in (True, False)]
    assert (frames[0] != frames[1]).any(), "the rope"
    plain = table[(table.label == "applauding") & table.occluder.isna()].iloc[0].to_dict()
    frames = [standin.render({**plain, "props": there}, CONFIG) for there in (True, False)]
    np.testing.assert_array_equal(*frames)


def test_scene_and_motion_have_streams_of_their_own(table):
    row = table[table.occluder.isna()].iloc[0].to_dict()
    one = standin.render(row, CONFIG)
    np.testing.assert_array_equal(one, standin.render(row, CONFIG))
    assert one.shape == (row["frames"], row["height"], row["width"], 3)
    scenes = [standin.render({**row, "scene": scene}, CONFIG) for scene in ("archery", "applauding")]
    assert 0.03 < (scenes[0] == scenes[1]).all(-1).mean() < 0.9, "the figure is the same, the world another"


def test_both_lights_are_used(table):
    """A figure in the shade before a bright world about as often as one in the light before a dark world."""
    means = [standin.render(row, CONFIG)[0].mean() for row in table.sample(60, random_state=0).to_dict("records")]
    bright = np.mean(np.array(means) > 120)
    assert 0.3 < bright < 0.7


def test_files_are_made_and_listed(tmp_path):
    config = replace(CONFIG, scale=0.001, validation_each=1, counter_each=1)
    standin.generate(config, tmp_path, workers=1)
    listed = standin.plan(config)
    videos = read_manifest(tmp_path / "manifest.csv")
    assert videos.travel.tolist() == listed.travel.tolist()
    assert videos.split.value_counts().to_dict() == listed.split.value_counts().to_dict()
    decoded = VideoDecoder(videos.path[0], dimension_order="NHWC")[:].numpy().astype(float)
    error = np.mean((decoded - standin.render(listed.iloc[0].to_dict(), config)) ** 2)
    assert 10 * np.log10(255**2 / error) > 25
