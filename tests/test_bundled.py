"""A run that comes with the book is used where settings and data fit, and only there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file, save_file
from test_jepa import with_training

from picojepa import pretraining, store
from picojepa.config import as_published
from picojepa.features import encode, load_encoder
from picojepa.jepa import JEPA

WEIGHTS = "encoder.safetensors"
SHORT = with_training(TINY, clips=32)


@pytest.fixture
def ours(noise, cache) -> Path:
    """A run that was made here."""
    return pretraining.run(SHORT, noise)


@pytest.fixture
def bundled(ours, tmp_path, monkeypatch) -> Path:
    """The run as it comes with the book, weights in half precision, on a machine where nothing was made."""
    folder = tmp_path / "book" / ours.name
    folder.mkdir(parents=True)
    save_file({name: value.half() for name, value in load_file(ours / WEIGHTS).items()}, folder / WEIGHTS)
    store.write_json(folder / store.CARD, store.card(ours) | {"precision": "float16"})
    monkeypatch.setattr(store, "BUNDLED", tmp_path / "book")
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path / "other"))
    return folder


def test_a_run_that_was_made_here_comes_first(ours, bundled, noise, monkeypatch, cache):
    monkeypatch.setenv("PICOJEPA_CACHE", str(cache))
    assert pretraining.run(SHORT, noise) == ours


def test_without_one_nothing_is_trained(bundled, noise, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "pretrain", None)  # whoever trains fails
    before = {path: path.read_bytes() for path in bundled.iterdir()}
    assert pretraining.run(SHORT, noise) == bundled
    assert not (tmp_path / "other").exists()
    assert {path: path.read_bytes() for path in bundled.iterdir()} == before


class OtherObjective(JEPA):
    """Another loss, under its own name."""

    version = 1


CHANGES = {
    "seed": {"settings": with_training(SHORT, seed=5)},
    "recipe": {"settings": as_published(SHORT)},
    "length": {"settings": with_training(SHORT, clips=48)},
    "geometry": {"settings": replace(SHORT, model=replace(SHORT.model, width=36))},
    "clips": {"settings": replace(SHORT, clip=replace(SHORT.clip, frames_per_second=4.0))},
    "part": {"stop": 1},
    "objective": {"objective": OtherObjective},
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_settings_are_trained(change, bundled, noise, tmp_path):
    given = {"settings": SHORT, "clips": noise} | CHANGES[change]
    assert pretraining.run(**given).is_relative_to(tmp_path / "other")


def test_on_other_data_or_by_another_version_it_is_trained(bundled, noise, tmp_path, monkeypatch):
    assert pretraining.run(SHORT, replace(noise, digest="another")).is_relative_to(tmp_path / "other")
    monkeypatch.setattr(pretraining, "RUN", replace(pretraining.RUN, version=pretraining.RUN.version + 1))
    assert pretraining.run(SHORT, noise).is_relative_to(tmp_path / "other")


@pytest.mark.parametrize("part", ["probe", "data", "live_clips"])
def test_what_does_not_shape_the_encoder_does_not_matter(part, bundled, noise, monkeypatch):
    monkeypatch.setattr(pretraining, "pretrain", None)
    others = {
        "probe": replace(SHORT.probe, epochs=7),
        "data": replace(SHORT.data, scale=0.5),  # the clips are known by their own digest
        "live_clips": 16,
    }
    assert pretraining.run(replace(SHORT, **{part: others[part]}), noise) == bundled


def test_half_precision_is_read_as_it_was_to_a_thousandth(ours, bundled, noise):
    kept, full = load_file(bundled / WEIGHTS), load_file(ours / WEIGHTS)
    assert {value.dtype for value in kept.values()} == {torch.float16}
    loaded = load_encoder(bundled / WEIGHTS, SHORT)
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value.cpu(), full[name], rtol=1e-3, atol=1e-3)
    features = [encode(load_encoder(folder / WEIGHTS, SHORT), noise.centre).numpy() for folder in (ours, bundled)]
    np.testing.assert_allclose(features[1], features[0], atol=0.01)
    assert not np.array_equal(*features)
