"""Decoding: the way from tokens to frames and back, measures with known answers, and whole cards."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_jepa import with_training

from evidence import study_cohesion
from evidence import study_decoding as study
from evidence.studies import all_studies
from picojepa import data
from picojepa.clips import Clips, normalise
from picojepa.masking import Mask
from standin import CLASSES

LABELLED = ("abseiling", "adjusting_glasses", "alligator_wrestling", "archaeological_excavation")


@pytest.fixture
def ten_classes() -> Clips:
    """Patterns that nothing has to render: eight training and three validation videos of each class."""
    shares = [("pretrain", label) for label in CLASSES for _ in range(8)]
    shares += [("validation", label) for label in CLASSES for _ in range(3)]
    videos = pd.DataFrame(shares, columns=["split", "label"])
    videos = videos.assign(path=[f"/v/{i:03}.mp4" for i in videos.index], labelled=videos.label.isin(LABELLED))
    coarse = np.random.default_rng(0).integers(0, 256, (len(videos), 2, 8, 3, 4, 4), dtype=np.uint8)
    clips = coarse.repeat(8, axis=-2).repeat(8, axis=-1)
    return Clips(videos, clips[: 8 * len(CLASSES)], clips[:, 0], videos.iloc[:0].assign(reason=""), "ten classes")


@pytest.fixture
def mask(tiny) -> Mask:
    return study.masks(tiny, 1)


def test_frames_and_tokens_are_two_views_of_the_same_pixels(tiny, noise):
    tokens = study.tokens_of(noise.centre, tiny)
    frames = study.frames_of(tokens, tiny).permute(0, 2, 1, 3, 4)
    assert np.array_equal(frames.numpy().astype(np.uint8), noise.centre)


def test_pasting_the_truth_changes_nothing(tiny, noise, mask):
    tokens = study.tokens_of(noise.centre, tiny)
    assert torch.equal(study.pasted(tokens, tokens[:, mask.target[0]], mask), tokens)


def test_space_steps_are_counted_between_hidden_and_visible_cells_only(tiny, mask):
    tokens = torch.zeros(2, 64, 3 * 2 * 8 * 8)
    hidden = len(mask.target[0])
    level = torch.arange(hidden).view(1, hidden, 1) * 0.0 + 7
    whole = study.pasted(tokens, level.expand(2, -1, tokens.shape[-1]), mask)
    assert torch.allclose(study.space_step(whole, tiny, mask), torch.full((2,), 7.0))
    noisy = study.pasted(tokens, torch.zeros(2, hidden, tokens.shape[-1]), mask)
    noisy[..., 3 * 8 + 3] = 99  # inside a patch, away from its borders
    assert not study.space_step(noisy, tiny, mask).any()


def test_time_steps_go_from_the_last_frame_of_a_token_to_the_first_of_the_next(tiny, noise, mask):
    frames = torch.arange(8.0).view(1, 8, 1, 1, 1).expand(2, 8, 3, 32, 32)
    inside = study.tokens_of(frames.numpy(), tiny)[:, mask.target[0]]
    assert torch.allclose(study.time_step(inside, inside, tiny), torch.ones(2))
    assert torch.allclose(study.time_step(inside, inside + 5, tiny), torch.full((2,), 6.0))


def test_motion_is_one_for_the_truth_and_zero_for_a_frozen_picture(tiny, noise, mask):
    tokens = study.tokens_of(noise.centre, tiny)[:, mask.target[0]]
    assert torch.allclose(study.motion(tokens, tokens, tiny), torch.ones(len(tokens)))
    slices = study.in_cells(tokens, tiny)
    frozen = slices[:, :1].expand_as(slices).reshape(tokens.shape)
    assert not study.motion(frozen, tokens, tiny).any()


def test_the_nearest_visible_token_is_in_the_same_slice(tiny, mask):
    nearest = study.nearest_visible(tiny, mask)
    assert torch.isin(nearest, mask.context[0]).all()
    assert torch.equal(nearest // 16, mask.target[0] // 16)


def test_a_decoder_finds_a_linear_map(tiny):
    features, matrix = torch.randn(40, 64, 24), torch.randn(24, 384)
    pixels = (features @ matrix + 100).clamp(0, 255)
    small = 1e-3 * features + 5  # as of random weights; the penalty must not wipe out what differs
    for given in (features, small):
        decoder = study.fit_decoder(given, features @ matrix + 100)
        assert torch.allclose(study.decode(decoder, given), pixels, atol=0.5)
    flat = features - features.mean(-1, keepdim=True)  # as after a layer norm: one direction is empty
    decoder = study.fit_decoder(flat, pixels)
    assert torch.allclose(study.decode(decoder, flat + 1e-3), study.decode(decoder, flat), atol=0.5)


def test_predictions_do_not_see_what_is_hidden(tiny, noise, mask):
    model = study.random_imagination(tiny)
    tokens = study.tokens_of(noise.centre, tiny)
    black = study.frames_of(study.pasted(tokens, torch.zeros_like(tokens[:, mask.target[0]]), mask), tiny)
    black = black.permute(0, 2, 1, 3, 4).numpy().astype(np.uint8)
    assert torch.equal(model.predictions(noise.centre, mask), model.predictions(black, mask))
    several = Mask(mask.context.expand(10, -1), mask.target.expand(10, -1))
    assert torch.allclose(model.predictions(noise.centre, mask), model.predictions(noise.centre, several), atol=1e-6)


def test_what_a_target_leaves_out_is_taken_from_the_visible_tokens(tiny, noise, mask):
    """A target without the clip's mean: beside each prediction stands the mean of what was seen."""
    asked = with_training(tiny, target="minus clip mean")
    plain, shared = (study.random_imagination(settings) for settings in (tiny, asked))
    told, both = (model.predictions(noise.centre, mask) for model in (plain, shared))
    context = mask.context.expand(len(noise.centre), -1)
    with torch.no_grad():
        seen = plain.encoder(normalise(torch.from_numpy(noise.centre)), context).mean(1, keepdim=True)
    torch.testing.assert_close(both[..., : told.shape[-1]], told)
    torch.testing.assert_close(both[..., told.shape[-1] :], seen.expand_as(told), atol=1e-5, rtol=1e-5)
    decoders = study.fit_decoders(shared, asked, noise.centre)
    found = study.fillings({"": (shared, *decoders)}, noise.centre, study.tokens_of(noise.centre, asked), asked, mask)
    assert found[study.PREDICTED].shape == found["truth"].shape


def test_cards_of_both_studies(tiny, ten_classes, cache):
    base = replace(tiny, training=replace(tiny.training, clips=32))
    card = json.loads(json.dumps(study.decoding(base, ten_classes, 0)))
    assert card["mean"]["mean clip"]["error"] == pytest.approx(100, abs=0.01)
    learned = card["mean"][study.PREDICTED]["motion"] - card["mean"][study.RANDOM]["motion"]
    assert card["claims"]["V9 time"] == pytest.approx(100 * learned)
    assert card["mean"]["truth"] | {"error": 0.0} == card["mean"]["truth"]
    assert card["mean"]["truth"]["motion"] == pytest.approx(1)
    for name, of in card["by_video"].items():
        for key, text in of.items():
            values = np.array(text.split(), dtype=float)
            assert len(values) == card["n"] == 3 * len(CLASSES)
            assert values.mean() == pytest.approx(card["mean"][name][key], rel=0.02, abs=0.01)
    card = json.loads(json.dumps(study_cohesion.cohesion(base, ten_classes, 0)))
    rho = {(row["features"], row["space"]): row["rho"] for row in card["ten"]["rows"]}
    assert card["claims"]["P9"] == pytest.approx(100 * rho["pre-trained", "map"])
    for which, classes in (("ten", data.classes(ten_classes.videos)), ("four", LABELLED)):
        assert card[which]["names"] == list(classes)
        assert [(row["features"], row["space"]) for row in card[which]["rows"]][::2] == [
            (name, "features") for name in ("pre-trained", "random weights", "colour histogram")
        ]
        for row in card[which]["rows"]:
            assert len(row["cohesion"]) == len(row["accuracy"]) == len(classes)


def test_correlation_with_known_answers():
    rising = np.arange(10.0)
    assert study_cohesion.correlation(rising, rising**2) == {"rho": 1.0, "p": pytest.approx(0.0005)}
    assert study_cohesion.correlation(rising, -rising)["p"] > 0.99


def test_both_studies_are_on_the_list():
    assert {"decoding", "cohesion"} <= set(all_studies())
