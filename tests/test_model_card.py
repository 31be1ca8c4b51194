"""The run that comes with the book: what is committed of it, that it is found where it fits, and only there."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from test_jepa import with_training

from evidence import records, study_decoding
from picojepa import checkpoints, pretraining, store
from picojepa.config import settings
from picojepa.features import load_encoder
from tools import model_card


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """The folder of what comes with the book, with an older run in it."""
    folder = tmp_path / "encoder"
    (folder / "older").mkdir(parents=True)
    (folder / "MODEL_CARD.md").write_text("card")
    monkeypatch.setattr(store, "BUNDLED", folder)
    return folder


@pytest.fixture
def trained(tiny, noise, cache, bundle):
    chosen = with_training(tiny, clips=32)
    return chosen, noise, pretraining.run(chosen, noise)


def test_a_run_is_committed_whole_and_alone(trained, bundle):
    chosen, clips, run = trained
    assert model_card.finished_run(chosen, clips) == run
    committed = model_card.commit(run, bundle)
    assert sorted(path.name for path in bundle.iterdir()) == ["MODEL_CARD.md", run.name]
    assert store.card(committed) == store.card(run) | {"precision": "float16"}
    assert checkpoints.read_metrics(committed).equals(checkpoints.read_metrics(run))
    for name in ("encoder.safetensors", "predictor.safetensors"):
        halves, full = load_file(committed / name), load_file(run / name)
        assert {tensor.dtype for tensor in halves.values()} == {torch.float16}
        assert all(torch.allclose(halves[key].float(), full[key], atol=1e-3, rtol=1e-3) for key in full)


def test_without_a_run_nothing_is_committed(tiny, noise, cache, bundle):
    with pytest.raises(FileNotFoundError, match=r"python -m picojepa\.pretraining"):
        model_card.finished_run(tiny, noise)
    assert (bundle / "older").is_dir()


def test_the_run_in_the_cache_comes_first(trained, bundle):
    chosen, clips, run = trained
    model_card.commit(run, bundle)
    assert pretraining.run(chosen, clips) == run
    assert "trained on the machine" in records.origin(run)


def test_what_comes_with_the_book_is_loaded_and_nothing_is_trained(trained, bundle, cache):
    chosen, clips, run = trained
    full = load_encoder(run / "encoder.safetensors", chosen).state_dict()
    committed = model_card.commit(run, bundle)
    shutil.rmtree(cache)
    found = pretraining.run(chosen, clips)
    assert found == committed
    assert "comes with the book" in records.origin(found)
    assert not list(cache.rglob("encoder.safetensors"))
    model = study_decoding.trained_imagination(chosen, found)
    loaded = model.encoder.state_dict()
    assert all(torch.allclose(loaded[name].to(x.device), x, atol=1e-3, rtol=1e-3) for name, x in full.items())
    assert {parameter.dtype for parameter in model.predictor.parameters()} == {torch.float32}


@pytest.mark.parametrize("change", ["settings", "data", "version"])
def test_an_encoder_that_does_not_fit_is_left_alone(change, trained, bundle, cache, monkeypatch):
    chosen, clips, run = trained
    committed = model_card.commit(run, bundle)
    shutil.rmtree(cache)
    if change == "settings":
        chosen = with_training(chosen, seed=5)
    elif change == "data":
        clips = replace(clips, digest="another")
    else:
        monkeypatch.setattr(pretraining, "RUN", replace(pretraining.RUN, version=pretraining.RUN.version + 1))
    found = pretraining.run(chosen, clips)
    assert found != committed
    assert cache in found.parents, "it was trained"


def test_the_committed_encoder_fits_the_book():
    """Fails from a change of settings or version on until `python -m tools.model_card` was run."""
    (folder,) = (path.parent for path in store.BUNDLED.glob(f"*/{store.CARD}"))
    inputs, base = store.card(folder)["inputs"], settings("laptop", "adapted")
    assert folder.name == store.name_of(pretraining.RUN, inputs)
    for part in ("clip", "model", "training"):
        assert inputs[part] == json.loads(json.dumps(store.plain(getattr(base, part))))
    assert (store.BUNDLED / "MODEL_CARD.md").is_file()
