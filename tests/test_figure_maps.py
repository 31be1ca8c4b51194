"""The map of clips holds the maps that were made, with every dot in its place."""

import numpy as np
import pytest
from figures import maps, plots
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from test_figure_votes import payload

from picojepa import tsne

POINTS = np.random.default_rng(0).normal(size=(10, 6))


@pytest.fixture
def two_maps():
    """Features (10, 6) and their map (10, 2), twice."""
    return {name: (turn * POINTS, turn * POINTS[:, :2]) for name, turn in (("one", 1.0), ("two", -3.0))}


def test_the_figure_holds_what_the_module_computes(noise, two_maps):
    rows = np.arange(10)[::-1]
    data = payload(maps.dots(noise, rows, two_maps))
    classes = [kind["name"] for kind in data["classes"]]
    assert [classes[number] for number in data["labels"]] == noise.videos.label[rows].map(plots.pretty).tolist()
    assert data["maps"] == ["one", "two"]
    for name, near in zip(two_maps, data["neighbours"], strict=True):
        assert near == tsne.nearest(two_maps[name][0], maps.NEIGHBOURS).tolist()
    assert np.shape(data["places"]) == (2, 10, 2)
    assert len(data["films"]) == 10


def test_the_picture_has_a_text_alternative_that_counts_the_classes(noise, two_maps):
    assert 'alt="Map of 10 clips by t-SNE, one; ' in (told := maps.dots(noise, np.arange(10), two_maps).data)
    assert "abseiling 5" in told


def test_a_map_keeps_its_shape_and_fills_the_square():
    xy = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 5.0]])
    assert maps.placed(xy).tolist() == [[0, 0.75], [1, 0.75], [0, 0.25]]
    assert maps.placed(xy[:1]).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("marker", plots.MARKERS)
def test_outlines_are_those_of_the_figures(marker):
    drawn = maps.outline(marker)
    assert drawn.startswith("M")
    numbers = np.array([float(part) for part in "".join(c if c in "0123456789.-e" else " " for c in drawn).split()])
    corners = numbers.reshape(-1, 2) * [1, -1]
    style = MarkerStyle(marker)
    path = style.get_transform().transform_path(style.get_path())
    kept = path.vertices[path.codes != Path.CLOSEPOLY] if path.codes is not None else path.vertices
    np.testing.assert_allclose(corners[: len(kept)], kept[: len(corners)], atol=2e-3)


def test_classes_of_own_videos_get_marks(noise, two_maps):
    noise.videos["label"] = [f"my class {number % 3}" for number in range(10)]
    data = payload(maps.dots(noise, np.arange(10), two_maps))
    assert len({(kind["colour"], kind["shape"]) for kind in data["classes"]}) == 3
