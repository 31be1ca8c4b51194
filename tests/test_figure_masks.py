"""The mask explorer shows the module's masks, bit by bit, and says the right things of them."""

import json
import re

import ipywidgets as widgets
import nbformat
import numpy as np
import pytest
import torch
from conftest import notebook_path
from figures import masks, plots
from matplotlib import pyplot as plt

from picojepa import masking
from picojepa.masking import MaskConfig

GRID = (4, 6, 5)
CLIP = np.random.default_rng(0).integers(0, 255, (8, 3, 12, 10), dtype=np.uint8)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unpacked(told: dict) -> np.ndarray:
    """Hidden tokens, as the script reads them: four to a hexadecimal digit, the first in its highest bit."""
    digits = [int(digit, 16) for digit in told["bits"]]
    bits = [digits[token >> 2] >> (3 - (token & 3)) & 1 for token in range(int(np.prod(GRID)))]
    return np.array(bits, dtype=bool).reshape(GRID)


@pytest.fixture(scope="module")
def packed() -> tuple[str, dict]:
    """HTML of the figure, and its data."""
    html = masks.explorer(CLIP, GRID, ratios=(0.5, 0.75), draws=5).data
    return html, json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])


def test_every_kind_has_its_draws_at_every_ratio(packed):
    kinds = packed[1]["kinds"]
    assert [kind["name"] for kind in kinds] == list(masks.KINDS)
    for kind in kinds:
        assert kind["ratios"] == (["0.5", "0.75"] if masks.KINDS[kind["name"]][0] else [])
        assert len(kind["masks"]) == max(1, len(kind["ratios"]))
        for drawn in kind["masks"]:
            assert len(drawn) == 5
            assert len({told["bits"] for told in drawn}) > 1, "another draw is another mask"


def test_bits_are_those_of_the_modules_masks(packed):
    of = {kind["name"]: kind["masks"] for kind in packed[1]["kinds"]}
    wanted = masking.tube(GRID, 0.75, 1, generator(3)).target[0]
    assert (unpacked(of["tube"][1][3]) == plots.hidden_grid(wanted, GRID)).all()
    for which, name in enumerate(("multi-block, short range", "multi-block, long range")):
        wanted = masking.multiblock(GRID, 1, generator(2))[which].target[0]
        assert (unpacked(of[name][0][2]) == plots.hidden_grid(wanted, GRID)).all()
    wanted = masking.causal(GRID, MaskConfig().visible_slices, 1, generator(1)).target[0]
    assert (unpacked(of["causal"][0][1]) == plots.hidden_grid(wanted, GRID)).all()


def test_facts_are_those_of_the_bits(packed):
    for kind in packed[1]["kinds"]:
        for told in (told for drawn in kind["masks"] for told in drawn):
            hidden = unpacked(told)
            assert told["target"] == hidden.sum()
            assert told["context"] == (~hidden).sum(), "alone, nothing is cut from either list"
            assert told["constant"] == (hidden == hidden[:1]).all()
        constant = [told["constant"] for drawn in kind["masks"] for told in drawn]
        assert all(constant) == (kind["name"] == "tube" or kind["name"].startswith("multi-block"))


def test_there_is_a_picture_with_a_text(packed):
    html = packed[0]
    assert re.search(r'<div class="pj-still"><img alt="[^"]{40,}"', html)
    assert 'role="group" aria-label="Masks' in html
    film = packed[1]["clip"]
    assert (film["frames"], film["width"], film["height"]) == (8, 10, 12)


def test_a_coarse_grid_with_two_slices_will_do():
    assert "pj-still" in masks.explorer(CLIP[:4], (2, 3, 2), draws=2).data


def test_the_cell_for_those_with_a_kernel_draws_masks():
    """It is not run when the book is built, so it is run here."""
    notebook = nbformat.read(notebook_path("masking"), as_version=4)
    (cell,) = (cell for cell in notebook.cells if "skip-execution" in cell.metadata.get("tags", []))
    names = {"widgets": widgets, "MaskConfig": MaskConfig, "torch": torch, "masking": masking, "np": np, "plots": plots}
    exec(cell.source, names | {"paper_grid": GRID, "grey": CLIP}, names)
    for strategy, rows in (("tube", 1), ("multiblock", 2), ("causal", 1)):
        plt.close("all")
        names["fresh_mask"](strategy, 0.5, 1)
        assert len(plt.gcf().axes) == rows * len(CLIP)
    plt.close("all")
