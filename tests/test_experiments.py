"""The list of experiments: each changes what it says; effects and the ledger are computed from cards."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from test_jepa import with_training

from picojepa import pretraining, results
from picojepa.config import DATA, settings
from picojepa.jepa import JEPA
from tools import experiments
from tools.experiments import EXPERIMENTS, PixelJEPA

BOLD = "supported"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_changes_one_thing_and_trains(name, tiny, noise, tmp_path, monkeypatch):
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path))
    base = with_training(tiny, clips=32)
    experiment = EXPERIMENTS[name]
    chosen, clips = experiment.change(base), experiment.data(noise)
    changes = (chosen != base, clips is not noise, experiment.objective is not None)
    assert sum(changes) == (name != "primary")
    run = experiments.pretrained(chosen, clips, experiment.objective)
    assert (run / "encoder.safetensors").is_file()
    assert np.isfinite(pretraining.read_metrics(run).loss).all()


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


# ---------------------------------------------------------------- effects and the ledger


def write_cards(folder, name, accuracies):
    """A card for each seed with this many of 100 videos right."""
    for seed, right in enumerate(accuracies):
        score = {"classes": 10, "probe": "linear", "n": 100}
        scores = [
            {**score, "features": "pre-trained", "right": right},
            {**score, "features": "random weights", "right": 20},
        ]
        card = {"experiment": name, "seed": seed, "scores": scores}
        (folder / f"{name}-laptop-{seed}.json").write_text(json.dumps(card))


def live():
    """A row for each claim that chapter 8 tests itself."""
    listed = pd.read_csv(DATA / "claims.csv", index_col="id", keep_default_na=False)
    row = results.claim("", "", "a difference", (1.0, 0.5, 1.5), "9 videos")
    return dict.fromkeys(listed.index[listed.evidence == "live"], row)


def test_an_effect_is_paired_by_seed(tmp_path):
    write_cards(tmp_path, "primary", [40, 50, 60, 70])
    write_cards(tmp_path, "F1", [30, 45, 52])
    assert results.effect("F1", tmp_path).to_dict() == {0: 10, 1: 5, 2: 8}
    with pytest.raises(FileNotFoundError, match="F2-laptop"):
        results.effect("F2", tmp_path)


def test_the_ledger_says_what_the_cards_say_and_what_was_not_run(tmp_path):
    write_cards(tmp_path, "primary", [40, 50, 60])
    write_cards(tmp_path, "F1", [30, 41, 49])  # 10, 9, 11: costs
    write_cards(tmp_path, "F2", [50, 59, 71])  # helps
    write_cards(tmp_path, "V6", [30, 60, 58])  # 10, -10, 2
    write_cards(tmp_path, "V1", [20])  # one seed tells nothing
    write_cards(tmp_path, "V11-fast", [50, 61, 69])
    table = results.ledger(live(), tmp_path)
    assert table.index.is_unique
    words = table.verdict.to_dict()
    assert (words["F1"], words["F2"], words["V6"], words["V1"]) == (
        BOLD,
        "not supported",
        "cannot be told here",
        "cannot be told here",
    )
    assert words["V11b"] == BOLD, "the claim is about the changed run"
    assert words["F3"] == words["P7"] == words["V3"] == "not run"
    assert table.loc["F1", "points (95 %)"] == results.in_words(results.seed_interval(np.array([10.0, 9.0, 11.0])))
    assert table.loc["F1", "over"] == "3 seeds (loaded, stand-in)"


def test_a_claim_that_was_forgotten_or_invented_is_refused(tmp_path):
    rows = live()
    rows.pop("P1")
    with pytest.raises(ValueError, match="P1"):
        results.ledger(rows, tmp_path)
    with pytest.raises(ValueError, match="P99"):
        results.ledger(live() | {"P99": rows["P6"]}, tmp_path)


def test_every_experiment_is_behind_a_claim_and_the_other_way_round():
    listed = pd.read_csv(DATA / "claims.csv", index_col="id", keep_default_na=False)
    asked = {evidence.split()[1] for evidence in listed.evidence if evidence.startswith("experiment ")}
    assert asked == set(EXPERIMENTS) - {"primary", "published"}
    families = {number.rstrip("ab") for number in listed.index}
    wanted = {f"P{n}" for n in range(1, 10)} | {f"F{n}" for n in range(1, 15)} | {f"V{n}" for n in range(1, 12)}
    assert families == (wanted | {"W1", "W2", "W3", "B1"}) - {"V10"}, "V10 is tested by F1"


def test_committed_cards_are_of_this_code_and_data():
    cards = [json.loads(path.read_text()) for path in results.CARDS.glob("*-laptop-*.json")]
    assert len({card["code"] for card in cards}) == 1
    for card in cards:
        experiment = EXPERIMENTS[card["experiment"]]
        base = settings("laptop")
        chosen = experiments.trained(experiment.change(base), seed=card["seed"])
        assert card["settings"] == json.loads(json.dumps(chosen.as_dict())), card["experiment"]
        assert card["clips"] == 96_000
