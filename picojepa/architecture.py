"""The three networks of a JEPA: context encoder, target encoder (the same class) and predictor.

Letters: B clips, C channels, T frames, H, W pixels, N tokens, D width of the encoder, P width of the predictor.

Book: chapter 3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picojepa import require, require_whole
from picojepa.machine import seeded
from picojepa.masking import Grid

LONG_SEQUENCE = {torch.bfloat16: 1024, torch.float32: 128}  # tokens; beyond them the fused attention kernel is better
CHANNELS = 16  # of the first of three convolutions in a patch; each has twice as many as the one before
STRIDES = (2, 2, 1)  # of the three; a first one at full size costs four times as much (LOG.md)
SCORES_AT_A_TIME = 1_250_000  # attention scores that are computed together on a CPU


@dataclass(frozen=True)
class ModelConfig:
    """Geometry of encoder and predictor; tokens form a grid (T / tubelet, H / patch, W / patch)."""

    patch: int = 16  # pixels, height and width of a patch
    tubelet: int = 2  # frames per token
    width: int = 128  # D, numbers per token
    depth: int = 4  # encoder blocks
    heads: int = 4
    mlp_ratio: float = 3.0
    predictor_width: int = 64
    predictor_depth: int = 2
    predictor_heads: int = 4
    dropout: float = 0.0  # probability, in encoder and predictor
    embedding: str = "linear"  # from pixels to tokens, a name in EMBEDDINGS
    first_weights: float | None = 0.02  # their deviation in V-JEPA; None: PyTorch's own

    def __post_init__(self) -> None:
        require_whole(self, "patch", "tubelet", "depth", "heads", "predictor_depth", "predictor_heads")
        require(self.mlp_ratio > 0, f"mlp_ratio must be above 0, not {self.mlp_ratio}")
        deviation = self.first_weights
        require(deviation is None or deviation > 0, f"first_weights must be above 0 or None, not {deviation}")
        require(0 <= self.dropout < 1, f"dropout must lie in [0, 1), not {self.dropout}")
        known = ", ".join(EMBEDDINGS)
        require(self.embedding in EMBEDDINGS, f"unknown embedding {self.embedding!r}; known: {known}")
        if self.embedding == "convolutions":
            require(self.patch % 4 == 0, f"convolutions halve a patch twice; {self.patch} pixels do not divide by 4")
        for width, heads in ((self.width, self.heads), (self.predictor_width, self.predictor_heads)):
            require(width >= 6 and width % 2 == 0, f"a width of {width} has no room for 3-D sine-cosine positions")
            require(width % heads == 0, f"a width of {width} does not divide into {heads} heads")


def patchify(clips: Tensor, tubelet: int, patch: int) -> Tensor:
    """Cut clips, (B, C, T, H, W), into tubelets of some frames and patch x patch pixels, and flatten each.

    Returns (B, N, C * tubelet * patch * patch) with tokens in the order (time, row, column).
    """
    batch, channels, frames, height, width = clips.shape
    grid = clips.reshape(batch, channels, frames // tubelet, tubelet, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, -1, channels * tubelet * patch * patch)  # (B, N, pixels)


class PatchConvolutions(nn.Module):
    """Three convolutions inside every tubelet, then a linear layer: its pixels, (B, N, pixels) -> (B, N, D).

    Nothing goes from one tubelet to another, or what is visible would hold something of what is hidden.

    Source: Xiao et al. 2021 ("Early convolutions help Transformers see better"), there over the whole image.
    The norm of every layer is over one tubelet.
    """

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.shape, widths = (3 * model.tubelet, model.patch, model.patch), [CHANNELS * 2**i for i in range(3)]
        layers: list[nn.Module] = []
        for entering, leaving, stride in zip((self.shape[0], *widths[:2]), widths, STRIDES, strict=True):
            layers += [nn.Conv2d(entering, leaving, 3, stride, 1, bias=False), nn.GroupNorm(1, leaving), nn.GELU()]
        last = widths[-1] * (model.patch // 4) ** 2
        self.convolutions = nn.Sequential(*layers)
        self.norm, self.linear = nn.LayerNorm(last), nn.Linear(last, model.width)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, N, C * tubelet * patch * patch), as `patchify` gives it -> (B, N, D); frames count as channels."""
        found = self.convolutions(pixels.flatten(0, 1).unflatten(1, self.shape))
        return self.linear(self.norm(found.flatten(1))).unflatten(0, pixels.shape[:2])


# Embedding -> what makes tokens, (B, N, D), of the pixels of tubelets, (B, N, pixels).
EMBEDDINGS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "linear": lambda model: nn.Linear(3 * model.tubelet * model.patch**2, model.width),
    "convolutions": PatchConvolutions,
}


def sine_cosine_positions(grid: Grid, width: int) -> Tensor:
    """Fixed positions, (N, width): for each axis a share of the width, half sines and half cosines.

    Source: V-JEPA section 3 ("3-D sine-cosine positional embeddings"). Book: chapter 3.
    """
    side = width // 6 * 2  # rows and columns get a third each, time the rest
    sizes = (width - 2 * side, side, side)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid), indexing="ij")
    parts = []
    for size, axis in zip(sizes, axes, strict=True):
        frequency = 10_000.0 ** -(torch.arange(size // 2) / (size // 2))
        angle = axis.reshape(-1, 1) * frequency  # (N, size / 2)
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=1)


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """Attention: every query gets a mean of the values, weighted by how well it fits their keys.

    All shapes are (B, heads, N, D / heads); ``dropout`` is the probability that a weight is set to zero. PyTorch's
    fused kernel does this. On CPUs, for sequences as short as here, plain matrix products can be faster, most of all
    in bfloat16: some heads at a time, so that their scores stay in the processor's cache.

    Source: V-JEPA's Vision Transformer; the measurements are in LOG.md. Book: chapter 3.
    """
    tokens, size = query.shape[-2:]
    if query.is_cuda or dropout or tokens > LONG_SEQUENCE.get(query.dtype, 128):
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    heads = max(1, SCORES_AT_A_TIME // tokens**2)
    parts = zip(*(x.reshape(-1, tokens, size).split(heads) for x in (query * size**-0.5, key, value)), strict=True)
    return torch.cat([(q @ k.transpose(1, 2)).softmax(-1) @ v for q, k, v in parts]).reshape(query.shape)


class Attention(nn.Module):
    """Multi-head self-attention over all tokens of a clip: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Let every token look at every other token of its clip."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D / heads)
        mixed = attend(query, key, value, self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """Pre-norm Transformer block: attention, then a two-layer network, each with a residual."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


def gather_tokens(x: Tensor, numbers: Tensor) -> Tensor:
    """Pick tokens by number: (B, N, D) and (B, M) -> (B, M, D)."""
    return x.gather(1, numbers.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class Encoder(nn.Module):
    """Vision Transformer over tubelets; context encoder and target encoder are both of this class.

    Source: pico-JEPA section 3; 3 413 568 parameters in the paper's geometry. Book: chapter 3.
    """

    def __init__(self, model: ModelConfig, grid: Grid) -> None:
        super().__init__()
        self.patch, self.tubelet = model.patch, model.tubelet
        self.embed = EMBEDDINGS[model.embedding](model)
        self.positions = nn.Parameter(sine_cosine_positions(grid, model.width))  # learned, from a fixed start
        self.blocks = nn.ModuleList(
            Block(model.width, model.heads, model.mlp_ratio, model.dropout) for _ in range(model.depth)
        )
        self.norm = nn.LayerNorm(model.width)
        initialise(self, model.first_weights)

    def forward(self, clips: Tensor, keep: Tensor | None = None, each: list[Tensor] | None = None) -> Tensor:
        """Encode normalised clips, (B, 3, T, H, W); hidden tokens are dropped before the first block.

        To a list ``each`` the output of every block is added, (B, M, D).

        Returns (B, M, D) for the tokens with the numbers ``keep``, (B, M), or (B, N, D) for all of them.

        Raises:
            ValueError: the clips give another number of tokens than the positions.
        """
        x = patchify(clips, self.tubelet, self.patch)  # (B, N, pixels)
        if x.shape[1] != len(self.positions):
            made = f"this encoder was made for {len(self.positions)}"
            raise ValueError(f"clips of shape {tuple(clips.shape)} give {x.shape[1]} tokens; {made}")
        positions = self.positions.expand(len(x), -1, -1)  # (B, N, D)
        if keep is not None:
            x, positions = gather_tokens(x, keep), gather_tokens(positions, keep)  # (B, M, ...)
        x = self.embed(x) + positions
        for block in self.blocks:
            x = block(x)
            if each is not None:
                each.append(x)
        return self.norm(x)


class Predictor(nn.Module):
    """Narrow Transformer that guesses the target's features from the context's features.

    Source: V-JEPA section 3 (narrow predictor, mask token, fixed positions). Book: chapter 3.
    """

    positions: Tensor

    def __init__(self, model: ModelConfig, grid: Grid, masks_per_clip: int = 1) -> None:
        super().__init__()
        self.enter = nn.Linear(model.width, model.predictor_width)
        self.mask_tokens = nn.Parameter(torch.zeros(masks_per_clip, model.predictor_width))
        self.register_buffer("positions", sine_cosine_positions(grid, model.predictor_width))
        self.blocks = nn.ModuleList(
            Block(model.predictor_width, model.predictor_heads, model.mlp_ratio, model.dropout)
            for _ in range(model.predictor_depth)
        )
        self.norm = nn.LayerNorm(model.predictor_width)
        self.leave = nn.Linear(model.predictor_width, model.width)
        initialise(self, model.first_weights)

    def forward(self, context: Tensor, context_numbers: Tensor, target_numbers: Tensor, kind: int = 0) -> Tensor:
        """Predict the features, (B, K, D), of hidden tokens.

        Args:
            context: encoded visible tokens, (B, M, D).
            context_numbers: where they are, (B, M).
            target_numbers: which tokens to predict, (B, K).
            kind: which of the masks on the same clip this is; each has its own mask token.
        """
        x = self.enter(context) + self.positions[context_numbers]  # (B, M, P)
        questions = self.mask_tokens[kind] + self.positions[target_numbers]  # (B, K, P)
        x = torch.cat([x, questions], dim=1)  # (B, M + K, P)
        for block in self.blocks:
            x = block(x)
        return self.leave(self.norm(x[:, context.shape[1] :]))


def initialise(module: nn.Module, deviation: float | None) -> None:
    """Truncated normal weights of a standard deviation, and no biases, in every linear layer; None: leave them."""
    if deviation is None:
        return
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)


def new_encoder(model: ModelConfig, grid: Grid, seed: int) -> Encoder:
    """An untrained encoder; the same seed gives the same weights."""
    with seeded(seed):
        return Encoder(model, grid)


def parameter_count(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
