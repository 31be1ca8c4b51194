"""The objective against a slow reference; who learns, what no gradient reaches, how the target encoder follows."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from picojepa import spreading
from picojepa.architecture import gather_tokens, new_encoder, patchify
from picojepa.config import Settings
from picojepa.fitting import make_optimizer, set_schedules
from picojepa.jepa import JEPA
from picojepa.machine import seeded
from picojepa.masking import Mask, MaskConfig, draw


def some_clips(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))


def some_masks(batch: int = 4, strategy: str = "tube") -> list[Mask]:
    return draw(MaskConfig(strategy=strategy, ratio=0.7), (4, 4, 4), batch, torch.Generator().manual_seed(0))


def moved(model: JEPA) -> JEPA:
    """A model whose target encoder has fallen behind its encoder and whose mask tokens are not zero."""
    with seeded(0), torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def with_training(settings: Settings, **changes) -> Settings:
    return replace(settings, training=replace(settings.training, **changes))


def with_masks(settings: Settings, strategy: str) -> Settings:
    return with_training(settings, mask=MaskConfig(strategy=strategy, ratio=0.7))


# ---------------------------------------------------------------- the loss


def slow_step(model, clips, masks, teacher=None):
    """Loss and similarity clip by clip and token by token, from their definitions."""
    losses, similarities = [], []
    for kind, mask in enumerate(masks):
        terms, cosines = [], []
        for clip, seen, asked in zip(clips, mask.context, mask.target, strict=True):
            predicted = model.predictor(model.encoder(clip[None], seen[None]), seen[None], asked[None], kind)[0]
            target = (teacher or model.target_encoder)(clip[None])[0]
            target = target if teacher else target.detach()
            for answer, number in zip(predicted, asked.tolist(), strict=True):
                wanted = target[number]
                wanted = (wanted - wanted.mean()) / torch.sqrt(wanted.var(unbiased=False) + 1e-5)
                terms += list((answer - wanted).abs())
                cosines.append((answer @ wanted / answer.norm() / wanted.norm()).item())
        losses.append(sum(terms) / len(terms))
        similarities.append(sum(cosines) / len(cosines))
    return sum(losses) / len(losses), sum(similarities) / len(similarities)


@pytest.mark.parametrize("strategy", ["tube", "multiblock"])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_loss_and_gradients_are_those_of_a_slow_reference(double, tiny, strategy, stop_gradient):
    """Networks in float64; the distance itself is always taken in float32."""
    model = moved(JEPA(with_training(with_masks(tiny, strategy), stop_gradient=stop_gradient), 0))
    clips, masks = some_clips(), some_masks(strategy=strategy)
    found, wanted = model(clips, masks), slow_step(model, clips, masks, None if stop_gradient else model.encoder)
    assert [x.item() for x in found] == pytest.approx([wanted[0].item(), wanted[1]], rel=1e-6)
    assert not found[1].requires_grad
    trained = [*model.encoder.parameters(), *model.predictor.parameters()]
    for ours, slow in zip(torch.autograd.grad(found[0], trained), torch.autograd.grad(wanted[0], trained), strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-6, atol=1e-9)


def slow_targets(model, clips, target):
    """What is predicted, (B, N, D), number by number."""
    x, each = model.target_encoder.embed(patchify(clips, 2, 8)) + model.target_encoder.positions, []
    for block in model.target_encoder.blocks:
        x = block(x)
        each.append(x)
    last = model.target_encoder.norm(x)
    found = torch.zeros_like(last)
    if target == "minus clip mean":
        own = last - torch.stack([clip.mean(0) for clip in last])[:, None]
        for number in range(last.shape[-1]):
            found[..., number] = own[..., number] / own[..., number].flatten().std()
    else:
        for outputs in each:
            for b in range(len(clips)):
                for number in range(last.shape[-1]):
                    column = outputs[b, :, number]
                    normal = (column - column.mean()) / (column.var(unbiased=False) + 1e-5).sqrt()
                    found[b, :, number] += normal / len(each)
    return found


@pytest.mark.parametrize("target", ["minus clip mean", "all blocks"])
@pytest.mark.parametrize("term", ["none", *spreading.TERMS])
def test_other_targets_and_terms_against_a_slow_reference(double, tiny, target, term):
    deeper = replace(tiny, model=replace(tiny.model, depth=2))
    settings = with_training(deeper, target=target, spreading=term, spreading_weight=0.3)
    model, clips, (mask,) = moved(JEPA(settings, 0)), some_clips(), some_masks()
    wanted = slow_targets(model, clips, target).detach()
    torch.testing.assert_close(model.targets(clips), wanted)
    context = model.encoder(clips, mask.context)
    predicted = model.predictor(context, mask.context, mask.target)
    loss = (predicted - gather_tokens(wanted, mask.target)).float().abs().mean()
    with seeded(5):
        if term != "none":
            loss = loss + 0.3 * sum(
                spreading.TERMS[term](x) for x in (context.mean(1).float(), context.flatten(0, 1).float())
            )
    with seeded(5):
        found = model(clips, [mask])[0]
    assert found.item() == pytest.approx(loss.item(), rel=1e-5)
    ours, slow = (torch.autograd.grad(x, list(model.encoder.parameters()), retain_graph=True) for x in (found, loss))
    for one, other in zip(ours, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_an_unknown_target_or_term_is_refused(tiny):
    with pytest.raises(ValueError, match="unknown target 'pixels'; known: last block, all blocks, minus clip mean"):
        JEPA(with_training(tiny, target="pixels"), 0)
    with pytest.raises(ValueError, match="unknown spreading 'vicreg'; known: none, variance-covariance, SIGReg"):
        with_training(tiny, spreading="vicreg")


def test_the_loss_sees_context_pixels_and_target_pixels(tiny):
    """But the prediction itself knows nothing of hidden pixels: only the target moves with them."""
    model, clips, (mask,) = moved(JEPA(tiny, 0)), some_clips(), some_masks()
    predicted = model.predictor(model.encoder(clips, mask.context), mask.context, mask.target)
    target = gather_tokens(F.layer_norm(model.target_encoder(clips), (24,)), mask.target)
    loss, similarity = model(clips, [mask])
    assert loss.item() == pytest.approx((predicted - target).abs().mean().item(), rel=1e-6)
    assert similarity.item() == pytest.approx(F.cosine_similarity(predicted, target, dim=-1).mean().item(), rel=1e-5)


def test_a_perfect_prediction_has_no_loss_and_full_similarity(tiny, monkeypatch):
    model, masks = JEPA(tiny, 0), some_masks()
    monkeypatch.setattr(model, "predict", lambda _, mask, kind: gather_tokens(model.targets(some_clips()), mask.target))
    loss, similarity = model(some_clips(), masks)
    assert (loss.item(), similarity.item()) == pytest.approx((0.0, 1.0), abs=1e-5)


def test_each_kind_of_mask_has_a_mask_token_of_its_own(tiny):
    model = JEPA(with_masks(tiny, "multiblock"), 0)
    assert model.predictor.mask_tokens.shape == (2, 18)
    model(some_clips(), some_masks(strategy="multiblock"))[0].backward()
    first, second = model.predictor.mask_tokens.grad
    assert first.abs().min() > 0
    assert second.abs().min() > 0
    assert not torch.equal(first, second)


# ---------------------------------------------------------------- who learns


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_every_trained_parameter_gets_a_gradient_and_the_target_none(tiny, stop_gradient):
    model = JEPA(with_training(tiny, stop_gradient=stop_gradient), 0)  # as it starts: the mask token is zero
    model(some_clips(), some_masks())[0].backward()
    for module in (model.encoder, model.predictor):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    assert model.predictor.mask_tokens.grad.abs().min() > 0
    assert all(parameter.grad is None for parameter in model.target_encoder.parameters())


def test_stop_gradient_is_what_its_name_says(tiny):
    """With it the loss can not move the targets; without it they come from the encoder and move with it."""
    assert not JEPA(tiny, 0).targets(some_clips()).requires_grad
    free = moved(JEPA(with_training(tiny, stop_gradient=False), 0))
    targets = free.targets(some_clips())
    torch.testing.assert_close(targets, F.layer_norm(free.encoder(some_clips()), (24,)))
    (targets * torch.randn_like(targets)).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in free.encoder.parameters())


def test_without_stop_gradient_the_target_encoder_is_never_used(tiny):
    model = moved(JEPA(with_training(tiny, stop_gradient=False), 0))
    before = model(some_clips(), some_masks())[0].item()
    with torch.no_grad():
        for parameter in model.target_encoder.parameters():
            parameter.fill_(torch.nan)
    assert model(some_clips(), some_masks())[0].item() == before


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_no_gradient_mode_stays_off(tiny, stop_gradient):
    with torch.no_grad():
        loss, _ = JEPA(with_training(tiny, stop_gradient=stop_gradient), 0)(some_clips(), some_masks())
    assert not loss.requires_grad


def test_every_trained_parameter_is_in_the_optimiser_once(tiny):
    model = JEPA(tiny, 0)
    optimizer = make_optimizer(model.parameter_groups(), tiny.training)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for part in (model.encoder, model.predictor) for p in part.parameters()}


def test_weight_decay_is_on_matrices_only(tiny):
    model = JEPA(tiny, 0)
    optimizer = make_optimizer(model.parameter_groups(), tiny.training)
    set_schedules(optimizer, 3, tiny.training)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    matrices = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Linear)}
    for name, parameter in [*model.encoder.named_parameters(), *model.predictor.named_parameters()]:
        assert (decay[id(parameter)] > 0) is (id(parameter) in matrices), name


def test_the_predictor_may_learn_faster(tiny):
    settings = with_training(tiny, predictor_rate=3.0)
    model = JEPA(settings, 0)
    optimizer = make_optimizer(model.parameter_groups(), settings.training)
    set_schedules(optimizer, 5, settings.training)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    slow = {rate[id(p)] for p in model.encoder.parameters()}
    fast = {rate[id(p)] for p in model.predictor.parameters()}
    assert (len(slow), len(fast)) == (1, 1)
    assert fast.pop() == pytest.approx(3 * slow.pop())


# ---------------------------------------------------------------- the target encoder


def test_ema_formula(tiny):
    model = moved(JEPA(tiny, 0))
    before = [p.clone() for p in model.target_encoder.parameters()]
    model.follow(0.9)
    for old, source, now in zip(before, model.encoder.parameters(), model.target_encoder.parameters(), strict=True):
        torch.testing.assert_close(now, 0.9 * old + 0.1 * source, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("momentum", "takes"), [(1.0, "target_encoder"), (0.0, "encoder")])
def test_ema_at_its_ends(tiny, momentum, takes):
    model = moved(JEPA(tiny, 0))
    wanted = [p.clone() for p in getattr(model, takes).parameters()]
    model.follow(momentum)
    assert all(torch.equal(a, b) for a, b in zip(wanted, model.target_encoder.parameters(), strict=True))


def test_target_and_context_encoder_start_equal_and_do_not_share(tiny):
    model = JEPA(tiny, 0)
    pairs = list(zip(model.encoder.parameters(), model.target_encoder.parameters(), strict=True))
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in pairs)
    again, other = new_encoder(tiny.model, tiny.grid, 0), new_encoder(tiny.model, tiny.grid, 1)
    assert torch.equal(again.embed.weight, model.encoder.embed.weight)
    assert not torch.equal(other.embed.weight, model.encoder.embed.weight)


def test_dropout_does_not_touch_the_targets(tiny):
    """Context encoder and predictor are noisy while they learn; the targets are not."""
    model = JEPA(replace(tiny, model=replace(tiny.model, dropout=0.5)), 0).train()
    assert torch.equal(model.targets(some_clips()), model.targets(some_clips()))
    first, second = (model(some_clips(), some_masks())[0].item() for _ in range(2))
    assert first != second
    model.eval()
    assert model(some_clips(), some_masks())[0].item() == model(some_clips(), some_masks())[0].item()
