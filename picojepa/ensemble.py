"""Four small classifiers that vote, and the one that saw everything.

All members are linear heads on one shared, frozen encoder: General learns from the whole labelled
list, Partial 1 to 4 from one quarter each.

Book: chapter 6.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from picojepa import require, store
from picojepa.architecture import Encoder
from picojepa.clips import Clips, label_numbers
from picojepa.config import Settings
from picojepa.data import labelled_classes, quarters
from picojepa.features import encode, load_encoder
from picojepa.fitting import ProbeConfig
from picojepa.machine import seeded
from picojepa.probing import (
    PREDICTIONS,
    LinearHead,
    Task,
    head_scores,
    make_task,
    prediction_table,
    read_predictions,
    train_head,
)

FITTED = store.Stage("ensemble.heads", version=1)
ANSWERS = store.Stage("ensemble.predictions", version=1)
PARTIALS = ("Partial 1", "Partial 2", "Partial 3", "Partial 4")
MEMBERS = ("General", *PARTIALS)
VOTES = ("majority vote", "soft vote")
HEADS = "heads.safetensors"


def ballots(scores: np.ndarray) -> np.ndarray:
    """How many members chose each class: scores (members, n, classes) -> counts (n, classes)."""
    chosen = scores.argmax(-1)  # (members, n)
    return (chosen[..., None] == np.arange(scores.shape[-1])).sum(0)


def leaders(scores: np.ndarray) -> np.ndarray:
    """Which classes got the most votes, bool (n, classes); more than one in a row is a tie."""
    counts = ballots(scores)
    return counts == counts.max(1, keepdims=True)


def certainty_breaks(scores: np.ndarray) -> np.ndarray:
    """Preference for the class with the largest sum of scores."""
    return scores.sum(0)


def first_member_breaks(scores: np.ndarray) -> np.ndarray:
    """Preference for the class that the earliest member chose."""
    chosen = scores.argmax(-1)[..., None] == np.arange(scores.shape[-1])  # (members, n, classes)
    return -np.where(chosen, np.arange(len(scores))[:, None, None], len(scores)).min(0)


# Rule -> preference for each class, (n, classes). That of this book is the first; it was fixed before any result.
TIE_RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "summed certainty": certainty_breaks,
    "class order": lambda scores: np.zeros(scores.shape[1:]) - np.arange(scores.shape[-1]),
    "first member": first_member_breaks,
    "by lot": lambda scores: np.random.default_rng(0).random(scores.shape[1:]),
}


def majority_vote(scores: np.ndarray, rule: str = "summed certainty") -> np.ndarray:
    """Number of the class with the most votes, (n,); ties are broken by a rule in `TIE_RULES`.

    Args:
        scores: probabilities, (members, n, classes).
        rule: its name; ValueError if it is unknown.

    Source: pico-JEPA section 3 (its rule for ties is not known). Book: chapter 6.
    """
    require(rule in TIE_RULES, f"unknown rule for ties {rule!r}; known: {', '.join(TIE_RULES)}")
    return np.where(leaders(scores), TIE_RULES[rule](scores), -np.inf).argmax(1)


def soft_vote(scores: np.ndarray) -> np.ndarray:
    """Mean of the members' probabilities: (members, n, classes) -> (n, classes)."""
    return scores.mean(0)


def average_heads(heads: list[LinearHead]) -> LinearHead:
    """One head with the mean of the weights; its logits are the mean of the heads' logits."""
    mean = LinearHead(heads[0].linear.in_features, heads[0].linear.out_features)
    with torch.no_grad():
        for name, parameter in mean.named_parameters():
            parameter.copy_(torch.stack([head.get_parameter(name) for head in heads]).mean(0))
    return mean.eval()


def member_rows(clips: Clips, member: str) -> np.ndarray:
    """Rows of the training videos that a member learns from."""
    quarter = quarters(clips.videos)
    return clips.select(quarter > 0 if member == "General" else quarter == MEMBERS.index(member))


def fit_members(
    clips: Clips, features_of: Callable[[np.ndarray], list[torch.Tensor]], config: ProbeConfig
) -> dict[str, LinearHead]:
    """Train General and the four Partials on frozen features; member number i starts and shuffles with ``seed + i``.

    Args:
        clips: the videos and their quarters.
        features_of: row numbers (n,) -> pooled features, one or several encodings (n, D); see `encodings`.
        config: training of a head.

    Raises:
        ValueError: a member has no videos. One whose list lacks a class is trained on the others.

    Source: pico-JEPA section 3. Book: chapter 6.
    """
    heads, classes = {}, labelled_classes(clips.videos)
    for number, member in enumerate(MEMBERS):
        rows = member_rows(clips, member)
        require(len(rows) > 0, f"{member} has no training videos; add labelled videos, at least four in all")
        features, labels = features_of(rows), label_numbers(clips.videos.label[rows], classes)
        with seeded(config.seed + number):
            heads[member] = LinearHead(features[0].shape[1], len(classes))
        own = replace(config, seed=config.seed + number)
        train_head(heads[member], features, labels, config.epochs, config.learning_rate, own)
    return heads


def encodings(encoder: Encoder, clips: np.ndarray, config: ProbeConfig) -> list[torch.Tensor]:
    """Pooled features (n, D) of clips: one encoding, or with ``dropout_draws`` as many, each with other dropout."""
    if config.dropout_draws == 0:
        return [encode(encoder, clips)]
    return [encode(encoder, clips, noise=config.seed + draw) for draw in range(config.dropout_draws)]


def member_inputs(settings: Settings, clips: Clips, run: Path) -> dict[str, Any]:
    """What shapes the members, for keys."""
    rows = store.digest([member_rows(clips, member).tolist() for member in MEMBERS])
    return {"run": run.name, "data": clips.digest, "rows": rows, "probe": store.plain(settings.probe)}


def train_members(settings: Settings, clips: Clips, run: Path) -> dict[str, LinearHead]:
    """Train General and the four Partials on a run's frozen encoder, or find them; see `fit_members`."""
    with store.result(FITTED, member_inputs(settings, clips, run)) as result:
        if result.missing:
            encoder, config = load_encoder(run / "encoder.safetensors", settings), settings.probe
            fitted = fit_members(clips, lambda rows: encodings(encoder, clips.centre[rows], config), config)
            weights = {f"{m}.{name}": x for m, head in fitted.items() for name, x in head.state_dict().items()}
            save_file(weights, result.folder / HEADS)
    return load_heads(result.folder, settings.model.width, len(labelled_classes(clips.videos)))


def load_heads(folder: Path, width: int, classes: int) -> dict[str, LinearHead]:
    """The heads of General and the Partials from a folder that `train_members` made."""
    weights, heads = load_file(folder / HEADS), {}
    for member in MEMBERS:
        heads[member] = LinearHead(width, classes).eval()
        heads[member].load_state_dict({name: weights[f"{member}.{name}"] for name in heads[member].state_dict()})
    return heads


def member_scores(heads: dict[str, LinearHead], features: torch.Tensor) -> np.ndarray:
    """Probabilities of every member, (members, n, classes), from pooled features (n, D)."""
    return np.stack([head_scores(head, features) for head in heads.values()])


def predictions(settings: Settings, clips: Clips, run: Path) -> pd.DataFrame:
    """What every member and both votes say of every validation video of the labelled classes, a row each.

    See `probing.prediction_table`. The certainty of a vote is the mean probability of its four voters for its answer.
    """
    task = make_task(clips, labelled_classes(clips.videos), labelled_only=True)
    with store.result(ANSWERS, member_inputs(settings, clips, run)) as result:
        if result.missing:
            encoder = load_encoder(run / "encoder.safetensors", settings)
            scores = member_scores(train_members(settings, clips, run), encode(encoder, clips.centre[task.test]))
            decide(clips, task, scores).to_csv(result.folder / PREDICTIONS, index=False)
    return read_predictions(result.folder)


def decide(clips: Clips, task: Task, scores: np.ndarray) -> pd.DataFrame:
    """Prediction table of the members, scores (5, n, classes), and of the votes of the four Partials."""
    tables = [prediction_table(clips, task, s, member=m) for m, s in zip(MEMBERS, scores, strict=True)]
    voters = scores[1:]
    mean = soft_vote(voters)
    for name, chosen in zip(VOTES, (majority_vote(voters), mean.argmax(1)), strict=True):
        table = prediction_table(clips, task, mean, member=name)
        table["predicted"] = [task.classes[i] for i in chosen]
        table["certainty"] = mean[np.arange(len(mean)), chosen]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def scores_of(table: pd.DataFrame, members: tuple[str, ...] = PARTIALS) -> np.ndarray:
    """Stored probabilities of some members, (members, n, classes), from a table of `predictions`."""
    columns = [name for name in table if name.startswith("p_")]
    return np.stack([table.loc[table.member == member, columns].to_numpy() for member in members])


def accuracy_table(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in percent by class (rows) and member (columns), with class mean and pooled share below.

    Source: pico-JEPA Table 2. Book: chapter 6.
    """
    right = (table.predicted == table.label).rename("right")
    by_class = 100 * right.groupby([table.label, table.member]).mean().unstack()
    pooled = 100 * right.groupby(table.member).mean()
    summary = pd.DataFrame({f"mean of {len(by_class)} classes": by_class.mean(), "all videos": pooled}).T
    return pd.concat([by_class, summary])[[*MEMBERS, *VOTES]]


def certainty_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean certainty in percent by class (rows) and member (columns). Source: pico-JEPA Table 3."""
    by_class = 100 * table.groupby(["label", "member"]).certainty.mean().unstack()
    return by_class[list(MEMBERS)]
