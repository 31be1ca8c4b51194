"""What a frozen encoder knows: linear, attentive and nearest-neighbour probes, and their baselines.

Every probe returns per-video scores, so that each number can be recomputed from what is stored and
two probes can be compared video by video.

Book: chapter 5.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from tqdm.auto import tqdm

from picojepa import disk, pretraining, store
from picojepa.architecture import Encoder, new_encoder, seeded
from picojepa.clips import Clips, label_numbers, normalise
from picojepa.config import ProbeConfig, Settings, TrainingConfig
from picojepa.features import autocast, device, encode, load_encoder
from picojepa.jepa import decay_groups

PREDICTIONS = "predictions.csv"
PENALTIES = (0.01, 0.1, 1, 10, 100)  # inverse strengths of the linear probe's penalty, to choose from


@dataclass(frozen=True)
class Task:
    """A question about videos: which rows to learn from, which to be asked about, and the answers.

    Attributes:
        classes: names, in the order of the numbers.
        train, test: row numbers in a `Clips`.
        train_labels, test_labels: class numbers, int64.
    """

    classes: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray
    train_labels: Tensor
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
    if missing := [c for c in classes if c not in set(videos.label[train])]:
        raise ValueError(f"class without training videos: {', '.join(missing)}; add some or ask about other classes")
    answers = label_numbers(videos.label[train], classes), label_numbers(videos.label[test], classes)
    return Task(classes, train, test, *answers)


# ---------------------------------------------------------------- heads


class LinearHead(nn.Module):
    """Mean over tokens, then one linear layer: (B, N, D) or pooled (B, D) -> logits (B, classes).

    Source: pico-JEPA section 3; 772 parameters for 4 classes at width 192. Book: chapter 5.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits, one per class."""
        return self.linear(features.mean(1) if features.ndim == 3 else features)


class AttentiveHead(nn.Module):
    """One learned query looks at all tokens, then one linear layer: (B, N, D) -> logits (B, classes).

    Source: V-JEPA section 4 ("attentive probing"). Book: chapter 5.
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
    """Train a head on stored features: AdamW, warm-up over half of the steps at most 2 epochs, then a cosine.

    Args:
        head: changed in place and returned.
        features: one or several encodings of the same clips, each (n, D) or (n, N, D); the epochs go round them.
        labels: class numbers, (n,).
        epochs: passes over the clips.
        peak: largest learning rate.
        config: batch, weight decay and seed of the shuffling.

    Source: pico-JEPA section 3 (its `paper` values). Book: chapter 5.
    """
    generator = torch.Generator().manual_seed(config.seed)
    batches = max(1, len(labels) // config.batch)
    schedule = TrainingConfig(
        clips=epochs * batches, batch=1, learning_rate=peak, final_learning_rate=1e-7, warmup=min(0.5, 2 / epochs)
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=peak, weight_decay=config.weight_decay)
    step = 0
    for epoch in range(epochs):
        encoding = features[epoch % len(features)]
        for chosen in torch.randperm(len(labels), generator=generator).tensor_split(batches):
            optimizer.param_groups[0]["lr"] = pretraining.learning_rate(step, schedule)
            loss = F.cross_entropy(head(encoding[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            step += 1
    return head.eval()


# ---------------------------------------------------------------- probes


def linear_probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Logistic regression on standardised features, trained to convergence; returns probabilities (n_test, classes).

    How strongly the weights are held small is chosen by cross-validation on the training videos alone;
    with a single video in some class nothing can be chosen, and the penalty is 1.

    Book: chapter 5.
    """
    rarest = int(np.unique(labels, return_counts=True)[1].min())
    choice = {"Cs": PENALTIES, "cv": min(3, rarest), "scoring": "neg_log_loss", "l1_ratios": (0,)}
    solver = "newton-cholesky"  # converges with the weakest penalty too, in a few steps
    fit = LogisticRegressionCV(**choice, solver=solver, use_legacy_attributes=False) if rarest > 1 else None
    model = make_pipeline(StandardScaler(), fit or LogisticRegression(solver=solver))
    with threadpool_limits(1):  # on matrices this small, threads wait for each other twenty times longer than they work
        return model.fit(train, labels).predict_proba(test)


def knn_probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray, neighbours: int) -> np.ndarray:
    """Share of the nearest training videos (cosine distance) in each class, (n_test, classes)."""
    model = KNeighborsClassifier(min(neighbours, len(train)), metric="cosine")
    return model.fit(train, labels).predict_proba(test)


def attentive_probe(train: Tensor, labels: Tensor, test: Tensor, settings: Settings, classes: int) -> np.ndarray:
    """Train an attentive head on token features (n, N, D); returns probabilities (n_test, classes)."""
    config = settings.probe
    with seeded(config.seed):
        head = AttentiveHead(train.shape[-1], classes, settings.model.heads)
    train_head(head, [train], labels, config.attentive_epochs, config.attentive_learning_rate, config)
    with torch.no_grad():
        return torch.cat([head(part).softmax(-1) for part in test.split(256)]).numpy()


def colour_histogram(clips: np.ndarray, bins: int = 8) -> np.ndarray:
    """Share of a clip's pixels in each bin of red, green and blue; uint8 (n, T, 3, H, W) -> (n, 3 * bins)."""
    bin_of = np.asarray(clips) // (256 // bins)
    channels = [np.stack([(bin_of[:, :, c] == b).mean((1, 2, 3)) for b in range(bins)], 1) for c in range(3)]
    return np.concatenate(channels, 1)


def supervised(settings: Settings, clips: Clips, task: Task) -> np.ndarray:
    """Train the same encoder with a linear head from scratch, with labels; returns probabilities (n_test, classes)."""
    config = settings.probe
    schedule = TrainingConfig(
        clips=config.supervised_clips,
        batch=settings.training.batch,
        learning_rate=settings.training.learning_rate,
        precision=settings.training.precision,
        seed=config.seed,
    )
    where, encoder = device(), new_encoder(settings, config.seed)
    with seeded(config.seed):
        model = nn.Sequential(encoder, LinearHead(settings.model.width, len(task.classes))).to(where)
    optimizer = pretraining.make_optimizer(decay_groups(model), schedule)
    for step in tqdm(range(schedule.steps), desc="supervised", unit="step", file=sys.stdout):
        pretraining.set_schedules(optimizer, step, schedule)
        rows, epochs = pretraining.batch_numbers(step, len(task.train), schedule)
        batch = clips.training[task.train[rows], epochs % clips.training.shape[1]]
        with autocast(schedule.precision):
            logits = model(normalise(torch.from_numpy(batch)).to(where)).float()
        loss = F.cross_entropy(logits, task.train_labels[rows].to(where))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    head = model[1].cpu()
    with torch.no_grad():
        return head(encode(encoder, clips.centre[task.test])).softmax(-1).numpy()


# ---------------------------------------------------------------- tables of predictions


def prediction_table(clips: Clips, task: Task, scores: np.ndarray, **names: Any) -> pd.DataFrame:
    """One row per test video: path, label, predicted class, certainty and the score of every class."""
    videos = clips.videos.iloc[task.test]
    stems = videos.path.map(lambda path: Path(path).stem)
    if pd.DataFrame({"stem": stems, "label": videos.label}).duplicated().any():  # own files, in folders of a class
        stems = videos.path
    best = scores.argmax(1)
    table = pd.DataFrame(
        {
            **names,
            "video": stems.to_numpy(),
            "label": videos.label.to_numpy(),
            "predicted": [task.classes[i] for i in best],
            "certainty": scores.max(1),
        }
    )
    return pd.concat([table, pd.DataFrame(scores, columns=[f"p_{name}" for name in task.classes])], axis=1)


def accuracy(table: pd.DataFrame) -> float:
    """Share of the rows whose predicted class is the label, 0 to 1."""
    return float((table.predicted == table.label).mean())


def probe_encoder(encoder: Encoder, settings: Settings, clips: Clips, task: Task, name: str) -> pd.DataFrame:
    """Linear, attentive and k-NN predictions of one encoder, below each other."""
    train, test = (encode(encoder, clips.centre[rows], pool=False) for rows in (task.train, task.test))
    pooled, pooled_test, labels = train.mean(1).numpy(), test.mean(1).numpy(), task.train_labels.numpy()
    scores = {
        "linear": linear_probe(pooled, labels, pooled_test),
        "attentive": attentive_probe(train, task.train_labels, test, settings, len(task.classes)),
        "k-NN": knn_probe(pooled, labels, pooled_test, settings.probe.neighbours),
    }
    return pd.concat(
        [prediction_table(clips, task, s, features=name, probe=probe) for probe, s in scores.items()], ignore_index=True
    )


def baselines(settings: Settings, clips: Clips, task: Task) -> pd.DataFrame:
    """Predictions of a colour histogram with a linear probe, and of supervised training from scratch."""
    histogram = [colour_histogram(clips.centre[rows]) for rows in (task.train, task.test)]
    colour = linear_probe(histogram[0], task.train_labels.numpy(), histogram[1])
    tables = [
        prediction_table(clips, task, colour, features="colour histogram", probe="linear"),
        prediction_table(clips, task, supervised(settings, clips, task), features="supervised", probe="linear"),
    ]
    return pd.concat(tables, ignore_index=True)


@disk.explained()
def stored_table(stage: str, inputs: dict[str, Any], make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table of predictions, found again or made and stored as CSV.

    Raises:
        OSError: the disk is full or cannot be written.
    """

    def write(folder: Path) -> None:
        make().to_csv(folder / PREDICTIONS, index=False)

    names = dict.fromkeys(("video", "label", "predicted"), str)  # a class may be called 1, or None
    path = store.result(stage, inputs, write) / PREDICTIONS
    return pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])


def probe_run(settings: Settings, clips: Clips, run: Path, task: Task) -> pd.DataFrame:
    """Predictions of a pre-trained run beside the random-weights encoder of the same seed (see ``features``)."""

    def make() -> pd.DataFrame:
        random = new_encoder(settings, settings.training.seed).to(device())
        trained = load_encoder(run / "encoder.safetensors", settings)
        named = {"random weights": random, "pre-trained": trained}
        return pd.concat(
            [probe_encoder(e, settings, clips, task, name) for name, e in named.items()], ignore_index=True
        )

    return stored_table("probing.run", {"run": run.name, **task_inputs(settings, clips, task)}, make)


def probe_baselines(settings: Settings, clips: Clips, task: Task) -> pd.DataFrame:
    """Predictions of the baselines, found again or made."""
    inputs = task_inputs(settings, clips, task)
    return stored_table("probing.baselines", inputs, partial(baselines, settings, clips, task))


def task_inputs(settings: Settings, clips: Clips, task: Task) -> dict[str, Any]:
    """What shapes the answers to a task, for keys."""
    question = [task.classes, task.train.tolist(), task.train_labels.tolist(), task.test.tolist()]
    shared = pretraining.training_inputs(settings, clips)
    return {**shared, "probe": asdict(settings.probe), "task": store.digest(question)}
