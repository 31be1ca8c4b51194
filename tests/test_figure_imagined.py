"""The player of filled-in clips: what is grey is what was hidden, and films and numbers go together."""

import json
import re

import numpy as np
import pytest
from figures import imagined
from figures.imagined import Filling


@pytest.fixture
def hidden():
    """Two masks of 2 slices with 2 x 2 cells: a tube, and one that changes."""
    cells = np.zeros((2, 2, 2, 2), dtype=bool)
    cells[0, :, 0, 1] = True
    cells[1, 0, 0, 0] = cells[1, 1, 1, 1] = True
    return cells


@pytest.fixture
def truth():
    """Three clips of 4 frames, without a pixel in the grey of what is hidden."""
    return np.random.default_rng(0).integers(0, 100, (3, 4, 3, 8, 8), dtype=np.uint8)


def data_of(figure) -> dict:
    """What the script of a figure gets."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', figure.data, re.DOTALL)[1])


def test_only_hidden_cells_are_grey(truth, hidden):
    films = imagined.seen(np.broadcast_to(truth, (2, *truth.shape)), hidden)
    grey = (films == imagined.GREY).all(3)  # (M, n, T, H, W)
    assert grey[0, :, :, :4, 4:].all()
    assert grey[0].mean() == 0.25
    assert grey[1, :, :2, :4, :4].all()
    assert grey[1, :, 2:, 4:, 4:].all()
    assert grey[1].mean() == 0.25
    assert (films[~np.broadcast_to(grey[:, :, :, None], films.shape)] < 100).all()


def test_films_and_numbers_of_all_clips_and_masks(truth, hidden):
    films = np.stack([truth, truth + 100])
    error = np.arange(6).reshape(2, 3) + 0.12345
    filling = Filling("a guess", "half of it", films, {"error (%)": error, "motion": error / 10})
    figure = imagined.player(truth, hidden, ["air_drumming", "b", "c"], [filling])
    data = data_of(figure)
    assert data["clips"] == ["air drumming", "b", "c"]
    assert data["hidden"] == hidden.astype(int).tolist()
    assert data["masks"][0] == "1 of 4 cells hidden, the same in all frames"
    assert data["masks"][1] == "1 of 4 cells hidden, other ones in other frames"
    true, seen, guess = data["kinds"]
    assert [kind["name"] for kind in data["kinds"]] == ["truth", imagined.SEEN, "a guess"]
    assert np.shape(true["films"]) == (1, 3)  # no mask changes the truth
    assert np.shape(seen["films"]) == np.shape(guess["films"]) == (2, 3)
    assert guess["films"][0][1] == true["films"][0][1]
    assert guess["films"][1][1] != true["films"][0][1]
    assert guess["measures"]["error"] == {"values": error.round(3).tolist(), "digits": 0, "unit": " %"}
    assert guess["measures"]["motion"]["digits"] == 2
    assert true["measures"] == {}
    text = re.search(r'<img alt="([^"]*)"', figure.data)[1]
    assert "a guess: half of it" in text


def test_films_of_other_clips_are_refused(truth, hidden):
    with pytest.raises(ValueError, match="a guess"):
        imagined.player(truth, hidden, ["a", "b", "c"], [Filling("a guess", "", truth[None])])
