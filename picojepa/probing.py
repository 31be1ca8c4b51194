"""What a frozen encoder knows: linear, attentive and nearest-neighbour probes.

Every probe returns per-video scores, so that each number can be recomputed from what is stored and
two probes can be compared video by video.

Book: chapter 5.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from picojepa import require, store
from picojepa.architecture import Encoder, new_encoder
from picojepa.clips import Clips, label_numbers
from picojepa.config import Settings
from picojepa.features import encode, load_encoder
from picojepa.fitting import ProbeConfig, TrainingConfig, fit
from picojepa.machine import device, seeded

ENCODER = store.Stage("probing.encoder", version=1)
PREDICTIONS, ATTENTIVE = "predictions.csv", "attentive.safetensors"
PENALTIES = (0.01, 0.1, 1, 10, 100)  # inverse strengths of the linear probe's penalty, to choose from


@dataclass(frozen=True)
class Task:
    """A question about videos: which rows to learn from, which to be asked about, and the answers."""

    classes: tuple[str, ...]  # in the order of their numbers
    train: np.ndarray  # row numbers in a `Clips`
    test: np.ndarray
    train_labels: Tensor  # class numbers, int64
    test_labels: Tensor


def make_task(clips: Clips, classes: tuple[str, ...], labelled_only: bool = False) -> Task:
    """Videos of the given classes: training rows (of the labelled list, if asked) and validation rows.

    Raises:
        ValueError: a class has no training videos.
    """
    videos = clips.videos
    ours = videos.label.isin(classes)
    train = clips.select(ours & (videos.split == "pretrain") & (videos.labelled if labelled_only else True))
    test = clips.select(ours & (videos.split == "validation"))
    missing = ", ".join(c for c in classes if c not in set(videos.label[train]))
    require(not missing, f"class without training videos: {missing}; add some or ask about other classes")
    answers = label_numbers(videos.label[train], classes), label_numbers(videos.label[test], classes)
    return Task(classes, train, test, *answers)


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

    With a single query, keys and values need not be made for every token: what the query asks of keys is asked of the
    tokens themselves, and the mean token is made a value. The answers are those of `torch.nn.MultiheadAttention`.

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
        tokens, attention = self.norm(features), self.attention
        heads, width = attention.num_heads, attention.head_dim
        to_query, to_key, to_value = attention.in_proj_weight.chunk(3)  # each (D, D)
        query_bias, _, value_bias = attention.in_proj_bias.chunk(3)  # a bias of the keys moves all scores alike
        query = F.linear(self.query.flatten(), to_query, query_bias).view(heads, 1, width) * width**-0.5
        asked = (query @ to_key.view(heads, width, -1)).squeeze(1)  # (heads, D)
        weights = (tokens @ asked.T).softmax(1)  # (B, N, heads)
        mean = weights.transpose(1, 2) @ tokens  # (B, heads, D)
        values = torch.einsum("bhd,hwd->bhw", mean, to_value.view(heads, width, -1)).flatten(1) + value_bias
        return self.linear(attention.out_proj(values))


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


def linear_probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Logistic regression on standardised features, trained to convergence; returns probabilities (n_test, classes).

    How strongly the weights are held small is chosen by cross-validation on the training videos alone;
    with a single video in some class nothing can be chosen, and the penalty is 1.
    """
    rarest = int(np.unique(labels, return_counts=True)[1].min())
    choice = {"Cs": PENALTIES, "cv": min(3, rarest), "scoring": "neg_log_loss", "l1_ratios": (0,)}
    how = {"solver": "newton-cg", "max_iter": 1000}  # converges with the weakest penalty too
    fit = LogisticRegressionCV(**choice, **how, use_legacy_attributes=False) if rarest > 1 else None
    model = make_pipeline(StandardScaler(), fit or LogisticRegression(**how))
    with threadpool_limits(1):  # on matrices this small, threads wait for each other twenty times longer than they work
        return model.fit(train, labels).predict_proba(test)


def knn_probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray, neighbours: int) -> np.ndarray:
    """Share of the nearest training videos (cosine distance) in each class, (n_test, classes)."""
    model = KNeighborsClassifier(min(neighbours, len(train)), metric="cosine")
    return model.fit(train, labels).predict_proba(test)


def _pooled(probe: Callable[..., np.ndarray], task: Task, train: Tensor, test: Tensor, *more: int) -> np.ndarray:
    return probe(train.mean(1).numpy(), task.train_labels.numpy(), test.mean(1).numpy(), *more)


def _attentive(settings: Settings, task: Task, train: Tensor, test: Tensor, folder: Path) -> np.ndarray:
    head = attentive_head(settings, train, task.train_labels, len(task.classes))
    save_file(head.state_dict(), folder / ATTENTIVE)
    return head_scores(head, test)


# Probe -> probabilities (n_test, classes) from the tokens (n, N, D) of training and test videos. It may leave what it
# learned in the folder of the result.
PROBES: dict[str, Callable[[Settings, Task, Tensor, Tensor, Path], np.ndarray]] = {
    "linear": lambda settings, task, train, test, _: _pooled(linear_probe, task, train, test),
    "attentive": _attentive,
    "k-NN": lambda settings, task, train, test, _: _pooled(knn_probe, task, train, test, settings.probe.neighbours),
}


def prediction_table(clips: Clips, task: Task, scores: np.ndarray, **names: Any) -> pd.DataFrame:
    """One row per test video: path, label, predicted class, certainty and the score of every class."""
    videos = clips.videos.iloc[task.test]
    stems = videos.path.map(lambda path: Path(path).stem)
    if pd.DataFrame({"stem": stems, "label": videos.label}).duplicated().any():  # own files, in folders of a class
        stems = videos.path
    answers = {"predicted": [task.classes[i] for i in scores.argmax(1)], "certainty": scores.max(1)}
    table = pd.DataFrame({**names, "video": stems.to_numpy(), "label": videos.label.to_numpy(), **answers})
    return pd.concat([table, pd.DataFrame(scores, columns=[f"p_{name}" for name in task.classes])], axis=1)


def accuracy(table: pd.DataFrame) -> float:
    """Share of the rows whose predicted class is the label, 0 to 1."""
    return float((table.predicted == table.label).mean())


def probe_encoder(
    encoder: Encoder, settings: Settings, clips: Clips, task: Task, name: str, folder: Path
) -> pd.DataFrame:
    """Predictions of one encoder with every probe of `PROBES`, below each other."""
    train, test = (encode(encoder, clips.centre[rows], pool=False) for rows in (task.train, task.test))
    scores = {kind: probe(settings, task, train, test, folder) for kind, probe in PROBES.items()}
    tables = [prediction_table(clips, task, s, features=name, probe=kind) for kind, s in scores.items()]
    return pd.concat(tables, ignore_index=True)


def read_predictions(folder: Path) -> pd.DataFrame:
    """The table of predictions in a result's folder."""
    names = dict.fromkeys(("video", "label", "predicted"), str)  # a class may be called 1, or None
    return pd.read_csv(folder / PREDICTIONS, dtype=names, keep_default_na=False, na_values=[""])


def probed(settings: Settings, clips: Clips, task: Task, run: Path | None = None) -> Path:
    """Folder with what all probes say of an encoder and what the attentive one learned, found again or made.

    The encoder is that of a run, or without one that with random weights of the same seed.
    """
    seed = settings.training.seed
    inputs = {"encoder": run.name if run else ["random weights", seed], **task_inputs(settings, clips, task)}
    with store.result(ENCODER, inputs) as result:
        if result.missing:
            if run:
                encoder, name = load_encoder(run / "encoder.safetensors", settings), "pre-trained"
            else:
                encoder, name = new_encoder(settings.model, settings.grid, seed).to(device()), "random weights"
            table = probe_encoder(encoder, settings, clips, task, name, result.folder)
            table.to_csv(result.folder / PREDICTIONS, index=False)
    return result.folder


def probe_run(settings: Settings, clips: Clips, run: Path, task: Task) -> pd.DataFrame:
    """Predictions of a pre-trained run beside the random-weights encoder of the same seed (see ``features``)."""
    folders = probed(settings, clips, task), probed(settings, clips, task, run)
    return pd.concat(map(read_predictions, folders), ignore_index=True)


def task_inputs(settings: Settings, clips: Clips, task: Task) -> dict[str, Any]:
    """What shapes the answers to a task beside the encoder's weights, for keys."""
    question = [task.classes, task.train.tolist(), task.train_labels.tolist(), task.test.tolist()]
    parts = {name: store.plain(getattr(settings, name)) for name in ("clip", "model", "probe")}
    return {"data": clips.digest, "task": store.digest(question), **parts}
