"""Four readouts of a frozen encoder, with all labels and with a tenth of them: how every encoder is judged.

Book: chapter 5.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from picojepa import probing, store
from picojepa.architecture import Encoder
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.features import encode
from picojepa.probing import Task

READ = store.Stage("readouts.right", version=2)
SHARES = (1.0, 0.1)  # of the labels
READOUTS = ("linear, mean", "linear, mean and std", "k-NN", "attentive")


def labelled_share(task: Task, share: float) -> np.ndarray:
    """Places in ``task.train`` whose labels are used: the first ``share`` of every class, the same for all encoders."""
    labels = task.train_labels.numpy()
    places = [np.flatnonzero(labels == number) for number in range(len(task.classes))]
    return np.sort(np.concatenate([of[: max(2, round(share * len(of)))] for of in places]))


def mean_and_spread(tokens: Tensor, slices: int) -> Tensor:
    """Mean over all tokens, and the standard deviation over time averaged over places: (n, N, D) -> (n, 2 D)."""
    over_time = tokens.unflatten(1, (slices, -1)).std(1).mean(1)
    return torch.cat([tokens.mean(1), over_time], 1)


def read(settings: Settings, task: Task, train: Tensor, test: Tensor, share: float) -> dict[str, np.ndarray]:
    """Right answers, bool (n_test,), of every readout from tokens (n, N, D) of the training and the test videos."""
    chosen = labelled_share(task, share)
    labels, tokens = task.train_labels[chosen], train[chosen]
    slices = settings.grid[0]
    pooled = [x.mean(1).numpy() for x in (tokens, test)]
    both = [mean_and_spread(x, slices).numpy() for x in (tokens, test)]
    head = probing.attentive_head(settings, tokens, labels, len(task.classes))
    scores = {
        "linear, mean": probing.linear_probe(pooled[0], labels.numpy(), pooled[1]),
        "linear, mean and std": probing.linear_probe(both[0], labels.numpy(), both[1]),
        "k-NN": probing.knn_probe(pooled[0], labels.numpy(), pooled[1], settings.probe.neighbours),
        "attentive": probing.head_scores(head, test),
    }
    return {name: found.argmax(1) == task.test_labels.numpy() for name, found in scores.items()}


def right_answers(
    encoder: Encoder, name: str, settings: Settings, clips: Clips, tasks: dict[str, Task]
) -> dict[str, np.ndarray]:
    """Right answers of every question, readout and share, bool (n_test,), stored under the encoder's name.

    Keys are such as ``action, k-NN, 0.1``.
    """
    parts = {part: store.plain(getattr(settings, part)) for part in ("clip", "model", "probe")}
    asked = {question: [task.train.tolist(), task.test.tolist()] for question, task in tasks.items()}
    inputs = {"encoder": name, "data": clips.digest, "tasks": store.digest(asked), "shares": SHARES, **parts}
    with store.result(READ, inputs) as result:
        if result.missing:
            found: dict[str, np.ndarray] = {}
            tokens = encode(encoder, clips.centre, pool=False)  # (n, N, D)
            for question, task in tasks.items():
                for share in SHARES:
                    rights = read(settings, task, tokens[task.train], tokens[task.test], share)
                    found |= {f"{question}, {readout}, {share}": right for readout, right in rights.items()}
            np.savez_compressed(result.folder / "right.npz", **found)  # type: ignore[arg-type]
    with np.load(result.folder / "right.npz") as found:
        return dict(found)


def readouts(encoder: Encoder, name: str, settings: Settings, clips: Clips, tasks: dict[str, Task]) -> dict[str, Any]:
    """Accuracy in percent of every readout, question and share of the labels; see `right_answers`.

    Returns ``{question: {readout: {"1.0": percent, "0.1": percent}}}``.
    """
    right = right_answers(encoder, name, settings, clips, tasks)

    def accuracy(*asked: object) -> float:
        return round(100 * float(right[", ".join(map(str, asked))].mean()), 2)

    return {
        question: {readout: {str(s): accuracy(question, readout, s) for s in SHARES} for readout in READOUTS}
        for question in tasks
    }
