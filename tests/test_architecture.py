"""The networks against slow references and PyTorch's own; what the context encoder can not see."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from picojepa import architecture
from picojepa.architecture import (
    Attention,
    Block,
    Encoder,
    PatchConvolutions,
    Predictor,
    attend,
    gather_tokens,
    parameter_count,
    patchify,
    sine_cosine_positions,
)
from picojepa.config import settings
from picojepa.masking import tube
from picojepa.probing import LinearHead


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def encoder(tiny):
    """Double precision, with biases and norms that are not at their trivial start."""
    encoder = Encoder(tiny.model, tiny.grid).double()
    shake(encoder)
    return encoder


@pytest.fixture(params=architecture.EMBEDDINGS)
def either(tiny, request):
    """Such an encoder with each of the embeddings."""
    encoder = Encoder(replace(tiny.model, embedding=request.param), tiny.grid).double()
    shake(encoder)
    return encoder


def shake(module: nn.Module) -> None:
    """Give every parameter a value of its own."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


# ---------------------------------------------------------------- pieces


def test_patchify_against_loops():
    clips = torch.randn(2, 3, 4, 6, 9)
    found = patchify(clips, tubelet=2, patch=3)
    assert found.shape == (2, 2 * 2 * 3, 3 * 2 * 3 * 3)
    number = 0
    for t in range(2):
        for row in range(2):
            for column in range(3):
                cube = clips[:, :, 2 * t : 2 * t + 2, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
                assert torch.equal(found[:, number], cube.reshape(2, -1))
                number += 1


@pytest.mark.parametrize("width", [6, 20, 64, 192])
def test_positions_against_loops(width):
    grid = (2, 3, 4)
    found = sine_cosine_positions(grid, width)
    side = width // 6 * 2
    wanted = []
    for t, row, column in np.ndindex(grid):
        numbers = []
        for size, place in ((width - 2 * side, t), (side, row), (side, column)):
            frequencies = [10_000 ** (-k / (size // 2)) for k in range(size // 2)]
            numbers += [math.sin(place * f) for f in frequencies] + [math.cos(place * f) for f in frequencies]
        wanted.append(numbers)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)
    assert len(torch.unique(found, dim=0)) == 24, "two places share their position"


def test_gather_tokens_against_loops():
    x, numbers = torch.randn(3, 7, 2), torch.randint(7, (3, 4))
    for clip in range(3):
        for place in range(4):
            assert torch.equal(gather_tokens(x, numbers)[clip, place], x[clip, numbers[clip, place]])


@pytest.mark.parametrize(("width", "heads"), [(12, 1), (12, 3), (32, 8)])
def test_attention_is_pytorchs(width, heads):
    ours = Attention(width, heads).double()
    shake(ours)
    theirs = nn.MultiheadAttention(width, heads, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(2, 5, width, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0], rtol=0, atol=1e-12)


def queries(tokens: int, heads: int = 3, size: int = 4, dtype=torch.float64) -> list[torch.Tensor]:
    """Query, key and value, (2, heads, tokens, size)."""
    return [torch.randn(2, heads, tokens, size, dtype=dtype, requires_grad=True) for _ in range(3)]


def attended(how, given) -> list[torch.Tensor]:
    """What comes out, and the gradients of what went in."""
    out = how(*given)
    slopes = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * slopes).sum(), given)]


@pytest.mark.parametrize("at_a_time", [1, 50, 99, 1_250_000], ids=["head by head", "two", "four", "all at once"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_attend_is_pytorchs(monkeypatch, at_a_time, dtype, tolerance):
    monkeypatch.setattr(architecture, "SCORES_AT_A_TIME", at_a_time)
    given = queries(5, dtype=dtype)  # 25 scores for each of six heads
    for ours, theirs in zip(attended(attend, given), attended(F.scaled_dot_product_attention, given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def test_attend_in_bfloat16_is_as_exact_as_pytorchs():
    given = queries(64, size=16, dtype=torch.bfloat16)
    exact = attended(F.scaled_dot_product_attention, [x.detach().double().requires_grad_() for x in given])
    theirs = attended(F.scaled_dot_product_attention, given)
    for ours, other, wanted in zip(attended(attend, given), theirs, exact, strict=True):
        assert ours.dtype is torch.bfloat16
        assert (ours - wanted).norm() < 0.02 * wanted.norm()
        assert (ours - wanted).norm() < 2 * (other - wanted).norm()


@pytest.mark.parametrize(
    ("tokens", "dtype", "dropout", "fused"),
    [
        (128, torch.float32, 0.0, False),
        (129, torch.float32, 0.0, True),
        (257, torch.bfloat16, 0.0, False),
        (8, torch.float32, 0.1, True),
    ],
)
def test_attend_leaves_long_sequences_and_dropout_to_pytorch(monkeypatch, tokens, dtype, dropout, fused):
    asked, kernel = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: asked.append(k) or kernel(*a, **k))
    attend(*queries(tokens, 1, dtype=dtype), dropout)
    assert asked == ([{"dropout_p": dropout}] if fused else [])


def test_a_block_is_pytorchs_pre_norm_layer():
    ours = Block(12, 3, 3.0).double()
    shake(ours)
    theirs = nn.TransformerEncoderLayer(12, 3, 36, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64)
    named = {"self_attn.in_proj_": ours.attention.qkv, "self_attn.out_proj.": ours.attention.out}
    named |= {"linear1.": ours.mlp[0], "linear2.": ours.mlp[2], "norm1.": ours.norm1, "norm2.": ours.norm2}
    theirs.load_state_dict({f"{n}{k}": v for n, layer in named.items() for k, v in layer.state_dict().items()})
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)


def test_dropout_is_random_while_training_and_off_otherwise():
    """Three places: the attention's weights and both residuals."""
    plain, noisy, x = Block(12, 3, 3.0), Block(12, 3, 3.0, dropout=0.5), torch.randn(2, 5, 12)
    noisy.load_state_dict(plain.state_dict())
    assert not torch.allclose(noisy(x), noisy(x), atol=1e-3)
    assert not torch.allclose(noisy.attention(x), noisy.attention(x), atol=1e-3)
    noisy.eval()
    assert torch.equal(noisy(x), plain(x))
    noisy.dropout.p, silent = 1.0, noisy.train()
    assert torch.equal(silent(x), x), "without its residuals a block does nothing"


def test_the_encoder_and_the_predictor_use_the_dropout_of_their_settings(tiny):
    noisy = replace(tiny.model, dropout=0.25)
    for network in (Encoder(noisy, tiny.grid), Predictor(noisy, tiny.grid)):
        assert {(block.dropout.p, block.attention.dropout) for block in network.blocks} == {(0.25, 0.25)}


def slow_norm(x, norm):
    """Layer normalisation of one token, from its definition."""
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-5) * norm.weight + norm.bias


def slow_block(x, block):
    """A pre-norm block for one clip (N, D), head by head and token by token."""
    tokens, width = x.shape
    heads = block.attention.heads
    size = width // heads
    normed = torch.stack([slow_norm(token, block.norm1) for token in x])
    weight, bias = block.attention.qkv.weight, block.attention.qkv.bias
    query, key, value = ((normed @ weight[i : i + width].T + bias[i : i + width]) for i in (0, width, 2 * width))
    mixed = torch.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(tokens):
            scores = torch.stack([query[i, part] @ key[j, part] for j in range(tokens)]) / math.sqrt(size)
            share = scores.exp() / scores.exp().sum()
            mixed[i, part] = sum(share[j] * value[j, part] for j in range(tokens))
    x = x + mixed @ block.attention.out.weight.T + block.attention.out.bias
    rows = []
    for token in x:
        inner = block.mlp[0].weight @ slow_norm(token, block.norm2) + block.mlp[0].bias
        inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        rows.append(token + block.mlp[2].weight @ inner + block.mlp[2].bias)
    return torch.stack(rows)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_block_against_a_slow_reference(heads):
    block = Block(8, heads, 3.0).double()
    shake(block)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(block(x), torch.stack([slow_block(clip, block) for clip in x]), rtol=0, atol=1e-12)


def test_encoder_against_a_slow_reference(tiny, encoder):
    clips = torch.randn(2, 3, 8, 32, 32, dtype=torch.float64)
    keep = torch.stack([torch.randperm(64)[:6] for _ in range(2)])
    wanted = []
    for clip, numbers in zip(clips, keep.tolist(), strict=True):
        tokens = []
        for number in numbers:
            t, row, column = number // 16, number // 4 % 4, number % 4
            cube = clip[:, 2 * t : 2 * t + 2, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            tokens.append(encoder.embed.weight @ cube.flatten() + encoder.embed.bias + encoder.positions[number])
        x = torch.stack(tokens)
        for block in encoder.blocks:
            x = slow_block(x, block)
        wanted.append(torch.stack([slow_norm(token, encoder.norm) for token in x]))
    torch.testing.assert_close(encoder(clips, keep), torch.stack(wanted), rtol=0, atol=1e-11)


def slow_convolution(image, layer):
    """A 3 x 3 convolution of an image (C, H, W) with a border of zeros, place by place."""
    padded, stride = F.pad(image, (1, 1, 1, 1)), layer.stride[0]
    places = range(0, image.shape[1], stride)
    rows = [
        [torch.einsum("chw,ochw->o", padded[:, i : i + 3, j : j + 3], layer.weight) for j in places] for i in places
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def test_convolutions_in_a_patch_against_a_slow_reference(tiny):
    embed = PatchConvolutions(tiny.model).double()
    shake(embed)
    clips = torch.randn(1, 3, 4, 16, 8, dtype=torch.float64)  # 2 x 2 x 1 tubelets of 2 x 8 x 8 pixels
    wanted = []
    for t, row in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        x = clips[0, :, 2 * t : 2 * t + 2, 8 * row : 8 * row + 8].reshape(6, 8, 8)
        for layer, norm in zip(embed.convolutions[::3], embed.convolutions[1::3], strict=True):
            x = slow_convolution(x, layer)
            x = (x - x.mean()) / (x.var(correction=0) + norm.eps).sqrt()  # over one tubelet
            x = F.gelu(x * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1))
        wanted.append(embed.linear.weight @ slow_norm(x.flatten(), embed.norm) + embed.linear.bias)
    torch.testing.assert_close(embed(patchify(clips, 2, 8)), torch.stack(wanted)[None], rtol=0, atol=1e-11)


def test_an_encoder_has_the_embedding_that_was_asked_for(tiny):
    for name, kind in (("linear", nn.Linear), ("convolutions", PatchConvolutions)):
        assert isinstance(Encoder(replace(tiny.model, embedding=name), tiny.grid).embed, kind)


def test_an_embedding_that_does_not_fit_is_refused(tiny):
    with pytest.raises(ValueError, match="unknown embedding 'quadratic'; known: linear, convolutions"):
        replace(tiny.model, embedding="quadratic")
    with pytest.raises(ValueError, match="6 pixels do not divide by 4"):
        replace(tiny.model, embedding="convolutions", patch=6)


@pytest.mark.parametrize("kind", [0, 1])
def test_predictor_against_a_slow_reference(tiny, kind):
    predictor = Predictor(tiny.model, tiny.grid, masks_per_clip=2).double()
    shake(predictor)
    context = torch.randn(2, 3, 24, dtype=torch.float64)
    seen, asked = torch.tensor([[0, 9, 40], [5, 6, 63]]), torch.tensor([[1, 30], [2, 61]])
    for clip in range(2):
        places = predictor.positions
        x = [predictor.enter(token) + places[i] for token, i in zip(context[clip], seen[clip], strict=True)]
        x = torch.stack([*x, *(predictor.mask_tokens[kind] + places[i] for i in asked[clip])])
        for block in predictor.blocks:
            x = slow_block(x, block)
        wanted = torch.stack([predictor.leave(slow_norm(token, predictor.norm)) for token in x[3:]])
        torch.testing.assert_close(predictor(context, seen, asked, kind)[clip], wanted, rtol=0, atol=1e-11)


# ---------------------------------------------------------------- what each sees


def paint_tokens(clips, numbers, change):
    """Change the pixels of some tokens, (B, M), of 4 x 4 x 4 tokens of 2 x 8 x 8 pixels."""
    clips = clips.clone()
    for clip, row in zip(clips, numbers.tolist(), strict=True):
        for number in row:
            t, y, x = number // 16, number // 4 % 4, number % 4
            clip[:, 2 * t : 2 * t + 2, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] += change
    return clips


def test_hidden_pixels_do_not_reach_the_context(either):
    clips = torch.randn(3, 3, 8, 32, 32, dtype=torch.float64)
    mask = tube((4, 4, 4), 0.75, 3, torch.Generator().manual_seed(0))
    before = either(clips, mask.context)
    assert before.shape == (3, mask.context.shape[1], 24)
    assert torch.equal(before, either(paint_tokens(clips, mask.target, 5.0), mask.context))
    one_visible = paint_tokens(clips, mask.context[:, :1], 0.1)
    assert (before != either(one_visible, mask.context)).all(dim=-1).all(), "every token sees every visible one"


def test_no_gradient_reaches_hidden_pixels(either):
    clips = torch.randn(2, 3, 8, 32, 32, dtype=torch.float64, requires_grad=True)
    mask = tube((4, 4, 4), 0.75, 2, torch.Generator().manual_seed(0))
    either(clips, mask.context).square().sum().backward()
    strength = patchify(clips.grad.abs(), 2, 8).sum(-1)  # (B, N)
    assert (strength.gather(1, mask.target) == 0).all()
    assert (strength.gather(1, mask.context) > 0).all()


def test_keeping_all_tokens_is_keeping_none_back(either):
    clips = torch.randn(2, 3, 8, 32, 32, dtype=torch.float64)
    order = torch.stack([torch.randperm(64) for _ in range(2)])
    everything = either(clips)
    torch.testing.assert_close(either(clips, order), gather_tokens(everything, order), rtol=0, atol=1e-12)


def test_the_predictor_answers_where_it_is_asked(tiny):
    predictor = Predictor(tiny.model, tiny.grid)
    shake(predictor)
    context, seen = torch.randn(1, 4, 24), torch.tensor([[0, 1, 2, 3]])
    answers = predictor(context, seen, torch.tensor([[10, 20]]))
    swapped = predictor(context, seen, torch.tensor([[20, 10]]))
    assert answers.shape == (1, 2, 24)
    torch.testing.assert_close(answers, swapped.flip(1), rtol=0, atol=1e-5)
    assert not torch.allclose(answers[:, 0], answers[:, 1], atol=1e-3)


def test_clips_of_another_size_are_refused(encoder):
    message = r"clips of shape \(1, 3, 8, 16, 16\) give 16 tokens; this encoder was made for 64"
    with pytest.raises(ValueError, match=message):
        encoder(torch.zeros(1, 3, 8, 16, 16, dtype=torch.float64))


# ---------------------------------------------------------------- counts


def test_the_papers_encoder_has_3_413_568_parameters_and_784_tokens():
    paper = settings("paper", "vjepa")
    with torch.device("meta"):
        encoder = Encoder(paper.model, paper.grid)
    assert parameter_count(encoder) == 3_413_568
    assert len(encoder.positions) == 784


def test_a_head_of_the_paper_has_772_parameters():
    assert parameter_count(LinearHead(settings("paper").model.width, 4)) == 772


def test_parameter_count_leaves_out_what_is_frozen():
    layer = nn.Linear(3, 4)
    layer.bias.requires_grad_(False)
    assert parameter_count(layer) == 12


@pytest.mark.parametrize("deviation", [0.02, 0.1])
def test_weights_start_small_and_biases_at_zero(tiny, deviation):
    model = replace(tiny.model, width=96, heads=4, first_weights=deviation)
    for network in (Encoder(model, tiny.grid), Predictor(model, tiny.grid)):
        linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        assert len(linear) > 4 * len(network.blocks)
        for layer in linear:
            assert not layer.bias.any()
            assert layer.weight.std().item() == pytest.approx(deviation, rel=0.08)


def test_first_weights_may_be_pytorchs_own(tiny):
    encoder = Encoder(replace(tiny.model, width=96, heads=4, first_weights=None), tiny.grid)
    for block in encoder.blocks:
        assert block.attention.out.weight.std().item() == pytest.approx((3 * 96) ** -0.5, rel=0.05)
        assert block.attention.out.bias.any()
    with pytest.raises(ValueError, match="first_weights must be above 0 or None, not 0"):
        replace(tiny.model, first_weights=0)
