"""The list of experiments: each changes what it says; effects and the ledger are computed from cards."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_jepa import with_training

from evidence import experiments, records
from evidence.experiments import EXPERIMENTS, PixelJEPA
from picojepa import checkpoints, pretraining, probing, store
from picojepa.config import settings
from picojepa.jepa import JEPA
from picojepa.machine import threads


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_changes_one_thing_and_trains(name, tiny, noise, tmp_path, monkeypatch):
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path))
    base = with_training(tiny, clips=128 if name.startswith(("8x8", "batch")) else 32)
    experiment = EXPERIMENTS[name]
    chosen, clips = experiment.change(base), experiment.data(noise)
    changes = (chosen != base, clips is not noise, experiment.objective is not None)
    assert sum(changes) == (name != "primary")
    assert experiments.run_of(name, base, noise, seed=0)[0] == chosen
    run = experiments.run_of(name, base, noise, seed=0)[1]
    card = store.card(run)
    assert card["version"] == pretraining.RUN.version
    assert card["inputs"].get("objective") == (["PixelJEPA", PixelJEPA.version] if name == "V6" else None)
    assert (run / "encoder.safetensors").is_file()
    assert np.isfinite(checkpoints.read_metrics(run).loss).all()


def test_every_experiment_has_a_key_of_its_own(tiny, noise):
    keys = []
    for experiment in EXPERIMENTS.values():
        chosen, clips = experiment.change(tiny), experiment.data(noise)
        inputs = pretraining.training_inputs(chosen, clips, objective=experiment.objective)
        keys.append(store.name_of(pretraining.RUN, inputs))
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


def test_the_numbers_of_an_objective_are_those_of_its_version(tiny, noise, tmp_path):
    """Fails where `PixelJEPA` gives other losses: raise its version, and write the new numbers beside it."""
    with threads(1):
        pretraining.pretrain(with_training(tiny, clips=160), noise, tmp_path, objective=PixelJEPA)
    losses = checkpoints.read_metrics(tmp_path).loss.tolist()
    golden = json.loads((ROOT / "tests" / "golden.json").read_text(encoding="utf-8"))
    assert losses == pytest.approx(golden[f"objective PixelJEPA {PixelJEPA.version}"], rel=1e-4)


def test_another_version_of_an_objective_is_another_run(tiny, noise, cache, monkeypatch):
    base = with_training(tiny, clips=32)
    first = experiments.run_of("V6", base, noise, seed=0)[1]
    assert experiments.run_of("V6", base, noise, seed=0)[1] == first
    monkeypatch.setattr(PixelJEPA, "version", PixelJEPA.version + 1)
    monkeypatch.setattr(PixelJEPA, "distance", lambda self, predicted, wanted: 0 * predicted.sum())
    changed = experiments.run_of("V6", base, noise, seed=0)[1]
    assert changed != first
    assert (checkpoints.read_metrics(changed).loss == 0).all()


def test_a_card_is_written_once_with_scores_of_every_video(tiny, noise, cache, tmp_path, monkeypatch):
    videos = noise.videos.assign(split=["pretrain"] * 6 + ["validation"] * 4)
    clips = replace(noise, videos=videos, training=noise.training[:6])
    monkeypatch.setattr(experiments, "settings", lambda recipe: with_training(tiny, clips=32))
    monkeypatch.setattr(experiments.data, "load_clips", lambda settings: clips)
    monkeypatch.setattr(experiments, "CARDS", tmp_path / "cards")
    monkeypatch.setattr("sys.argv", ["experiments", "primary", "V6", "--seeds", "3"])
    experiments.main()
    primary, pixels = (json.loads((tmp_path / "cards" / f"{n}-tiny-3.json").read_text()) for n in ("primary", "V6"))
    assert primary["version"] == pretraining.RUN.version
    assert primary["seed"] == 3
    for card in (primary, pixels):
        assert {(s["features"], s["probe"]) for s in card["scores"]} == {
            (features, probe) for features in ("random weights", "pre-trained") for probe in probing.PROBES
        }
        assert all(s["n"] == 4 == len(s["by_video"]) and s["right"] == s["by_video"].count("1") for s in card["scores"])
    of_random = [[s for s in card["scores"] if s["features"] == "random weights"] for card in (primary, pixels)]
    assert of_random[0] == of_random[1], "random weights of a seed are shared"
    monkeypatch.setattr(experiments, "card", None)
    experiments.main()  # nothing is left to do
    monkeypatch.setattr("sys.argv", ["experiments", "primry"])
    with pytest.raises(SystemExit):
        experiments.main()


def test_a_share_of_the_videos_is_noise(noise):
    changed = experiments.with_noise(noise, share=0.2)
    different = (changed.training != noise.training).any(axis=(1, 2, 3, 4, 5))
    assert different.sum() == 2
    assert changed.digest != noise.digest
    assert np.array_equal(changed.training, experiments.with_noise(noise, share=0.2).training)


def test_committed_cards_are_of_this_code_and_data():
    cards = [json.loads(path.read_text()) for path in records.CARDS.glob("*-first-*.json")]
    assert len({card["code"] for card in cards if "code" in card}) == 1  # from before there were versions
    made = {(card["experiment"], card["seed"]) for card in cards}
    assert made <= {(name, seed) for name, experiment in EXPERIMENTS.items() for seed in experiment.seeds}
    for card in (card for card in cards if "version" in card):
        experiment = EXPERIMENTS[card["experiment"]]
        base = settings("laptop")
        chosen = experiments.trained(experiment.change(base), seed=card["seed"])
        wanted = json.loads(json.dumps(chosen.as_dict()))
        for part in ("recipe", "published", "data", "clip", "model", "training", "probe"):
            assert card["settings"][part] == wanted[part], (card["experiment"], part)
        assert card["clips"] == chosen.training.clips
