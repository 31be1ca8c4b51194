"""More questions to frozen encoders: other probes, several clips, few labels, scenes, and frames out of order.

What each comparison tests is written in `PLANNED`, which was fixed before any of its results was seen.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from evidence import baselines
from evidence.experiments import counted, run_of, scores_of
from evidence.studies import Study
from evidence.supervision import supervised
from picojepa import data, probing
from picojepa.architecture import Encoder, new_encoder
from picojepa.clips import Clips, label_numbers
from picojepa.config import Settings
from picojepa.data import read_clips
from picojepa.features import encode, load_encoder
from picojepa.machine import device, seeded
from picojepa.probing import LinearHead, Task, head_scores, linear_probe, make_task, train_head

TRAINED = {"pre-trained": "primary", "pixel prediction": "V6", "still frames": "V8"}  # name here -> experiment
POSITIONS = (0.0, 1.0)  # of test clips beside the centre, in a video
SHARES = {0.01: 5, 0.02: 5, 0.05: 5, 0.1: 5, 0.25: 3, 0.5: 3, 1.0: 1}  # of the labels -> draws of the videos
FEW = (0.05, 0.1)  # shares that count as few labels; with less, a class has one to three videos
MARGIN = 5.0  # points: who is not worse by more than this is competitive
PLANNED = {
    "V5": "pre-trained features, ten classes: attentive probe minus linear probe to convergence",
    "V7": "linear probe, pre-trained minus pixel prediction: mean of 5 and 10 % of the labels, minus all labels",
    "V8a": "linear probe on actions: pre-trained minus still frames",
    "V8b": "linear probe on scenes: pre-trained minus still frames, plus 5 points",
    "fine-tuning": "ten classes, all labels: supervised from pre-trained weights minus from scratch, same clips seen",
    "motion": "linear probe, pre-trained features: frames as they are minus frames shuffled",
}


def all_classes(clips: Clips) -> Task:
    """All classes, learned from all training videos."""
    return make_task(clips, data.classes(clips.videos))


def tasks(clips: Clips) -> dict[int, Task]:
    """The two questions of the book, by the number of classes: all of them, and those of the labelled list."""
    few = make_task(clips, data.labelled_classes(clips.videos), labelled_only=True)
    return {len(task.classes): task for task in (all_classes(clips), few)}


def scene_task(clips: Clips) -> Task:
    """All videos, and the scene in place of the action."""
    task, scene = all_classes(clips), clips.videos.scene
    names = tuple(sorted(set(scene)))
    train, test = (label_numbers(scene.iloc[rows], names) for rows in (task.train, task.test))
    return Task(names, task.train, task.test, train, test)


def encoders_of(names: tuple[str, ...], base: Settings, clips: Clips, seed: int) -> dict[str, Encoder]:
    """Frozen encoders of one seed by name, random weights last."""
    found = {}
    for name in names:
        chosen, folder = run_of(TRAINED[name], base, clips, seed)
        found[name] = load_encoder(folder / "encoder.safetensors", chosen)
    return found | {"random weights": new_encoder(base.model, base.grid, seed).to(device())}


def answers(scores: np.ndarray, truth: Tensor) -> dict[str, Any]:
    """Right answers of probabilities (n, classes), counted and as one digit per video."""
    return counted(scores.argmax(1) == truth.numpy())


def linear(features: np.ndarray, task: Task) -> dict[str, Any]:
    """Answers of the linear probe to convergence on features of all centre clips."""
    scores = linear_probe(features[task.train], task.train_labels.numpy(), features[task.test])
    return answers(scores, task.test_labels)


def lead(scores: list[dict[str, Any]], one: str, other: str, **which: Any) -> float:
    """Points by which one kind of features is ahead of another, where the rest of a score is as given."""
    found = {s["features"]: 100 * float(np.mean(s["right"])) / s["n"] for s in scores if which.items() <= s.items()}
    return found[one] - found[other]


def surface(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Majority class and colour histogram, and for actions frame differences, the true scene, supervised training."""
    features = {
        "colour histogram": baselines.colour_histogram(clips.centre),
        "frame differences": baselines.frame_differences(clips.centre),
        "scene, from the list": pd.get_dummies(clips.videos.scene).to_numpy(float),
    }
    asked = {f"{n} classes": task for n, task in tasks(clips).items()}
    scores = []
    for name, task in (asked | {"scenes": scene_task(clips)}).items():
        favourite = task.train_labels.bincount().argmax()
        scores.append({"task": name, "features": "majority class", **counted((task.test_labels == favourite).numpy())})
        for kind in features if name in asked else ("colour histogram",):
            scores.append({"task": name, "features": kind, **linear(features[kind], task)})
        if name in asked:
            right = supervised(base, clips, task).argmax(1) == task.test_labels.numpy()
            scores.append({"task": name, "features": "supervised", **counted(right)})
    return {"scores": scores}


def trained_head(head: Callable[[int, int], nn.Module], rate: float, epochs: int, settings: Settings) -> Callable:
    """A probe whose head is trained by gradient descent: (train, labels, test) -> probabilities (n_test, classes)."""

    def probe(train: Tensor, labels: Tensor, test: Tensor) -> np.ndarray:
        with seeded(settings.probe.seed):
            made = head(train.shape[1], int(labels.max()) + 1)
        return head_scores(train_head(made, [train], labels, epochs, rate, settings.probe), test)

    return probe


def mlp(width: int, classes: int) -> nn.Module:
    """A head with one hidden layer, on features brought to zero mean and unit spread."""
    hidden = [nn.Linear(width, width), nn.GELU(), nn.Linear(width, classes)]
    return nn.Sequential(nn.BatchNorm1d(width, affine=False), *hidden)


def probes(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Pre-trained and random features of one seed, each asked in eight ways, all classes and the labelled ones."""
    config, everywhere = base.probe, all_classes(clips).test
    more = np.stack([read_clips(path, base.clip, POSITIONS).numpy() for path in clips.videos.path.iloc[everywhere]])
    heads = {
        "linear, the paper's recipe": trained_head(LinearHead, config.learning_rate, config.epochs, base),
        "MLP": trained_head(mlp, config.attentive_learning_rate, config.attentive_epochs, base),
    }
    chosen, run = run_of("primary", base, clips, seed)
    scores = []
    for n, task in tasks(clips).items():
        scores += [{"classes": n, **row} for row in scores_of(probing.probe_run(chosen, clips, run, task))]
    for name, encoder in encoders_of(("pre-trained",), base, clips, seed).items():
        centre = encode(encoder, clips.centre)
        random = torch.stack([encode(encoder, clips.training[:, i]) for i in range(clips.training.shape[1])], 1)
        others = torch.stack([encode(encoder, more[:, i]) for i in range(len(POSITIONS))])
        for n, task in tasks(clips).items():
            train, labels, test = centre[task.train], task.train_labels, centre[task.test]
            seen = torch.cat([test[None], others[:, np.isin(everywhere, task.test)]])  # (clips, n_test, D)
            found = {kind: probe(train, labels, test) for kind, probe in heads.items()}
            of_centre = partial(linear_probe, train.numpy(), labels.numpy())
            found["linear, three test clips"] = several(of_centre, seen).mean(0)
            of_clip = several(partial(probe_of_clips, random[task.train], labels), seen)
            found["linear, four training clips"] = of_clip[0]  # of the centre
            found["linear, four training and three test clips"] = of_clip.mean(0)
            row = {"classes": n, "features": name}
            scores += [row | {"probe": kind} | answers(p, task.test_labels) for kind, p in found.items()]
    return {"scores": scores}


def several(probe: Callable[[np.ndarray], np.ndarray], test: Tensor) -> np.ndarray:
    """Probabilities (clips, n_test, classes) of a probe for several clips of each video, (clips, n_test, D)."""
    return probe(test.flatten(0, 1).numpy()).reshape(*test.shape[:2], -1)


def probe_of_clips(train: Tensor, labels: Tensor, test: np.ndarray) -> np.ndarray:
    """`probing.linear_probe` on several clips of each training video, which stay together when the penalty is chosen.

    Args:
        train: features (n, clips of a video, D).
        labels: class numbers of the videos, (n,).
        test: features (m, D).

    Returns:
        Probabilities (m, classes).
    """
    video = np.repeat(np.arange(len(train)), train.shape[1])
    features, classes = train.flatten(0, 1).numpy(), labels.numpy()[video]
    folds = list(StratifiedGroupKFold(3).split(features, classes, groups=video))
    choice = {"Cs": probing.PENALTIES, "scoring": "neg_log_loss", "l1_ratios": (0,), "solver": "newton-cholesky"}
    model = make_pipeline(StandardScaler(), LogisticRegressionCV(**choice, cv=folds, use_legacy_attributes=False))
    with threadpool_limits(1):
        return model.fit(features, classes).predict_proba(test)


def finetuned(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Supervised training from scratch and from pre-trained weights, with all labels and with a tenth of them.

    Recipe, learning rate and clips seen are the same for both starts; all labels get half of the epochs of the book's
    supervised baseline, a tenth of them a quarter more than all of its epochs.
    """
    whole, scores = all_classes(clips), []
    for share, epochs in ((1.0, 0.5), (0.1, 1.25)):
        task = with_labels(whole, subset(whole.train_labels.numpy(), share, seed, 0))
        config = replace(base.probe, supervised_epochs=max(1, int(epochs * base.probe.supervised_epochs)), seed=seed)
        for name, start in encoders_of(("pre-trained",), base, clips, seed).items():
            facts = {"share": share, "start": name, "videos": len(task.train)}
            frozen = linear(encode(start, clips.centre).numpy(), task)
            scores.append(facts | {"clips": 0, "encoder": "frozen"} | frozen)
            found = supervised(replace(base, probe=config), clips, task, start)
            facts |= {"clips": config.supervised_epochs * len(task.train), "encoder": "trained"}
            scores.append(facts | answers(found, task.test_labels))
    return {"scores": scores}


def subset(labels: np.ndarray, share: float, seed: int, draw: int) -> np.ndarray:
    """Row numbers of a share of the videos, the same share of every class and at least one of each."""
    random = np.random.default_rng([seed, draw, round(1000 * share)])
    of_class = [random.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    return np.sort(np.concatenate([rows[: max(1, round(share * len(rows)))] for rows in of_class]))


def with_labels(task: Task, rows: np.ndarray) -> Task:
    """The same question with some of the training videos."""
    return replace(task, train=task.train[rows], train_labels=task.train_labels[rows])


def labels(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Linear probe with a share of the labels; every encoder learns from the same videos."""
    task, scores = all_classes(clips), []
    names = ("pre-trained", "pixel prediction")
    features = {k: encode(e, clips.centre).numpy() for k, e in encoders_of(names, base, clips, seed).items()}
    features["colour histogram"] = baselines.colour_histogram(clips.centre)
    for share, draws in SHARES.items():
        few = [with_labels(task, subset(task.train_labels.numpy(), share, seed, draw)) for draw in range(draws)]
        for name, x in features.items():
            found = [linear(x, part) for part in few]
            counts = np.sum([[int(digit) for digit in one["by_video"]] for one in found], axis=0)  # of draws
            row = {"features": name, "share": share, "videos": len(few[0].train), "n": len(counts)}
            scores.append(row | {"right": [f["right"] for f in found], "by_video": "".join(map(str, counts))})
    ahead = {share: lead(scores, *names, share=share) for share in SHARES}
    return {"scores": scores, "claims": {"V7": float(np.mean([ahead[share] for share in FEW]) - ahead[1.0])}}


def appearance(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Actions and scenes, read from an encoder trained on clips, one trained on still frames, and random weights."""
    asked, scores = {"actions": all_classes(clips), "scenes": scene_task(clips)}, []
    for name, encoder in encoders_of(("pre-trained", "still frames"), base, clips, seed).items():
        x = encode(encoder, clips.centre).numpy()
        scores += [{"task": kind, "features": name} | linear(x, task) for kind, task in asked.items()]
    ahead = {kind: lead(scores, "pre-trained", "still frames", task=kind) for kind in asked}
    claims = {f"V8 {kind}": points for kind, points in ahead.items()}
    return {"scores": scores, "claims": claims | {"V8 scenes, granted": ahead["scenes"] + MARGIN}}


def reordered(clips: np.ndarray, group: int = 1) -> np.ndarray:
    """Frames of every clip (n, T, ...) in an order by lot; a group of neighbours stays together."""
    random, count = np.random.default_rng(0), clips.shape[1] // group
    orders = np.stack([random.permutation(count) for _ in range(len(clips))])  # (n, count)
    frames = (orders[..., None] * group + np.arange(group)).reshape(len(clips), -1)
    return clips[np.arange(len(clips))[:, None], frames]


def one_frame(clips: np.ndarray) -> np.ndarray:
    """The middle frame, shown over and over."""
    middle = clips.shape[1] // 2
    return np.broadcast_to(clips[:, middle : middle + 1], clips.shape)


def perturbed(base: Settings, clips: Clips, seed: int, probe: str = "linear") -> dict[str, Any]:
    """A probe that learned from ordinary clips, asked about clips whose frames are in another order or all alike."""
    task, scores = all_classes(clips), []
    asked, learned = clips.centre[task.test], clips.centre[task.train]
    shown = {
        "as they are": asked,
        "reversed": asked[:, ::-1],
        "pairs shuffled": reordered(asked, base.model.tubelet),
        "shuffled": reordered(asked),
        "one frame": one_frame(asked),
    }

    def ask(train: Tensor, test: Tensor) -> np.ndarray:
        with TemporaryDirectory() as folder:
            return probing.PROBES[probe](base, task, train, test, Path(folder))

    for name, encoder in encoders_of(("pre-trained",), base, clips, seed).items():
        test = {kind: encode(encoder, clip, pool=False) for kind, clip in shown.items()}
        found = ask(encode(encoder, learned, pool=False), torch.cat(list(test.values())))
        said = dict(zip(shown, np.split(found, len(shown)), strict=True))
        said["one frame, also in training"] = ask(encode(encoder, one_frame(learned), pool=False), test["one frame"])
        scores += [{"features": name, "frames": kind} | answers(p, task.test_labels) for kind, p in said.items()]
    return {"scores": scores}


STUDIES = {
    "surface": Study("what needs no encoder: majority, colours, frame differences, supervised training", surface, (0,)),
    "probes": Study("one encoder asked with other probes and several clips", probes, (0, 1, 2)),
    "perturbed": Study("frames shuffled, reversed or repeated when the linear probe is asked", perturbed, (0, 1, 2)),
    "finetuned": Study("supervised training from pre-trained weights and from scratch", finetuned, (0, 1, 2)),
    "labels": Study("linear probe with few labels, features and pixels predicted", labels, (0, 1, 2)),
    "appearance": Study("actions and scenes, trained on clips and on still frames", appearance, (0, 1, 2)),
    "order": Study("the same frames, attentive probe", partial(perturbed, probe="attentive"), (0, 1, 2)),
}
