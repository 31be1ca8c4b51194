"""The film shows the steps of the very run that it stands beside, and its colours mean what the chapter says."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from figures import training_film

from picojepa import checkpoints, pretraining, store
from picojepa.architecture import new_encoder
from picojepa.clips import Clips
from picojepa.features import encode

STEPS = 14


@pytest.fixture
def clips(noise) -> Clips:
    """Seven training and three held-out videos."""
    videos = noise.videos.assign(split=["pretrain"] * 7 + ["validation"] * 3)
    return replace(noise, videos=videos, training=noise.training[:7])


@pytest.fixture
def run(tiny):
    """Settings of a run that is longer than its film."""
    batch = tiny.training.batch
    training = replace(tiny.training, clips=STEPS * batch, log_every=1, watch_every=1000, precision="float32")
    return replace(tiny, training=training)


def packed(html: str) -> dict:
    """The data of the figure."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])


def test_the_film_shows_the_steps_of_the_whole_run(run, clips, cache, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    pretraining.pretrain(run, clips, whole)
    folder = training_film.watch(run, clips)
    filmed, losses = checkpoints.read_metrics(folder), checkpoints.read_metrics(whole).loss
    assert filmed.step.tolist() == list(range(training_film.LOOKS + 1))
    assert filmed.loss.tolist() == losses[: len(filmed)].tolist()


def test_features_are_those_before_the_step(run, clips, cache, tmp_path):
    kept = np.load(training_film.watch(run, clips) / "features.npy")
    held_out = clips.centre[7:]
    untrained = encode(new_encoder(run.model, run.grid, run.training.seed), held_out, pool=False).numpy()
    assert (kept[0] == untrained).all()
    assert kept.shape == (training_film.LOOKS + 1, *untrained.shape)

    def stop(folder):
        if checkpoints.read_metrics(folder).step.iloc[-1] == 4:
            raise KeyboardInterrupt

    often = replace(run, training=replace(run.training, watch_every=1, checkpoint_every=1))
    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(often, clips, tmp_path, stop)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4
    encoder = new_encoder(run.model, run.grid, 5)
    own = {name[len("encoder.") :]: w for name, w in state["model"].items() if name.startswith("encoder.")}
    encoder.load_state_dict(own)
    assert (kept[4] == encode(encoder, held_out, pool=False).numpy()).all()
    assert (kept[4] != untrained).any()


def test_an_interrupted_film_goes_on_where_it_was(run, clips, cache, tmp_path, monkeypatch):
    whole = np.load(training_film.watch(run, clips) / "features.npy")
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path / "other"))
    save, saved = np.save, []

    def killed(path, value):
        if path.name == "6.npy":
            raise KeyboardInterrupt
        saved.append(path.name)
        save(path, value)

    monkeypatch.setattr(np, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        training_film.watch(run, clips)
    monkeypatch.setattr(np, "save", save)
    assert "5.npy" in saved
    folder = training_film.watch(run, clips)
    assert (np.load(folder / "features.npy") == whole).all()
    assert {path.name for path in folder.iterdir()} == {"features.npy", "metrics.jsonl", store.CARD}


def test_a_token_equal_to_the_mean_is_grey_and_collapse_has_one_colour():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(2, 3, 4, 6, 5)).astype(np.float32)
    features[1, 2] = generator.normal(size=5)  # every token of every clip says the same, far from zero or not
    colours, share = training_film.as_colours(features)
    assert colours.shape == (2, 3, 4, 6, 3)
    assert (np.abs(colours[1, 2].astype(int) - 127) <= 1).all()
    assert colours[0].std() > 30
    assert 0.6 <= share <= 1


def test_a_shift_of_a_whole_look_changes_no_colour_and_scale_does():
    features = np.random.default_rng(1).normal(size=(2, 3, 4, 6, 5))
    colours, _ = training_film.as_colours(features)
    shifted, faded = features.copy(), features.copy()
    shifted[1, 1] += 7
    faded[1, 1] *= 0.1
    assert np.abs(training_film.as_colours(shifted)[0].astype(int) - colours).max() <= 1
    assert training_film.as_colours(faded)[0][1, 1].std() < 0.3 * colours[1, 1].std(), "one scale for all looks"


def test_the_figure_holds_both_runs(run, clips, cache):
    free = replace(run, training=replace(run.training, stop_gradient=False))
    html = training_film.film({"with": run, "without": free}, clips).data
    data, looks = packed(html), training_film.LOOKS + 1
    assert (data["runs"], data["whole"], data["steps"]) == (["with", "without"], STEPS, list(range(looks)))
    assert [len(of) for values in data["measures"].values() for of in values] == [looks] * 6
    assert len(data["clips"]) == 3, "fewer held-out clips than wanted"
    colours = np.frombuffer(base64.b64decode(data["colours"]), np.uint8).reshape(2, looks, 3, *data["grid"], 3)
    assert (colours[0, 0] == colours[1, 0]).all(), "the same random weights"
    assert (colours[0, -1] != colours[1, -1]).any()
    assert all(clip["film"]["frames"] == run.grid[0] for clip in data["clips"])
    assert re.search(r'<div class="pj-still"><img alt="[^"]{40,}"', html)
