"""Encoding, spread, rank and quick probe; weights of another geometry are refused."""

import re
from dataclasses import replace

import pytest
import torch
from conftest import other_geometries

from picojepa import features
from picojepa.architecture import new_encoder
from picojepa.clips import normalise


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- encoding


def test_encoding_does_not_depend_on_batch_or_mode(tiny, noise):
    encoder = new_encoder(replace(tiny.model, dropout=0.3), tiny.grid, 0).train()
    tokens = features.encode(encoder, noise.centre, batch=3, pool=False)
    assert encoder.training
    assert tokens.shape == (10, 64, 24)
    assert tokens.dtype == torch.float32
    assert not tokens.requires_grad
    torch.testing.assert_close(features.encode(encoder, noise.centre), tokens.mean(1), rtol=0, atol=1e-5)
    direct = encoder.eval()(normalise(torch.from_numpy(noise.centre)))
    torch.testing.assert_close(tokens, direct.detach(), rtol=0, atol=1e-5)


def test_noise_is_the_encoders_own_dropout(tiny, noise):
    encoder = new_encoder(replace(tiny.model, dropout=0.3), tiny.grid, 0).eval()
    state = torch.get_rng_state()
    clean, *noisy = (features.encode(encoder, noise.centre, noise=seed) for seed in (None, 0, 0, 1))
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.allclose(noisy[0], noisy[2], atol=1e-3)
    assert not torch.allclose(noisy[0], clean, atol=1e-3)
    assert not encoder.training
    assert torch.equal(torch.get_rng_state(), state), "the outer random state is given back"


# ---------------------------------------------------------------- signs of life


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_counts_equal_directions(rank):
    directions = torch.linalg.qr(numbers(20, 8))[0]
    rows = torch.linalg.qr(directions - directions.mean(0))[0][:, :rank] @ torch.eye(8)[:rank]
    spread, found = features.spread_and_rank(5 + rows)
    assert found == pytest.approx(rank, rel=1e-3)
    assert spread == pytest.approx(rows.double().std(0).mean().item(), rel=1e-6)


def test_collapsed_features_have_no_spread():
    assert features.spread_and_rank(torch.ones(7, 4)) == pytest.approx((0.0, 1.0))


def test_quick_probe_knows_what_can_be_known():
    labels = [f"class {i % 4}" for i in range(80)]
    cloud = numbers(80, 6)
    centres = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    telling = cloud + 8 * centres.repeat(20, 1)
    assert features.quick_probe(telling, labels) > 0.95
    assert features.quick_probe(cloud, labels) < 0.5  # nothing to be found: a quarter, more or less
    assert features.quick_probe(telling, labels[::2] + labels[1::2]) < 0.5, "labels of other rows"


@pytest.mark.parametrize("labels", [["a", "a", "a", "b"], ["a"] * 4, ["a", "b", "c", "d"]])
def test_without_two_clips_of_two_classes_there_is_no_quick_probe(labels):
    assert features.quick_probe(numbers(4, 3), labels) is None


# ---------------------------------------------------------------- reading weights


@pytest.mark.parametrize("which", [0, 1])
def test_an_encoder_of_another_geometry_is_refused(pipelines, which):
    path, other = pipelines[1].run / "encoder.safetensors", other_geometries(pipelines[1].settings)[which]
    with pytest.raises(ValueError, match=rf"{path}: made for another geometry: .*use the profile it was made with"):
        features.load_encoder(path, other)


def test_a_missing_encoder_is_refused(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no encoder at {tmp_path}/none; pre-train one \(chapter 4\)"):
        features.load_encoder(tmp_path / "none", tiny)


def test_a_loaded_encoder_is_ready_for_use(pipelines):
    settings = pipelines[1].settings
    encoder = features.load_encoder(pipelines[1].run / "encoder.safetensors", settings)
    assert not encoder.training
    assert not torch.equal(encoder.embed.weight, new_encoder(settings.model, settings.grid, 0).embed.weight)


@pytest.mark.parametrize(("change", "said"), [("more", "extra is [3], these settings want None"), ("less", "is None")])
def test_weights_of_too_many_or_too_few_layers_are_refused(tiny, tmp_path, change, said):
    """The message names the first tensor that differs."""
    module, path = new_encoder(tiny.model, tiny.grid, 0), tmp_path / "encoder.safetensors"
    weights = module.state_dict()
    if change == "more":
        weights["extra"] = torch.zeros(3)
    else:
        del weights["norm.weight"]
        said = f"norm.weight {said}, these settings want [24]"
    with pytest.raises(ValueError, match=re.escape(f"{path}: made for another geometry: {said}")):
        features.load_weights(module, weights, path)
