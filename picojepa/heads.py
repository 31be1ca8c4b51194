"""Small classifiers on the features of a frozen encoder, and how they are trained.

Letters: B or n clips, N tokens, D width.

Book: chapters 5 and 6.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from picojepa.config import Settings
from picojepa.fitting import ProbeConfig, TrainingConfig, fit
from picojepa.machine import seeded


class LinearHead(nn.Module):
    """Mean over tokens, then one linear layer: (B, N, D) or pooled (B, D) -> logits (B, classes).

    Source: pico-JEPA section 3; 772 parameters for 4 classes at width 192. Book: chapters 5 and 6.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits, one per class."""
        return self.linear(features.mean(1) if features.ndim == 3 else features)


class AttentiveHead(nn.Module):
    """One learned query looks at all tokens, then one linear layer: (B, N, D) -> logits (B, classes).

    Source: V-JEPA section 4 ("attentive probing"). Book: chapters 5 and 6.
    """

    def __init__(self, width: int, classes: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits, one per class."""
        tokens = self.norm(features)
        pooled, _ = self.attention(self.query.expand(len(features), -1, -1), tokens, tokens, need_weights=False)
        return self.linear(pooled.squeeze(1))


def train_head(
    head: nn.Module, features: Sequence[Tensor], labels: Tensor, epochs: int, peak: float, config: ProbeConfig
) -> nn.Module:
    """Train a head, in place, on stored features: AdamW, warm-up over at most 2 epochs, then a cosine.

    Args:
        head: changed and returned.
        features: one or several encodings of the same clips, each (n, D) or (n, N, D); the epochs go round them.
        labels: class numbers, (n,).
        epochs: passes over the clips.
        peak: largest learning rate.
        config: batch, weight decay and seed of the shuffling.

    Source: pico-JEPA section 3 (its `paper` values). Book: chapters 5 and 6.
    """
    generator = torch.Generator().manual_seed(config.seed)
    batches = max(1, len(labels) // config.batch)
    schedule = TrainingConfig(clips=epochs * batches, batch=1, learning_rate=peak, final_learning_rate=1e-7)
    schedule = replace(schedule, warmup=min(0.5, 2 / epochs), weight_decay=(config.weight_decay,) * 2)

    def shuffled() -> Iterator[tuple[Tensor, Tensor]]:
        for epoch in range(epochs):
            for chosen in torch.randperm(len(labels), generator=generator).tensor_split(batches):
                yield features[epoch % len(features)][chosen], labels[chosen]

    return fit(head, shuffled(), replace(schedule, precision="float32"))


def attentive_head(settings: Settings, tokens: Tensor, labels: Tensor, classes: int) -> AttentiveHead:
    """An attentive head, trained on token features (n, N, D) and class numbers (n,)."""
    config = settings.probe
    head = new_attentive_head(settings, classes)
    train_head(head, [tokens], labels, config.attentive_epochs, config.attentive_learning_rate, config)
    return head


def new_attentive_head(settings: Settings, classes: int) -> AttentiveHead:
    """An untrained attentive head; the same seed gives the same weights."""
    with seeded(settings.probe.seed):
        return AttentiveHead(settings.model.width, classes, settings.model.heads).eval()


@torch.no_grad()
def head_scores(head: nn.Module, features: Tensor, batch: int = 256) -> np.ndarray:
    """Probabilities of a head, (n, classes), from features (n, D) or (n, N, D)."""
    return torch.cat([head(part).softmax(-1) for part in features.split(batch)]).numpy()
