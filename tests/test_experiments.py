"""The list of experiments: each changes what it says; effects and the ledger are computed from cards."""

import json

import numpy as np
import pytest
import torch
from test_jepa import with_training

from evidence import experiments, records
from evidence.experiments import EXPERIMENTS, PixelJEPA
from picojepa import checkpoints, pretraining
from picojepa.config import settings
from picojepa.jepa import JEPA


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_changes_one_thing_and_trains(name, tiny, noise, tmp_path, monkeypatch):
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path))
    base = with_training(tiny, clips=128 if name.startswith(("8x8", "batch")) else 32)
    experiment = EXPERIMENTS[name]
    chosen, clips = experiment.change(base), experiment.data(noise)
    changes = (chosen != base, clips is not noise, experiment.objective is not None)
    assert sum(changes) == (name != "primary")
    run = experiments.pretrained(chosen, clips, experiment.objective)
    assert (run / "encoder.safetensors").is_file()
    assert np.isfinite(checkpoints.read_metrics(run).loss).all()


def test_every_experiment_has_a_key_of_its_own(tiny, noise):
    keys = []
    for experiment in EXPERIMENTS.values():
        inputs = pretraining.training_inputs(experiment.change(tiny), experiment.data(noise))
        keys.append(json.dumps([inputs, str(experiment.objective)], sort_keys=True))
    assert len(set(keys)) == len(EXPERIMENTS)


def test_pixels_are_predicted_in_place_of_features(tiny):
    jepa, clips = PixelJEPA(tiny, seed=0), torch.randn(2, 3, 8, 32, 32)
    masks = jepa.draw_masks(2, torch.Generator().manual_seed(0))
    wanted = jepa.targets(clips)
    assert wanted.shape == (2, 64, 3 * 2 * 8 * 8)
    torch.testing.assert_close(wanted.mean(-1), torch.zeros(2, 64), atol=1e-5, rtol=0)
    first, _ = jepa(clips, masks)
    with torch.no_grad():
        for parameter in jepa.target_encoder.parameters():
            parameter.zero_()
    assert torch.equal(jepa(clips, masks)[0], first), "the target encoder has no say"
    features = JEPA(tiny, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(jepa.encoder.parameters(), features.encoder.parameters(), strict=True))


def test_a_share_of_the_videos_is_noise(noise):
    changed = experiments.with_noise(noise, share=0.2)
    different = (changed.training != noise.training).any(axis=(1, 2, 3, 4, 5))
    assert different.sum() == 2
    assert changed.digest != noise.digest
    assert np.array_equal(changed.training, experiments.with_noise(noise, share=0.2).training)


def test_committed_cards_are_of_this_code_and_data():
    cards = [json.loads(path.read_text()) for path in records.CARDS.glob("*-laptop-*.json")]
    assert len({card["code"] for card in cards}) == 1
    for card in cards:
        experiment = EXPERIMENTS[card["experiment"]]
        base = settings("laptop")
        chosen = experiments.trained(experiment.change(base), seed=card["seed"])
        assert card["settings"] == json.loads(json.dumps(chosen.as_dict())), card["experiment"]
        assert card["clips"] == chosen.training.clips
