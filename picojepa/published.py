"""The recipe ``published``: the pieces in which pico-JEPA's published code differs from V-JEPA, each a named switch.

`picojepa.config.SWITCHES` lists the switches; with none of them the model below is `picojepa.jepa.JEPA`.

Source: pico-JEPA's published code, as found by reading and running it. Book: chapter 4.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picojepa.architecture import ModelConfig, gather_tokens
from picojepa.config import Settings
from picojepa.jepa import JEPA
from picojepa.machine import seeded
from picojepa.masking import Grid, Mask, MaskConfig, tube


def runs(grid: Grid, config: MaskConfig, batch: int, generator: torch.Generator) -> Mask:
    """What was meant as a tube: every cell is repeated along the wrong axis of the token order (F1).

    A hidden cell k hides the tokens k * T' to k * T' + T' - 1 of the order (time, row, column): a run
    of T' neighbours in one time slice, where a tube hides one place in T' slices.
    """
    slices, rows, columns = grid
    cells = tube((1, rows, columns), config.ratio, batch, generator)
    copies = torch.arange(slices)
    return Mask(*((numbers.unsqueeze(-1) * slices + copies).flatten(1) for numbers in (cells.context, cells.target)))


class DecoderPredictor(nn.Module):
    """Transformer decoder as wide as the encoder: mask tokens look at each other and at the context.

    Source: pico-JEPA's published code; 1 039 488 parameters in the paper's geometry.
    """

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        sizes = model.width, model.predictor_heads, int(model.width * model.mlp_ratio)
        layer = nn.TransformerDecoderLayer(*sizes, model.dropout, "gelu", batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoder(layer, model.predictor_depth, nn.LayerNorm(model.width))

    def forward(self, questions: Tensor, context: Tensor) -> Tensor:
        """Answer the questions (B, K, D) from the context (B, M, D): (B, K, D)."""
        return self.decoder(questions, context)


class PublishedJEPA(JEPA):
    """A JEPA with the published code's habits, as far as they are switched on."""

    predictor: Any

    def __init__(self, settings: Settings, seed: int) -> None:
        super().__init__(settings, seed)
        self.waiting_momentum: float | None = None
        if self.has("decoder_predictor"):
            with seeded(seed + 1):
                self.predictor = DecoderPredictor(settings.model)
            self.mask_token = nn.Parameter(torch.zeros(settings.model.width))

    def has(self, switch: str) -> bool:
        """Whether a switch is on."""
        return switch in self.settings.published

    @property
    def idle_parameter(self) -> nn.Parameter:
        """The mask token, wherever it lives."""
        return self.mask_token if self.has("decoder_predictor") else self.predictor.mask_tokens

    def draw_masks(self, batch: int, generator: torch.Generator) -> list[Mask]:
        """F1: runs of neighbours in place of tubes."""
        if self.has("mask_runs"):
            return [runs(self.settings.grid, self.settings.training.mask, batch, generator)]
        return super().draw_masks(batch, generator)

    def train(self, mode: bool = True) -> "PublishedJEPA":
        """F4: the target encoder's dropout is active while it gives the targets."""
        super().train(mode)
        self.target_encoder.train(mode and self.has("noisy_target"))
        return self

    def forward(self, clips: Tensor, masks: list[Mask]) -> tuple[Tensor, Tensor]:
        """F4: the target encoder follows at the beginning of the next forward pass."""
        if self.waiting_momentum is not None:
            super().follow(self.waiting_momentum)
            self.waiting_momentum = None
        return super().forward(clips, masks)

    def follow(self, momentum: float) -> None:
        """F4: only note the momentum; see `forward`."""
        if self.has("early_ema"):
            self.waiting_momentum = momentum
        else:
            super().follow(momentum)

    def targets(self, clips: Tensor) -> Tensor:
        """F5: targets as the encoder gives them, not normalised a second time."""
        return self.target_features(clips) if self.has("raw_targets") else super().targets(clips)

    def encode(self, clips: Tensor, context: Tensor) -> Tensor:
        """F2: all tokens are encoded and the visible ones gathered afterwards, when they have seen the hidden ones."""
        if self.has("encode_hidden"):
            return gather_tokens(self.encoder(clips), context)
        return super().encode(clips, context)

    def predict(self, context: Tensor, mask: Mask, kind: int) -> Tensor:
        """The decoder asks with the encoder's learned positions."""
        if not self.has("decoder_predictor"):
            return super().predict(context, mask, kind)
        return self.predictor(self.mask_token + self.encoder.positions[mask.target], context)

    def distance(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        """F5: mean squared error."""
        return F.mse_loss(predicted, wanted) if self.has("squared_error") else super().distance(predicted, wanted)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """F3: the mask token is in no group; its gradient is never set to zero and enters the norm that is clipped."""
        groups = super().parameter_groups()
        if self.has("decoder_predictor"):
            groups[-1]["params"].append(self.mask_token)  # the decoder is only the rest of the predictor
        if self.has("idle_mask_token"):
            for group in groups:
                group["params"] = [p for p in group["params"] if p is not self.idle_parameter]
        return groups

    def get_extra_state(self) -> dict[str, Any]:
        """What a resumed run needs beside the weights: the idle token's gradient, and an EMA step not yet taken."""
        gradient = self.idle_parameter.grad if self.has("idle_mask_token") else None
        return {"gradient": gradient, "momentum": self.waiting_momentum}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what `get_extra_state` noted."""
        if state["gradient"] is not None:
            self.idle_parameter.grad = state["gradient"].clone()
        self.waiting_momentum = state["momentum"]
