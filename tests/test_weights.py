"""The encoder that comes with the book is used where it fits, and only there."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from test_jepa import with_training

from evidence import records
from picojepa import pretraining, store, weights
from picojepa.config import settings
from picojepa.features import load_encoder
from tools.model_card import commit


@pytest.fixture
def trained(tiny, noise, tmp_path, monkeypatch):
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path / "cache"))
    chosen = with_training(tiny, clips=32)
    return chosen, noise, pretraining.run(chosen, noise)


def test_the_run_in_the_cache_comes_first(trained, tmp_path):
    chosen, clips, run = trained
    commit(run, tmp_path / "encoder")
    assert pretraining.run(chosen, clips, tmp_path / "encoder") == run
    assert "trained on the machine" in records.origin(run)


def test_without_a_run_the_committed_encoder_is_loaded_and_nothing_is_trained(trained, tmp_path, monkeypatch):
    chosen, clips, run = trained
    committed = commit(run, tmp_path / "encoder")
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path / "empty"))
    found = pretraining.run(chosen, clips, tmp_path / "encoder")
    assert found == committed
    assert "comes with the book" in records.origin(found)
    assert not list((tmp_path / "empty").rglob("encoder.safetensors"))
    kept, full = load_file(found / "encoder.safetensors"), load_file(run / "encoder.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float16}
    loaded = load_encoder(found / "encoder.safetensors", chosen).state_dict()
    assert all(torch.allclose(loaded[name], full[name], atol=1e-3, rtol=1e-3) for name in full)


@pytest.mark.parametrize("change", ["settings", "data", "code"])
def test_an_encoder_that_does_not_fit_is_left_alone(change, trained, tmp_path, monkeypatch):
    chosen, clips, run = trained
    committed = commit(run, tmp_path / "encoder")
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path / "other"))
    if change == "settings":
        chosen = with_training(chosen, seed=5)
    elif change == "data":
        clips = replace(clips, digest="another")
    else:
        card = store.card(committed) | {"code": "another"}
        (committed / store.CARD).write_text(json.dumps(card))
    found = pretraining.run(chosen, clips, tmp_path / "encoder")
    assert found != committed
    assert (tmp_path / "other") in found.parents, "it was trained"


def test_a_run_that_is_not_finished_is_no_run(trained):
    chosen, clips, run = trained
    run.rename(run.with_name(run.name + ".partial"))
    assert weights.trained_here(chosen, clips) is None


def test_the_committed_encoder_fits_the_book():
    (card,) = (json.loads(path.read_text()) for path in weights.COMMITTED.glob(f"*/{store.CARD}"))
    base = settings("laptop", "vjepa")
    assert card["code"] == store.code_digest("pretraining")
    assert card["inputs"]["model"] == weights.as_json(base.as_dict()["model"])
    assert card["inputs"]["training"] == weights.as_json(base.as_dict()["training"])
    assert (weights.COMMITTED / "MODEL_CARD.md").is_file()
