"""Purity against brute force and known cases; maps that repeat."""

import numpy as np
import pytest

from picojepa import tsne
from standin import LABELLED_CLASSES


def points(n: int = 40, width: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width))


def slow_shares(xs, labels, neighbours, apart):
    """For each point sort all others that may be asked by their distance."""
    found = []
    allowed = [
        [j for j in range(len(xs)) if j != i and (apart is None or apart[j] != apart[i])] for i in range(len(xs))
    ]
    asked = min(neighbours, *(len(a) // 2 for a in allowed))
    for i, others in enumerate(allowed):
        nearest = sorted(others, key=lambda j, i=i: np.sum((xs[i] - xs[j]) ** 2))[:asked]
        found.append(sum(labels[j] == labels[i] for j in nearest) / asked)
    return found


@pytest.mark.parametrize("neighbours", [1, 5, 100])
@pytest.mark.parametrize("videos", [None, np.repeat(np.arange(8), 5)])
def test_shares_against_brute_force(neighbours, videos):
    xs, labels = points(), np.random.default_rng(1).integers(0, 3, 40)
    found = tsne.shares(xs, labels, neighbours, videos)
    np.testing.assert_allclose(found, slow_shares(xs, labels, neighbours, videos))
    assert tsne.purity(xs, labels, neighbours, videos) == pytest.approx(found.mean())


def test_purity_of_far_clusters_and_of_chance():
    labels = np.repeat(np.arange(4), 50)
    far = points(200, 2) + 100 * labels[:, None]
    assert tsne.purity(far, labels) == 1
    shuffled = np.random.default_rng(0).permutation(labels)
    assert tsne.purity(far, shuffled) == pytest.approx(tsne.purity_by_chance(shuffled), abs=0.06)
    assert tsne.purity_by_chance(labels) == pytest.approx(49 / 199)


def test_patches_of_one_video_are_pure_only_until_they_are_kept_apart():
    """The trap of the paper's figure: points cluster by video, and a video has one class."""
    videos = np.repeat(np.arange(12), 10)
    labels = videos % 3
    xs = 50 * points(12, 3)[videos] + points(120, 3, seed=1)
    assert tsne.purity(xs, labels, 9) == 1
    assert tsne.purity(xs, labels, 9, apart=videos) < 0.7
    assert tsne.purity_by_chance(labels, apart=videos) == pytest.approx(30 / 110)


def test_few_points_do_not_ask_everybody():
    """With all others for neighbours every space would have the purity of chance."""
    labels = np.repeat([0, 1], 4)
    assert tsne.nearest(points(8)).shape == (8, 3)
    assert tsne.purity(points(8) + 100 * labels[:, None], labels) == 1


def of_videos(videos: int, each: int, apart: float, seed: int):
    """Points of so many videos of two classes, whose middles lie apart."""
    labels = np.arange(videos) % 2
    middle = 5 * points(videos, 3, seed) + apart * labels[:, None]
    owner = np.repeat(np.arange(videos), each)
    return middle[owner] + points(videos * each, 3, seed + 1), labels[owner], owner


def test_what_chance_made_lies_outside_of_its_band_seldom():
    gains = [tsne.purity_gain(*of_videos(10, 8, 0, seed), draws=200) for seed in range(0, 400, 2)]
    assert np.mean([not low <= found <= high for found, low, high in gains]) < 0.09


def test_purity_gain_finds_what_is_there_and_says_nothing_of_four_videos():
    xs, labels, videos = of_videos(10, 8, 100, 0)
    found, low, high = tsne.purity_gain(xs, labels, videos)
    assert found == pytest.approx(100 * (1 - 4 / 9))
    assert low < 0 < high < found, "the band is about chance, wherever the purity lies"
    found, _, high = tsne.purity_gain(*of_videos(4, 8, 100, 0))
    assert found <= high
    assert tsne.purity_gain(xs, labels, videos, minus=xs) == (0, 0, 0)
    found, low, high = tsne.purity_gain(xs, labels, videos, minus=points(80))
    assert low < 0 < high < found


@pytest.mark.parametrize("n", [8, 60])
def test_a_map_has_two_numbers_for_each_point_and_repeats(n):
    xs = points(n, 5).astype(np.float32)
    found = tsne.tsne_map(xs, seed=0)
    assert found.shape == (n, 2)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, tsne.tsne_map(xs, seed=0))
    assert not np.allclose(found, tsne.tsne_map(xs, seed=1))


def test_a_map_keeps_far_clusters_apart():
    labels = np.repeat([0, 1], 40)
    assert tsne.purity(tsne.tsne_map(points(80) + 100 * labels[:, None], seed=0), labels) > 0.95


def test_few_videos_are_the_first_of_each_class(pipelines):
    clips = pipelines[1].clips
    rows = tsne.few_videos(clips, each=3)
    videos = clips.videos.iloc[rows]
    assert videos.label.tolist() == [label for label in LABELLED_CLASSES for _ in range(3)]
    assert set(videos.split) == {"pretrain"}
    assert [path[-8:] for path in videos.path] == ["0001.mp4", "0002.mp4", "0003.mp4"] * 4


@pytest.mark.parametrize(("tokens", "videos", "count"), [(64, 10, 64), (64, 20, 50), (784, 20, 50), (64, 5000, 1)])
def test_spaced_tokens_are_spread_and_few_enough(tokens, videos, count):
    found = tsne.spaced_tokens(tokens, videos, most=1000)
    assert len(set(found.tolist())) == len(found) == count
    assert found[0] == 0
    assert found.max() < tokens
    assert len(found) * videos <= 1000 or len(found) == 1
    if count > 1:
        assert found[-1] == tokens - 1


def test_another_data_seed_changes_purity(pipelines):
    found = []
    for pipeline in pipelines.values():
        videos = pipeline.clips.videos
        rows = np.flatnonzero(videos.split == "pretrain")
        flat = pipeline.clips.centre[rows].reshape(len(rows), -1)[:, ::97].astype(float)
        found.append(tsne.shares(flat, videos.label.to_numpy()[rows], 5))
    assert (found[0] != found[1]).any()
