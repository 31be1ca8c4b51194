"""The objective: what each encoder sees, what the predictor must say, and how the target encoder follows.

Letters: B clips, C channels, T frames, H, W pixels, N tokens, M context tokens, K target tokens, D width.

Book: chapter 4.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picojepa import require
from picojepa.architecture import Predictor, gather_tokens, new_encoder
from picojepa.config import Settings
from picojepa.fitting import decay_groups
from picojepa.machine import seeded
from picojepa.masking import Mask, draw, masks_per_clip
from picojepa.spreading import spread_loss


def last_block(model: "JEPA", clips: Tensor) -> Tensor:
    """Features of the last block, layer-normalised. Source: V-JEPA section 3."""
    features = model.target_features(clips)
    return F.layer_norm(features, features.shape[-1:])


def all_blocks(model: "JEPA", clips: Tensor) -> Tensor:
    """Mean over the blocks, each number normalised over the clip's tokens. Source: Baevski et al. 2022 (data2vec)."""
    each: list[Tensor] = []
    model.target_features(clips, each)
    return torch.stack([F.instance_norm(x.transpose(1, 2)).transpose(1, 2) for x in each]).mean(0)


def minus_clip_mean(model: "JEPA", clips: Tensor) -> Tensor:
    """Features less what all tokens of a clip share, each number normalised over the (process's share of the) batch."""
    features = model.target_features(clips)
    own = features - features.mean(1, keepdim=True)
    return own / own.std((0, 1)).clamp_min(1e-6)


# What is predicted of every token, (B, N, D), from normalised clips.
TARGETS: dict[str, Callable[["JEPA", Tensor], Tensor]] = {
    "last block": last_block,
    "all blocks": all_blocks,
    "minus clip mean": minus_clip_mean,
}


class JEPA(nn.Module):
    """Context encoder, predictor, and the target encoder, which no gradient reaches."""

    version = 1  # of the objective, for keys; a subclass with other numbers has one of its own

    def __init__(self, settings: Settings, seed: int) -> None:
        super().__init__()
        known, target = ", ".join(TARGETS), settings.training.target
        require(target in TARGETS, f"unknown target {target!r}; known: {known}")
        self.settings = settings
        self.encoder = new_encoder(settings.model, settings.grid, seed)
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        kinds = masks_per_clip(settings.training.mask, settings.grid)
        with seeded(seed + 1):
            self.predictor = Predictor(settings.model, settings.grid, kinds)

    def train(self, mode: bool = True) -> "JEPA":
        """Training mode, but for the target encoder: dropout, where there is any, does not touch the targets."""
        super().train(mode)
        self.target_encoder.eval()
        return self

    def draw_masks(self, batch: int, generator: torch.Generator) -> list[Mask]:
        """The masks of one step; all of them are applied to the same clips."""
        return draw(self.settings.training.mask, self.settings.grid, batch, generator)

    def forward(self, clips: Tensor, masks: list[Mask]) -> tuple[Tensor, Tensor]:
        """Compare what is predicted of the hidden tokens of clips, (B, 3, T, H, W), with what the target encoder says.

        The losses of several masks are averaged; all share one pass of the target encoder. Returns the loss, a scalar,
        and the mean cosine similarity of prediction and target, without gradient.

        Source: V-JEPA section 3, equation 1. Book: chapter 4.
        """
        features = self.targets(clips)  # (B, N, D)
        losses, similarities = [], []
        for kind, mask in enumerate(masks):
            context = self.encode(clips, mask.context)  # (B, M, D)
            predicted = self.predict(context, mask, kind)  # (B, K, D)
            wanted = gather_tokens(features, mask.target)  # (B, K, D)
            losses.append(self.distance(predicted.float(), wanted.float()) + self.spreading(context.float()))
            similarities.append(F.cosine_similarity(predicted.detach(), wanted.detach(), dim=-1).float().mean())
        return torch.stack(losses).mean(), torch.stack(similarities).mean()

    def targets(self, clips: Tensor) -> Tensor:
        """What is to be predicted of every token, (B, N, D), from all of the clip; see `TARGETS`."""
        return TARGETS[self.settings.training.target](self, clips)

    def spreading(self, context: Tensor) -> Tensor:
        """What keeps the features of context tokens, (B, M, D), spread, if the settings ask for it; else 0."""
        config = self.settings.training
        if config.spreading == "none":
            return context.new_zeros(())
        return config.spreading_weight * spread_loss(config.spreading, context)

    def target_features(self, clips: Tensor, each: list[Tensor] | None = None) -> Tensor:
        """Features of every token, (B, N, D), from the encoder that gives the targets; ``each`` as in `Encoder`.

        With ``stop_gradient=False`` there is one encoder for both parts, and the loss can change the targets.
        """
        if not self.settings.training.stop_gradient:
            return self.encoder(clips, each=each)
        with torch.no_grad():
            return self.target_encoder(clips, each=each)

    def encode(self, clips: Tensor, context: Tensor) -> Tensor:
        """Features of the context tokens, (B, M, D), from the context tokens alone."""
        return self.encoder(clips, context)

    def predict(self, context: Tensor, mask: Mask, kind: int) -> Tensor:
        """Predicted features of the target tokens, (B, K, D)."""
        return self.predictor(context, mask.context, mask.target, kind)

    def distance(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        """Mean absolute error."""
        return F.l1_loss(predicted, wanted)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimiser changes; the predictor may learn at another rate than the encoder."""
        rate = self.settings.training.predictor_rate
        return [*decay_groups(self.encoder), *decay_groups(self.predictor, rate)]

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Exponential moving average: target <- momentum * target + (1 - momentum) * encoder."""
        torch._foreach_lerp_(list(self.target_encoder.parameters()), list(self.encoder.parameters()), 1 - momentum)
