"""The film shows the steps of the very run that it stands beside, and its colours mean what the chapter says."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from figures import training_film

from picojepa import checkpoints, pretraining, store
from picojepa.clips import Clips
from picojepa.features import encode

STEPS, EVERY = 44, 2
LOOKED = [*range(0, STEPS, EVERY), STEPS - 1]  # steps after which there is a look


@pytest.fixture(autouse=True)
def twenty_looks(monkeypatch):
    """So that a run of 44 steps is looked at every second step."""
    monkeypatch.setattr(training_film, "LOOKS", 20)


@pytest.fixture
def clips(noise) -> Clips:
    """Seven training and three held-out videos."""
    videos = noise.videos.assign(split=["pretrain"] * 7 + ["validation"] * 3)
    return replace(noise, videos=videos, training=noise.training[:7])


@pytest.fixture
def run(tiny):
    """Settings of a run whose own records are few."""
    training = replace(tiny.training, clips=STEPS * tiny.training.batch, log_every=1000, watch_every=1000)
    return replace(tiny, training=training)


def packed(html: str) -> dict:
    """The data of the figure."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])


def test_the_film_shows_the_whole_run(run, clips, cache, tmp_path):
    """The very run: the looks change no loss and no weight."""
    folder = training_film.watch(run, clips)
    filmed, kept = checkpoints.read_metrics(folder), np.load(folder / "features.npy")
    assert filmed.step.tolist() == LOOKED
    assert len(filmed) == pytest.approx(training_film.LOOKS, abs=3)
    often = replace(run, training=replace(run.training, log_every=1, watch_every=1))
    held_out, seen = clips.centre[7:], []
    model = pretraining.pretrain(
        often, clips, tmp_path, lambda _, model: seen.append(encode(model.encoder, held_out, pool=False).numpy())
    )
    whole = checkpoints.read_metrics(tmp_path)
    for name in training_film.MEASURES:
        assert filmed[name].tolist() == whole[name].iloc[LOOKED].tolist()
    assert kept.shape == (len(filmed), 3, np.prod(run.grid), run.model.width)
    np.testing.assert_array_equal(kept, np.stack(seen)[LOOKED])
    np.testing.assert_array_equal(kept[-1], encode(model.encoder, held_out, pool=False).numpy())
    assert (kept[0] != kept[-1]).any()


def test_an_interrupted_film_goes_on_where_it_was(run, clips, cache, tmp_path, monkeypatch):
    whole = np.load(training_film.watch(run, clips) / "features.npy")
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path / "other"))
    save, saved = np.save, []

    def killed(path, value):
        saved.append(path.name)
        save(path, value)
        if path.name == "12.npy":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            training_film.watch(run, clips)
    assert saved == [f"{step}.npy" for step in range(0, 13, EVERY)]
    steps, make = [], pretraining.training_batch
    monkeypatch.setattr(pretraining, "training_batch", lambda step, *rest: steps.append(step) or make(step, *rest))
    folder = training_film.watch(run, clips)
    assert steps[0] == 12, "from the last checkpoint"
    np.testing.assert_array_equal(np.load(folder / "features.npy"), whole)
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
    data, looks = packed(html), len(LOOKED)
    assert (data["runs"], data["steps"]) == (["with", "without"], LOOKED)
    assert [len(of) for values in data["measures"].values() for of in values] == [looks] * 6
    assert len(data["clips"]) == 3, "fewer held-out clips than wanted"
    colours = np.frombuffer(base64.b64decode(data["colours"]), np.uint8).reshape(2, looks, 3, *data["grid"], 3)
    assert (colours[0, -1] != colours[1, -1]).any()
    assert all(clip["film"]["frames"] == run.grid[0] for clip in data["clips"])
    assert re.search(r'<div class="pj-still"><img alt="[^"]{40,}"', html)
