"""More questions to frozen encoders: other probes, several clips, few labels, scenes, and frames out of order.

What each comparison tests is written in `PLANNED`, which was fixed before any of its results was seen.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evidence.experiments import run_of
from evidence.studies import Study
from picojepa import probing
from picojepa.architecture import Encoder, new_encoder
from picojepa.clips import Clips, label_numbers
from picojepa.config import Settings
from picojepa.data import read_clips
from picojepa.features import encode, load_encoder
from picojepa.heads import LinearHead, train_head
from picojepa.machine import device, seeded
from picojepa.probing import Task, linear_probe, make_task
from standin import CLASSES, LABELLED_CLASSES

TASKS = {10: (CLASSES, False), 4: (LABELLED_CLASSES, True)}  # number of classes -> names, labelled list only?
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

# ---------------------------------------------------------------- what all studies share


def answers(scores: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Right answers of probabilities (n, classes), counted and as one digit per video."""
    return counted(scores.argmax(1) == truth)


def counted(right: np.ndarray) -> dict[str, Any]:
    """Right answers, bool (n,), counted and as one digit per video."""
    return {"right": int(right.sum()), "n": len(right), "by_video": "".join(map(str, right.astype(int)))}


def encoders_of(names: tuple[str, ...], base: Settings, clips: Clips, seed: int) -> dict[str, Encoder]:
    """Frozen encoders of one seed by name, random weights last."""
    found = {}
    for name in names:
        chosen, folder = run_of(TRAINED[name], base, clips, seed)
        found[name] = load_encoder(folder / "encoder.safetensors", chosen)
    return found | {"random weights": new_encoder(base.model, base.grid, seed).to(device())}


def frame_differences(clips: np.ndarray) -> np.ndarray:
    """Where something moves: absolute difference of neighbouring frames in 16 x 16 places, (n, T, 3, H, W) -> (n, 256).

    Book: chapter 1.
    """
    moved = np.stack([np.abs(np.diff(clip.astype(np.float32), axis=0)).mean((0, 1)) for clip in clips])
    return F.adaptive_avg_pool2d(torch.from_numpy(moved)[:, None], 16).flatten(1).numpy()


def scene_task(clips: Clips) -> Task:
    """All videos, and the scene in place of the action."""
    task = make_task(clips, CLASSES)
    train, test = (label_numbers(clips.videos.scene.iloc[rows]) for rows in (task.train, task.test))
    return replace(task, train_labels=train, test_labels=test)


def lead(scores: list[dict[str, Any]], one: str, other: str, **which: Any) -> float:
    """Points by which one kind of features is ahead of another, where the rest of a score is as given."""
    found = {s["features"]: 100 * float(np.mean(s["right"])) / s["n"] for s in scores if which.items() <= s.items()}
    return found[one] - found[other]


def linear(features: np.ndarray, task: Task) -> dict[str, Any]:
    """Answers of the linear probe to convergence on features of all centre clips."""
    scores = linear_probe(features[task.train], task.train_labels.numpy(), features[task.test])
    return answers(scores, task.test_labels.numpy())


# ---------------------------------------------------------------- surface: what needs no encoder


def surface(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Majority class and colour histogram, and for actions frame differences, the true scene, supervised training."""
    features = {
        "colour histogram": probing.colour_histogram(clips.centre),
        "frame differences": frame_differences(clips.centre),
        "scene, from the list": pd.get_dummies(clips.videos.scene).to_numpy(float),
    }
    asked = {f"{n} classes": make_task(clips, *question) for n, question in TASKS.items()}
    scores = []
    for name, task in (asked | {"scenes": scene_task(clips)}).items():
        truth, favourite = task.test_labels.numpy(), int(task.train_labels.bincount().argmax())
        votes = np.eye(len(task.classes))[[favourite] * len(truth)]
        scores.append({"task": name, "features": "majority class", **answers(votes, truth)})
        for kind in features if name in asked else ("colour histogram",):
            scores.append({"task": name, "features": kind, **linear(features[kind], task)})
        if name in asked:
            table = probing.probe_baselines(base, clips, task).query("features == 'supervised'")
            right = (table.predicted == table.label).to_numpy()
            scores.append({"task": name, "features": "supervised", **counted(right)})
    return {"scores": scores}


# ---------------------------------------------------------------- probes: how one asks


def trained_head(head: Callable[[int, int], nn.Module], rate: float, epochs: int, settings: Settings) -> Callable:
    """A probe whose head is trained by gradient descent: (train, labels, test) -> probabilities (n_test, classes)."""

    def probe(train: Tensor, labels: Tensor, test: Tensor) -> np.ndarray:
        with seeded(settings.probe.seed):
            made = head(train.shape[1], int(labels.max()) + 1)
        train_head(made, [train], labels, epochs, rate, settings.probe)
        with torch.no_grad():
            return made(test).softmax(-1).numpy()

    return probe


def mlp(width: int, classes: int) -> nn.Module:
    """A head with one hidden layer, on features brought to zero mean and unit spread."""
    hidden = [nn.Linear(width, width), nn.GELU(), nn.Linear(width, classes)]
    return nn.Sequential(nn.BatchNorm1d(width, affine=False), *hidden)


def probes(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Pre-trained and random features of one seed, each asked in eight ways, ten and four classes."""
    config, scores = base.probe, []
    everywhere = make_task(clips, CLASSES).test
    read = [read_clips(path, base.clip, POSITIONS).numpy() for path in clips.videos.path.iloc[everywhere]]
    more = np.stack(read)  # (n_test, positions, T, 3, H, W)
    chosen, run = run_of("primary", base, clips, seed)
    heads = {
        "linear, the paper's recipe": trained_head(LinearHead, config.learning_rate, config.epochs, base),
        "MLP": trained_head(mlp, config.attentive_learning_rate, config.attentive_epochs, base),
    }
    tasks = {n: make_task(clips, *question) for n, question in TASKS.items()}
    for n, task in tasks.items():
        table = probing.probe_run(chosen, clips, run, task)
        for (features, probe), group in table.groupby(["features", "probe"], sort=False):
            right = (group.predicted == group.label).to_numpy()
            row = {"classes": n, "features": features, "probe": probe}
            scores.append(row | counted(right))
    for name, encoder in encoders_of(("pre-trained",), base, clips, seed).items():
        centre = encode(encoder, clips.centre)
        random = torch.stack([encode(encoder, clips.training[:, i]) for i in range(clips.training.shape[1])], 1)
        others = torch.stack([encode(encoder, more[:, i]) for i in range(len(POSITIONS))])
        for n, task in tasks.items():
            train, labels, test, truth = centre[task.train], task.train_labels, centre[task.test], task.test_labels
            seen = torch.cat([test[None], others[:, np.isin(everywhere, task.test)]])  # (clips, n_test, D)
            found = {kind: probe(train, labels, test) for kind, probe in heads.items()}
            found["linear, three test clips"] = several(train, labels, seen).mean(0)
            four = random[task.train].flatten(0, 1)  # clips of a video are neighbours, so that folds keep them together
            of_clip = several(four, labels.repeat_interleave(random.shape[1]), seen)
            found["linear, four training clips"] = of_clip[0]  # of the centre
            found["linear, four training and three test clips"] = of_clip.mean(0)
            row = {"classes": n, "features": name}
            scores += [row | {"probe": kind} | answers(p, truth.numpy()) for kind, p in found.items()]
    return {"scores": scores}


def several(train: Tensor, labels: Tensor, test: Tensor) -> np.ndarray:
    """Linear probe on several clips of a test video, (clips, n_test, D) -> probabilities (clips, n_test, classes)."""
    scores = linear_probe(train.numpy(), labels.numpy(), test.flatten(0, 1).numpy())
    return scores.reshape(*test.shape[:2], -1)


# ---------------------------------------------------------------- finetuned: the encoder learns too


def finetuned(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Supervised training from scratch and from pre-trained weights, with all labels and with a tenth of them.

    Recipe, learning rate and clips seen are the same for both starts; all labels get half of the clips that the
    book's supervised baseline sees, a tenth of them an eighth.
    """
    whole, scores = make_task(clips, CLASSES), []
    for share, part in ((1.0, 2), (0.1, 8)):
        rows = subset(whole.train_labels.numpy(), share, seed, 0)
        task = replace(whole, train=whole.train[rows], train_labels=whole.train_labels[rows])
        config = replace(base.probe, supervised_clips=base.probe.supervised_clips // part, seed=seed)
        settings, facts = replace(base, probe=config), {"share": share, "clips": config.supervised_clips}
        for name, start in encoders_of(("pre-trained",), base, clips, seed).items():
            frozen = linear(encode(start, clips.centre).numpy(), task)
            scores.append(facts | {"start": name, "clips": 0, "encoder": "frozen", "videos": len(rows)} | frozen)
            with patch.object(probing, "new_encoder", lambda *_, start=start: start):
                found = probing.supervised(settings, clips, task)
            row = facts | {"start": name, "encoder": "trained", "videos": len(rows)}
            scores.append(row | answers(found, task.test_labels.numpy()))
    return {"scores": scores}


# ---------------------------------------------------------------- labels: how many are needed


def subset(labels: np.ndarray, share: float, seed: int, draw: int) -> np.ndarray:
    """Row numbers of a share of the videos, the same share of every class and at least one of each."""
    random = np.random.default_rng([seed, draw, round(1000 * share)])
    of_class = [random.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    return np.sort(np.concatenate([rows[: max(1, round(share * len(rows)))] for rows in of_class]))


def labels(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Linear probe with a share of the labels; every encoder learns from the same videos."""
    task, scores = make_task(clips, CLASSES), []
    names = ("pre-trained", "pixel prediction")
    features = {k: encode(e, clips.centre).numpy() for k, e in encoders_of(names, base, clips, seed).items()}
    features["colour histogram"] = probing.colour_histogram(clips.centre)
    for share, draws in SHARES.items():
        chosen = [subset(task.train_labels.numpy(), share, seed, draw) for draw in range(draws)]
        few = [replace(task, train=task.train[rows], train_labels=task.train_labels[rows]) for rows in chosen]
        for name, x in features.items():
            found = [linear(x, part) for part in few]
            counts = np.sum([[int(digit) for digit in one["by_video"]] for one in found], axis=0)  # of draws
            row = {"features": name, "share": share, "videos": len(chosen[0]), "n": len(counts)}
            scores.append(row | {"right": [f["right"] for f in found], "by_video": "".join(map(str, counts))})
    ahead = {share: lead(scores, *names, share=share) for share in SHARES}
    return {"scores": scores, "claims": {"V7": float(np.mean([ahead[share] for share in FEW]) - ahead[1.0])}}


# ---------------------------------------------------------------- appearance: motion or background


def appearance(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Actions and scenes, read from an encoder trained on clips, one trained on still frames, and random weights."""
    tasks, scores = {"actions": make_task(clips, CLASSES), "scenes": scene_task(clips)}, []
    for name, encoder in encoders_of(("pre-trained", "still frames"), base, clips, seed).items():
        x = encode(encoder, clips.centre).numpy()
        scores += [{"task": asked, "features": name} | linear(x, task) for asked, task in tasks.items()]
    ahead = {asked: lead(scores, "pre-trained", "still frames", task=asked) for asked in tasks}
    claims = {f"V8 {asked}": points for asked, points in ahead.items()}
    return {"scores": scores, "claims": claims | {"V8 scenes, granted": ahead["scenes"] + MARGIN}}


# ---------------------------------------------------------------- perturbed: frames out of order


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


def ask_mean(train: Tensor, labels: Tensor, test: Tensor, base: Settings) -> np.ndarray:
    """Linear probe on the mean of tokens (n, N, D)."""
    return linear_probe(train.mean(1).numpy(), labels.numpy(), test.mean(1).numpy())


def ask_tokens(train: Tensor, labels: Tensor, test: Tensor, base: Settings) -> np.ndarray:
    """Attentive probe on tokens (n, N, D)."""
    return probing.attentive_probe(train, labels, test, base, len(CLASSES))


def perturbed(base: Settings, clips: Clips, seed: int, ask: Callable = ask_mean) -> dict[str, Any]:
    """A probe that learned from ordinary clips, asked about clips whose frames are in another order or all alike."""
    task, scores = make_task(clips, CLASSES), []
    asked, labels, truth = clips.centre[task.test], task.train_labels, task.test_labels.numpy()
    shown = {
        "as they are": asked,
        "reversed": asked[:, ::-1],
        "pairs shuffled": reordered(asked, base.model.tubelet),
        "shuffled": reordered(asked),
        "one frame": one_frame(asked),
    }
    for name, encoder in encoders_of(("pre-trained",), base, clips, seed).items():
        train = encode(encoder, clips.centre[task.train], pool=False)
        test = {kind: encode(encoder, clip, pool=False) for kind, clip in shown.items()}
        found = np.split(ask(train, labels, torch.cat(list(test.values())), base), len(shown))
        still = encode(encoder, one_frame(clips.centre[task.train]), pool=False)
        found.append(ask(still, labels, test["one frame"], base))
        kinds = (*shown, "one frame, also in training")
        scores += [{"features": name, "frames": k} | answers(p, truth) for k, p in zip(kinds, found, strict=True)]
    return {"scores": scores}


STUDIES = {
    "surface": Study("what needs no encoder: majority, colours, frame differences, supervised training", surface, (0,)),
    "probes": Study("one encoder asked with other probes and several clips", probes, (0, 1, 2)),
    "perturbed": Study("frames shuffled, reversed or repeated when the linear probe is asked", perturbed, (0, 1, 2)),
    "finetuned": Study("supervised training from pre-trained weights and from scratch", finetuned, (0, 1, 2)),
    "labels": Study("linear probe with few labels, features and pixels predicted", labels, (0, 1, 2)),
    "appearance": Study("actions and scenes, trained on clips and on still frames", appearance, (0, 1, 2)),
    "order": Study("the same frames, attentive probe", partial(perturbed, ask=ask_tokens), (0, 1, 2)),
}
