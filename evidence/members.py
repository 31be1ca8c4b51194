"""What studies of committees share: more videos to ask about, heads of many kinds on one encoder, and every vote.

The 4 000 more videos are the stand-in's own list of the labelled classes, continued: nobody trains on them or chooses
by them.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import brier_score_loss
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

import standin
from evidence.baselines import colour_histogram, frame_differences
from evidence.experiments import run_of
from footage import workers
from footage.videos import read_clips
from picojepa import data, ensemble, require, store
from picojepa.architecture import new_encoder
from picojepa.clips import Clips, label_numbers
from picojepa.config import Settings
from picojepa.ensemble import PARTIALS, majority_vote, soft_vote
from picojepa.features import encode, load_encoder
from picojepa.fitting import ProbeConfig
from picojepa.machine import device, seeded
from picojepa.probing import AttentiveHead, LinearHead, head_scores, knn_probe, linear_probe, make_task, train_head

TEST_LARGE = store.Stage("evidence.test_large", version=1)
LARGE = 1000  # more videos of each labelled class
FOLDS = 5  # of the training videos, for answers to videos that a member has not learned from
BINS = 10  # of certainty, for calibration
HIDDEN = 512  # units of the wide head: more weights than four linear heads together

Answers = dict[str, np.ndarray]  # by what is asked (folds, validation, large): probabilities (n, classes)
Fit = Callable[[np.ndarray, Mapping[str, np.ndarray]], Answers]  # (training rows, asked rows by name) -> answers


def one_more(row: dict[str, Any], settings: Settings) -> np.ndarray:
    """Centre clip of one more video of the stand-in, uint8 (T, C, H, W); its file is not kept."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / row["path"]
        path.parent.mkdir(parents=True)
        standin.write_video(row, settings.data, Path(folder))
        return read_clips(path, settings.clip, [0.5]).numpy()[0]


def large_test(settings: Settings, classes: tuple[str, ...], each: int = LARGE) -> tuple[np.ndarray, Tensor]:
    """Clips of unseen videos, uint8 (n, T, C, H, W), and their class numbers; made once.

    Raises:
        ValueError: the book is built with one's own videos, of which no more can be made.
    """
    require(data.source() is None, "more videos can be made of the stand-in only; unset PICOJEPA_DATA")
    decoded = {"clip": store.plain(settings.clip), "decoder": data.DECODED.version}
    with store.result(TEST_LARGE, {"each": each, **decoded, **standin.made_from(settings.data)}) as result:
        if result.missing:
            longer = replace(settings.data, validation_scale=settings.data.validation_scale + (each + 1) / 48)
            known, plan = set(standin.plan(settings.data).path), standin.plan(longer)
            unseen = plan[plan.labelled & (plan.split == "validation") & ~plan.path.isin(known)]
            more = unseen.groupby("label").head(each)
            with ProcessPoolExecutor(None, workers.context(__name__), workers.end_with_parent) as pool:
                draw = partial(one_more, settings=settings)
                pixels = np.stack(list(pool.map(draw, more.to_dict("records"), chunksize=8)))
            np.save(result.folder / "centre.npy", pixels)
            more.to_csv(result.folder / "videos.csv", index=False)
    labels = pd.read_csv(result.folder / "videos.csv").label
    return np.load(result.folder / "centre.npy"), label_numbers(labels, classes)


def wide_head(width: int, classes: int) -> nn.Module:
    """A head with a layer of `HIDDEN` units: pooled features (B, D) -> logits (B, classes)."""
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, classes))


def head_on(
    features: Tensor,
    labels: Tensor,
    config: ProbeConfig,
    make: Callable[[int, int], nn.Module] = LinearHead,
    epochs: int | None = None,
    peak: float | None = None,
) -> Fit:
    """A way to fit: a head of some kind on stored features (n, ...); epochs and rate are those of linear heads."""

    def fit(train: np.ndarray, asked: Mapping[str, np.ndarray]) -> Answers:
        with seeded(config.seed):
            head = make(features.shape[-1], int(labels.max()) + 1)
        rate = config.learning_rate if peak is None else peak
        train_head(head, [features[train]], labels[train], epochs or config.epochs, rate, config)
        return {name: head_scores(head, features[rows]) for name, rows in asked.items()}

    return fit


def neighbours_on(features: Tensor, labels: Tensor, count: int) -> Fit:
    """A way to fit: nearest neighbours among stored features (n, D)."""

    def fit(train: np.ndarray, asked: Mapping[str, np.ndarray]) -> Answers:
        known = features[train].numpy(), labels[train].numpy()
        return {name: knn_probe(*known, features[rows].numpy(), count) for name, rows in asked.items()}

    return fit


def member(fit: Fit, rows: np.ndarray, folds: list[np.ndarray], asked: Mapping[str, np.ndarray]) -> Answers:
    """Answers of a member that learned from ``rows``; to each fold those of a twin that has not seen the fold.

    A row that was drawn several times, as in a bag, counts as often for the twin.
    """
    if not folds:
        return fit(rows, asked)
    apart = [fit(rows[~np.isin(rows, fold)], {"fold": fold})["fold"] for fold in folds]
    return fit(rows, asked) | {"folds": np.concatenate(apart)[np.argsort(np.concatenate(folds))]}


def parts_of(labels: Tensor, count: int, seed: int) -> list[np.ndarray]:
    """Row numbers of a list, cut at random into disjoint parts with the same share of each class."""
    cut = StratifiedKFold(count, shuffle=True, random_state=seed)
    return [part for _, part in cut.split(np.zeros(len(labels)), labels)]


def committee(members: list[Answers], labels: Tensor) -> dict[str, Answers]:
    """What a committee decides by every rule; weights and the stack are learned on the folds alone."""
    asked = [name for name in members[0] if name != "folds"]
    scores = {name: np.stack([answers[name] for answers in members]) for name in members[0]}  # (members, n, classes)
    decided: dict[str, Answers] = {"soft": {name: soft_vote(scores[name]) for name in asked}}
    for rule in ensemble.TIE_RULES:
        one_hot = {n: np.eye(scores[n].shape[-1])[majority_vote(scores[n], rule)] for n in asked}
        decided["hard" if rule == "summed certainty" else f"hard, {rule}"] = one_hot
    if "folds" in scores:
        right = (scores["folds"].argmax(-1) == labels.numpy()).mean(-1)  # (members,)
        decided["weighted"] = {n: np.average(scores[n], axis=0, weights=right) for n in asked}
        flat = {name: np.concatenate(list(of), axis=-1) for name, of in scores.items()}  # (n, members * classes)
        decided["stack"] = {n: linear_probe(flat["folds"], labels.numpy(), flat[n]) for n in asked}
    return decided


def calibration(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Brier score, expected calibration error and its bins (certainty, accuracy, videos) of scores (n, classes)."""
    certainty, right = scores.max(-1), scores.argmax(-1) == labels
    place = np.minimum((certainty * BINS).astype(int), BINS - 1)
    bins = [[certainty[place == b].mean(), right[place == b].mean(), int((place == b).sum())] for b in np.unique(place)]
    error = sum(abs(sure - share) * count for sure, share, count in bins) / len(labels)
    brier = brier_score_loss(labels, scores, labels=list(range(scores.shape[-1])))
    return {"brier": float(brier), "ece": float(error), "bins": [[round(float(x), 4) for x in row] for row in bins]}


class Bench:
    """Stored features of one encoder, and the rows to learn from and to be asked about."""

    def __init__(self, base: Settings, clips: Clips, seed: int) -> None:
        self.settings, self.run = run_of("primary", base, clips, seed)
        self.encoder = load_encoder(self.run / "encoder.safetensors", self.settings)
        task = make_task(clips, data.labelled_classes(clips.videos), labelled_only=True)
        more, large_labels = large_test(base, task.classes)
        self.pixels = [clips.centre[task.train], clips.centre[task.test], more]
        self.labels, self.wanted = task.train_labels, {"validation": task.test_labels, "large": large_labels}
        ends = np.cumsum([len(part) for part in self.pixels])
        self.train = np.arange(ends[0])
        self.asked = {"validation": np.arange(ends[0], ends[1]), "large": np.arange(ends[1], ends[2])}
        self.quarters = [np.searchsorted(task.train, ensemble.member_rows(clips, name)) for name in PARTIALS]
        self.folds = parts_of(self.labels, FOLDS, seed)
        self.tokens = self.encoded(self.encoder)
        self.pooled = self.tokens.mean(1)

    def encoded(self, encoder: nn.Module) -> Tensor:
        """Token features (n, N, D) of all videos."""
        return torch.cat([encode(encoder, part, pool=False) for part in self.pixels])

    def head(self, seed: int = 0, **changes: Any) -> Fit:
        """A linear head as in chapter 6, with some numbers changed."""
        config = replace(self.settings.probe, seed=self.settings.probe.seed + seed, **changes)
        return head_on(self.pooled, self.labels, config)

    def answers_of(self, fit: Fit, rows: np.ndarray | None = None) -> Answers:
        """Answers of a member that learned from some rows, or from the whole labelled list; see `member`."""
        return member(fit, self.train if rows is None else rows, self.folds, self.asked)

    def surface(self, base: Settings, seed: int) -> dict[str, Answers]:
        """What the same videos give without a trained encoder: random weights, colours, frame differences."""
        rows = {"train": self.train, **self.asked}
        untrained = self.encoded(new_encoder(base.model, base.grid, seed).to(device())).mean(1)
        head = head_on(untrained, self.labels, self.settings.probe)
        found = {"General, random weights": head(self.train, self.asked)}
        for name, describe in {"colour histogram": colour_histogram, "frame differences": frame_differences}.items():
            numbers = dict(zip(rows, map(describe, self.pixels), strict=True))
            learn = partial(linear_probe, numbers["train"], self.labels.numpy())
            found[f"{name}, linear probe"] = {asked: learn(numbers[asked]) for asked in self.asked}
        return found

    def half_way(self) -> Tensor:
        """Pooled features (n, D) as they leave the middle block of the encoder, standardised on the training rows."""
        kept: list[Tensor] = []
        block = self.encoder.blocks[self.settings.model.depth // 2 - 1]
        hook = block.register_forward_hook(lambda _, __, out: kept.append(out.mean(1).cpu()))
        self.encoded(self.encoder)
        hook.remove()
        early = torch.cat(kept)
        return (early - early[self.train].mean(0)) / early[self.train].std(0)

    def kinds(self) -> dict[str, Fit]:
        """Heads of unlike kinds: type, and depth that is read."""
        config, attentive = self.settings.probe, partial(AttentiveHead, heads=self.settings.model.heads)
        long, rate = config.attentive_epochs, config.attentive_learning_rate
        return {
            "wide": head_on(self.pooled, self.labels, config, wide_head, peak=rate),
            "attentive": head_on(self.tokens, self.labels, config, attentive, long, rate),
            "nearest": neighbours_on(self.pooled, self.labels, config.neighbours),
            "half the depth": head_on(self.half_way(), self.labels, config),
        }

    def card(self, answers: dict[str, Answers], decided: dict[str, Answers]) -> dict[str, Any]:
        """Answers of members and committees with the labels, as plain values."""
        with_scores = {*answers, *(name for name in decided if name.endswith((": soft", ": stack", ": weighted")))}
        sheets = {name: self.sheet(of, name in with_scores) for name, of in (answers | decided).items()}
        labels = {name: "".join(map(str, of.tolist())) for name, of in self.wanted.items()}
        return {"run": self.run.name, "labels": labels, "sheets": sheets}

    def sheet(self, answers: Answers, probabilities: bool) -> dict[str, Any]:
        """What a card keeps of one member or committee: decisions video by video; certainty and calibration."""
        kept: dict[str, Any] = decisions({name: answers[name] for name in self.asked})
        if probabilities:
            kept["certainty"] = {name: round(float(answers[name].max(-1).mean()), 5) for name in self.asked}
            kept["calibration"] = calibration(answers["large"], self.wanted["large"].numpy())
        return kept


def decisions(answers: Answers) -> dict[str, str]:
    """The class of every video, as one digit per video."""
    return {name: "".join(map(str, of.argmax(-1))) for name, of in answers.items()}
