"""Features without a network: sizes, plain references, and what each can and cannot see."""

import numpy as np
import pytest

from evidence import baselines


@pytest.fixture
def clips():
    return np.random.default_rng(0).integers(0, 256, (12, 4, 3, 64, 64), dtype=np.uint8)


def test_tiny_pictures_are_means_over_squares_and_time(clips):
    found = baselines.tiny_pictures(clips).reshape(12, 3, 8, 8)
    assert found[5, 1, 2, 7] == pytest.approx(clips[5, :, 1, 16:24, 56:64].mean(), rel=1e-4)


def test_pixels_keep_time_and_differences_are_of_neighbours(clips):
    pixels = baselines.pixels(clips).reshape(12, 4, 3, 32, 32)
    assert pixels[3, 2, 0, 4, 9] == pytest.approx(clips[3, 2, 0, 8:10, 18:20].mean(), rel=1e-4)
    moved = baselines.difference_films(clips).reshape(12, 3, 32, 32)
    np.testing.assert_allclose(moved[:, 1], np.abs(pixels[:, 2] - pixels[:, 1]).mean(1), rtol=1e-4)


def test_components_are_found_on_training_clips_alone():
    random = np.random.default_rng(0)
    train, test = random.normal(size=(30, 6)) * [9, 4, 1, 1, 1, 1], random.normal(size=(5, 6))
    along_train, along_test = baselines.principal(train, test, 2)
    assert along_train.shape == (30, 2)
    axes = np.linalg.svd(train - train.mean(0))[2][:2]
    np.testing.assert_allclose(np.abs(along_test), np.abs((test - train.mean(0)) @ axes.T), rtol=1e-6)


def test_every_baseline_gives_as_many_numbers_for_both(clips):
    for name, describe in baselines.BASELINES.items():
        train, test = describe(clips[:9], clips[9:])
        assert (len(train), len(test)) == (9, 3), name
        assert train.shape[1] == test.shape[1] > 0, name
        assert np.isfinite(train).all(), name
