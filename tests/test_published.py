"""The published code's habits, one switch at a time: what each changes, and that it changes nothing else."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_jepa import moved, some_clips, some_masks, with_training
from torch import nn

from picojepa import config, ensemble, fitting, pretraining
from picojepa.architecture import gather_tokens, parameter_count
from picojepa.config import SWITCHES, as_published
from picojepa.jepa import JEPA
from picojepa.masking import MaskConfig, tube
from picojepa.published import DecoderPredictor, PublishedJEPA, runs

GRID = (4, 4, 4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def switched(settings, *switches, **model):
    """Only these switches; none at all if none is named."""
    settings = as_published(settings, *switches) if switches else replace(settings, recipe="published")
    return replace(settings, model=replace(settings.model, **model))


def last_state(settings, clips, folder) -> dict:
    """What a short run leaves, without the extra state."""
    folder.mkdir()
    state = pretraining.pretrain(settings, clips, folder).state_dict()
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def differ(a: dict, b: dict) -> set[str]:
    """The parts of two models, such as ``encoder``, in which some bit differs."""
    assert a.keys() == b.keys()
    return {name.split(".")[0] for name in a if not torch.equal(a[name], b[name])}


# ---------------------------------------------------------------- names


def test_unknown_switches_and_recipes_are_refused(tiny):
    with pytest.raises(ValueError, match="unknown switch maskruns, noise; known: mask_runs, encode_hidden"):
        as_published(tiny, "maskruns", "dropout", "noise")
    with pytest.raises(ValueError, match="unknown recipe 'paper'; known: adapted, vjepa, published"):
        replace(tiny, recipe="paper")
    with pytest.raises(ValueError, match="only the recipe 'published' has switches"):
        replace(tiny, published=("dropout",))


def test_no_names_are_all_names(tiny):
    assert as_published(tiny).published == tuple(SWITCHES)
    assert as_published(tiny, "dropout", "mask_runs").published == ("mask_runs", "dropout")
    paper = config.settings("paper", "published")
    assert (paper.recipe, paper.published) == ("published", tuple(SWITCHES))
    assert set(pretraining.OBJECTIVES) == set(config.RECIPES)


def test_the_recipe_published_computes_in_float32(tiny):
    fast = with_training(tiny, precision="bfloat16")
    assert as_published(fast).training.precision == "float32"
    assert as_published(fast, "mask_runs").training.precision == "float32"
    assert config.settings("laptop", "published").training.precision == "float32"


def test_the_papers_networks_have_the_papers_parameters():
    model = PublishedJEPA(config.settings("paper", "published"), 0)
    assert parameter_count(model.encoder) == 3_413_568
    assert parameter_count(model.predictor) == 1_039_488


# ---------------------------------------------------------------- all switches off, and each alone


def test_with_every_switch_off_it_is_the_other_recipe_bit_by_bit(tiny, noise, tmp_path):
    a, b = last_state(tiny, noise, tmp_path / "a"), last_state(switched(tiny), noise, tmp_path / "b")
    assert differ(a, b) == set()


IN_CONFIG = {"dropout": {"model"}, "constant_ema": {"training"}, "schedules": {"training"}, "noisy_probe": {"probe"}}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_changes_no_settings_but_its_own(tiny, switch):
    found, base = as_published(tiny, switch), switched(tiny)
    changed = {n for n in ("data", "clip", "model", "training", "probe") if getattr(found, n) != getattr(base, n)}
    assert changed == IN_CONFIG.get(switch, set())


def test_the_numbers_of_the_published_schedules(tiny):
    found = as_published(tiny)
    assert found.model.dropout == 0.1
    assert found.probe.dropout_draws == 4
    numbers = {"ema": (0.996, 0.996), "weight_decay": (0.05, 0.05), "predictor_rate": 2.0, "warmup": 0.25}
    assert found.training == replace(tiny.training, **numbers, clip_warmup=False)
    assert as_published(tiny, "constant_ema").training == replace(tiny.training, ema=(0.996, 0.996))
    assert as_published(tiny, "schedules").training.ema == tiny.training.ema


@pytest.mark.parametrize("switch", [s for s in SWITCHES if s not in ("noisy_probe", "early_ema", "noisy_target")])
def test_each_switch_changes_what_is_learned(tiny, noise, tmp_path, switch):
    """But for those that act elsewhere: on the probe, on the target alone, on dropout that is not there.

    The target must move: as long as the encoder's last norm is at its start, its features are normalised anyway.
    """
    lively = with_training(tiny, ema=(0.5, 1.0), learning_rate=0.01)
    plain = last_state(switched(lively), noise, tmp_path / "plain")
    found = last_state(switched(lively, switch), noise, tmp_path / "found")
    names = {name for name in plain if name.startswith("encoder")}
    assert differ({n: plain[n] for n in names}, {n: found[n] for n in names}) == {"encoder"}


# ---------------------------------------------------------------- F1, masks


def test_the_published_order_leaves_a_third_of_the_cells_constant_in_time():
    """A cell is constant if four independent draws agree: .75 ** 4 + .25 ** 4, 32 %."""
    mask = runs((4, 14, 14), MaskConfig(ratio=0.75), 2000, generator())
    hidden = torch.zeros(2000, 784).scatter_(1, mask.target, 1.0).view(2000, 4, 196)
    constant = (hidden == hidden[:, :1]).all(1).float().mean().item()
    assert constant == pytest.approx(0.75**4 + 0.25**4, abs=0.006)
    without_return = (math.comb(192, 143) + math.comb(192, 147)) / math.comb(196, 147)
    assert constant == pytest.approx(without_return, abs=0.002)  # the four are drawn from one list of 147


def test_published_masks_are_runs_of_neighbours():
    """Four tokens after another, each run hidden or visible as a whole, each token in one list."""
    mask = runs(GRID, MaskConfig(ratio=0.75), 50, generator())
    for context, target in zip(mask.context.tolist(), mask.target.tolist(), strict=True):
        assert sorted(context + target) == list(range(64))
        assert (context, target) == (sorted(context), sorted(target))
        assert {number // 4 for number in target}.isdisjoint({number // 4 for number in context})
    assert mask.target.shape == (50, 48)
    cells = tube((1, 4, 4), 0.75, 50, generator())
    assert torch.equal(mask.target[:, ::4] // 4, cells.target)


def test_the_model_draws_runs_if_it_is_told_to(tiny):
    (found,) = PublishedJEPA(switched(tiny, "mask_runs"), 0).draw_masks(3, generator())
    assert torch.equal(found.target, runs(GRID, tiny.training.mask, 3, generator()).target)
    (plain,) = PublishedJEPA(switched(tiny, "encode_hidden"), 0).draw_masks(3, generator())
    assert torch.equal(plain.target, tube(GRID, 0.75, 3, generator()).target)


# ---------------------------------------------------------------- F2, what the encoder sees


@pytest.mark.parametrize("switch", ["encode_hidden", "mask_runs"])
def test_a_hidden_pixel_reaches_the_context_only_with_encode_hidden(tiny, switch):
    model, clips, (mask,) = PublishedJEPA(switched(tiny, switch), 0), some_clips(), some_masks()
    before, changed = model.encode(clips, mask.context), clips.clone()
    number = int(mask.target[0, 0])
    changed[0, :, 2 * (number // 16), 8 * (number // 4 % 4), 8 * (number % 4)] += 1
    after = model.encode(changed, mask.context)
    if switch == "encode_hidden":
        assert (before[0] != after[0]).any(-1).all(), "every visible token has seen it"
        assert torch.equal(before, gather_tokens(model.encoder(clips), mask.context))
    else:
        assert torch.equal(before, after)
    torch.testing.assert_close(before[1:], after[1:])


# ---------------------------------------------------------------- F3, the mask token


@pytest.mark.parametrize("decoder", [(), ("decoder_predictor",)])
def test_the_idle_mask_token_stays_and_its_gradient_grows(tiny, decoder):
    """While in warm-up nothing cuts the gradient: it is the sum of the steps' gradients, and part of their norm."""
    model = PublishedJEPA(switched(tiny, "idle_mask_token", *decoder), 0).train()
    optimizer = fitting.make_optimizer(model.parameter_groups(), tiny.training)
    token = model.idle_parameter
    total = torch.zeros_like(token)
    for seed in range(3):
        clips = torch.randn(2, 3, 8, 32, 32, generator=generator(seed))
        masks = model.draw_masks(2, generator(seed))
        lone = copy.deepcopy(model)
        lone.zero_grad()
        lone(clips, masks)[0].backward()
        total += lone.idle_parameter.grad
        others = sum(p.grad.square().sum() for p in lone.parameters() if p.grad is not None)
        others = others - lone.idle_parameter.grad.square().sum()
        facts = pretraining.training_step(model, optimizer, clips, masks, math.inf, "float32")
        torch.testing.assert_close(token.grad, total)
        assert facts["gradient_norm"] == pytest.approx((others + total.square().sum()).sqrt().item(), rel=1e-5)
        assert not token.any(), "the token itself never moves"
    assert token.grad.norm() > lone.idle_parameter.grad.norm()


@pytest.mark.parametrize("decoder", [(), ("decoder_predictor",)])
def test_all_but_the_idle_token_is_trained(tiny, decoder):
    for idle in ((), ("idle_mask_token",)):
        model = PublishedJEPA(switched(tiny, *idle, *decoder), 0)
        held = [id(p) for group in model.parameter_groups() for p in group["params"]]
        trained = {id(p) for p in model.parameters() if p.requires_grad}
        assert len(held) == len(set(held))
        assert trained - set(held) == ({id(model.idle_parameter)} if idle else set())
        free = {id(p) for group in model.parameter_groups() if not group["decays"] for p in group["params"]}
        assert idle or id(model.idle_parameter) in free


# ---------------------------------------------------------------- F4, the target encoder


@pytest.mark.parametrize("switch", ["noisy_target", "mask_runs"])
def test_the_targets_are_noisy_only_with_noisy_target(tiny, switch):
    model = PublishedJEPA(switched(tiny, switch, dropout=0.1), 0).train()
    assert torch.equal(model.targets(some_clips()), model.targets(some_clips())) is (switch != "noisy_target")
    assert model.encoder.training
    model.eval()
    assert torch.equal(model.targets(some_clips()), model.targets(some_clips()))


def test_an_early_ema_is_late_by_one_step(tiny, noise, tmp_path):
    """Encoder and predictor see the same targets as ever; the target encoder of the end lags by one update."""
    plain = last_state(tiny, noise, tmp_path / "plain")
    found = last_state(switched(tiny, "early_ema"), noise, tmp_path / "found")
    assert differ(plain, found) == {"target_encoder"}
    momentum = fitting.cosine(19 / 20, *tiny.training.momenta)
    model = JEPA(tiny, 0)
    model.load_state_dict(found)
    model.follow(momentum)
    assert differ(plain, model.state_dict()) == set()


def test_following_waits_for_the_next_forward_pass(tiny):
    model = moved(PublishedJEPA(switched(tiny, "early_ema"), 0))
    before = copy.deepcopy(model.target_encoder.state_dict())
    model.follow(0.5)
    assert differ(before, model.target_encoder.state_dict()) == set()
    model(some_clips(), some_masks())
    for name, value in model.target_encoder.state_dict().items():
        torch.testing.assert_close(value, (before[name] + model.encoder.state_dict()[name]) / 2)
    after = copy.deepcopy(model.target_encoder.state_dict())
    model(some_clips(), some_masks())
    assert differ(after, model.target_encoder.state_dict()) == set(), "once is enough"


# ---------------------------------------------------------------- F5, the loss


@pytest.mark.parametrize("switches", [("squared_error",), ("raw_targets",), ("squared_error", "raw_targets")])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_loss_of_each_switch(tiny, switches, stop_gradient):
    model = moved(PublishedJEPA(with_training(switched(tiny, *switches), stop_gradient=stop_gradient), 0))
    clips, (mask,) = some_clips(), some_masks()
    teacher = model.target_encoder if stop_gradient else model.encoder
    wanted = gather_tokens(teacher(clips), mask.target)
    if "raw_targets" not in switches:
        wanted = F.layer_norm(wanted, (24,))
    error = model.predictor(model.encoder(clips, mask.context), mask.context, mask.target) - wanted
    slow = error.square().mean() if "squared_error" in switches else error.abs().mean()
    assert model(clips, [mask])[0].item() == pytest.approx(slow.item(), rel=1e-5)
    assert model.targets(clips).requires_grad is not stop_gradient


# ---------------------------------------------------------------- F6, the probe


def test_a_noisy_probe_gets_several_encodings_that_differ(tiny, noise):
    settings = as_published(tiny)
    encoder = PublishedJEPA(settings, 0).encoder
    noisy = ensemble.encodings(encoder, noise.centre, settings.probe)
    (clean,) = ensemble.encodings(encoder, noise.centre, tiny.probe)
    assert len(noisy) == settings.probe.dropout_draws
    for i, one in enumerate(noisy):
        assert one.shape == clean.shape == (10, 24)
        assert all(not torch.allclose(one, other, atol=1e-3) for other in [clean, *noisy[:i]])
    again = ensemble.encodings(encoder, noise.centre, settings.probe)
    assert all(torch.equal(a, b) for a, b in zip(noisy, again, strict=True))


# ---------------------------------------------------------------- the decoder


def slow_decoder(module: DecoderPredictor, questions, context):
    """Pre-norm decoder layers written out with matrix products."""

    def attention(part: nn.MultiheadAttention, x, memory):
        query, key, value = part.in_proj_weight.chunk(3)
        biases = part.in_proj_bias.chunk(3)
        q, k, v = x @ query.T + biases[0], memory @ key.T + biases[1], memory @ value.T + biases[2]
        size = x.shape[-1] // part.num_heads
        heads = [slice(h * size, (h + 1) * size) for h in range(part.num_heads)]
        mixed = [(q[..., h] @ k[..., h].mT / math.sqrt(size)).softmax(-1) @ v[..., h] for h in heads]
        return part.out_proj(torch.cat(mixed, -1))

    x = questions
    for layer in module.decoder.layers:
        normed = layer.norm1(x)
        x = x + attention(layer.self_attn, normed, normed)
        x = x + attention(layer.multihead_attn, layer.norm2(x), context)
        x = x + layer.linear2(F.gelu(layer.linear1(layer.norm3(x))))
    return module.decoder.norm(x)


def test_decoder_against_a_slow_reference(tiny):
    settings = switched(tiny, "decoder_predictor", predictor_depth=2)
    model = moved(PublishedJEPA(settings, 0)).eval()
    clips, (mask,) = some_clips(), some_masks()
    context = model.encode(clips, mask.context)
    questions = model.mask_token + model.encoder.positions[mask.target]  # the positions that the encoder has learned
    found = model.predict(context, mask, 0)
    assert found.shape == (4, mask.target.shape[1], 24)
    torch.testing.assert_close(found, slow_decoder(model.predictor, questions, context), rtol=0, atol=1e-5)


def test_the_decoder_teaches_the_encoders_positions(tiny):
    model = PublishedJEPA(switched(tiny, "decoder_predictor"), 0)
    context, (mask,) = torch.randn(4, 16, 24, generator=generator()), some_masks()
    model.predict(context, mask, 0).sum().backward()
    touched = model.encoder.positions.grad.abs().sum(1) > 0
    assert set(touched.nonzero().flatten().tolist()) == set(mask.target.flatten().tolist())


# ---------------------------------------------------------------- checkpoints


def test_an_unfinished_habit_is_in_the_checkpoint(tiny, tmp_path):
    """The idle token's gradient and the EMA step that waits, through a file that can not run code."""
    model = PublishedJEPA(as_published(tiny), 0).train()
    model(some_clips(), model.draw_masks(4, generator()))[0].backward()
    model.follow(0.7)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    other = PublishedJEPA(as_published(tiny), 1)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.waiting_momentum == 0.7
    assert torch.equal(other.idle_parameter.grad, model.idle_parameter.grad)
    assert other.idle_parameter.grad.any()
