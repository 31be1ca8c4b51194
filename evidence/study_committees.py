"""Committees of many kinds on the encoders of the book, asked about the validation videos and about 4 000 more.

The 4 000 are the stand-in's own list of the labelled classes, continued: nobody trains on them or chooses by them.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import brier_score_loss
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

import standin
from evidence.experiments import EXPERIMENTS, run_of
from evidence.records import CARDS
from evidence.studies import Study
from evidence.study_probes import frame_differences
from picojepa import ensemble, store, workers
from picojepa.architecture import Encoder, new_encoder
from picojepa.clips import ClipConfig, Clips, label_numbers
from picojepa.config import PROFILES, Settings
from picojepa.ensemble import PARTIALS, majority_vote, soft_vote
from picojepa.features import encode, load_encoder
from picojepa.fitting import ProbeConfig
from picojepa.heads import AttentiveHead, LinearHead, train_head
from picojepa.machine import device, seeded
from picojepa.probing import colour_histogram, knn_probe, linear_probe, make_task
from picojepa.videos import read_clips
from standin import LABELLED_CLASSES, StandInConfig

LARGE = 1000  # more videos of each labelled class
FOLDS = 5  # of the training videos, for answers to videos that a member has not learned from
BINS = 10  # of certainty, for calibration
COUNTS = (2, 3, 4, 6, 8, 12)  # into how many disjoint parts the labelled list is cut
HIDDEN = 512  # units of the wide head: more weights than four linear heads together

Answers = dict[str, np.ndarray]  # by what is asked (folds, validation, large): probabilities (n, classes)


# ---------------------------------------------------------------- 4 000 more videos


def one_more(row: dict[str, Any], config: StandInConfig, clip: ClipConfig, folder: Path) -> np.ndarray:
    """Centre clip of one more video, uint8 (T, C, H, W); its file is removed again."""
    standin.write_video(row, config, folder)
    path = folder / row["path"]
    pixels = read_clips(path, clip, [0.5]).numpy()[0]
    path.unlink()
    return pixels


def large_test(settings: Settings, each: int = LARGE) -> tuple[np.ndarray, Tensor]:
    """Clips of unseen videos, uint8 (n, T, C, H, W), and their class numbers; made once."""

    def make(folder: Path) -> None:
        longer = replace(settings.data, validation_scale=settings.data.validation_scale + (each + 1) / 48)
        known, plan = set(standin.plan(settings.data).path), standin.plan(longer)
        more = plan[plan.labelled & (plan.split == "validation") & ~plan.path.isin(known)].groupby("label").head(each)
        for parent in {(folder / path).parent for path in more.path}:
            parent.mkdir(parents=True, exist_ok=True)
        draw = partial(one_more, config=settings.data, clip=settings.clip, folder=folder)
        with ProcessPoolExecutor(None, workers.context(__name__), workers.end_with_parent) as pool:
            pixels = np.stack(list(pool.map(draw, more.to_dict("records"), chunksize=8)))
        np.save(folder / "centre.npy", pixels)
        more.to_csv(folder / "videos.csv", index=False)

    inputs = {"each": each, "data": store.digest(settings.as_dict()["data"]), "clip": settings.as_dict()["clip"]}
    folder = store.result("data.test_large", inputs, make)
    return np.load(folder / "centre.npy"), label_numbers(pd.read_csv(folder / "videos.csv").label, LABELLED_CLASSES)


# ---------------------------------------------------------------- members


class WideHead(nn.Module):
    """Mean over tokens, then a layer of `HIDDEN` units: (B, N, D) or (B, D) -> logits (B, classes)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, classes))

    def forward(self, features: Tensor) -> Tensor:
        """Logits, one per class."""
        return self.layers(features.mean(1) if features.ndim == 3 else features)


Fit = Callable[[np.ndarray, Mapping[str, np.ndarray]], Answers]  # (training rows, asked rows by name) -> answers


def head_on(
    features: Tensor,
    labels: Tensor,
    make: Callable[[int, int], nn.Module],
    epochs: int,
    peak: float,
    config: ProbeConfig,
) -> Fit:
    """A way to fit: a head of some kind on stored features (n, ...)."""

    def fit(train: np.ndarray, asked: Mapping[str, np.ndarray]) -> Answers:
        with seeded(config.seed):
            head = make(features.shape[-1], len(LABELLED_CLASSES))
        train_head(head, [features[train]], labels[train], epochs, peak, config)
        with torch.no_grad():
            return {name: head(features[rows]).softmax(-1).numpy() for name, rows in asked.items()}

    return fit


def neighbours_on(features: Tensor, labels: Tensor, count: int) -> Fit:
    """A way to fit: nearest neighbours among stored features (n, D)."""

    def fit(train: np.ndarray, asked: Mapping[str, np.ndarray]) -> Answers:
        known, answers = (features[train].numpy(), labels[train].numpy()), {}
        for name, rows in asked.items():
            answers[name] = knn_probe(*known, features[rows].numpy(), count)
        return answers

    return fit


def member(fit: Fit, rows: np.ndarray, folds: list[np.ndarray], asked: Mapping[str, np.ndarray]) -> Answers:
    """Answers of a member that learned from ``rows``; to each fold those of a twin that has not seen the fold."""
    if not folds:
        return fit(rows, asked)
    apart = [fit(np.setdiff1d(rows, fold), {"fold": fold})["fold"] for fold in folds]
    return fit(rows, asked) | {"folds": np.concatenate(apart)[np.argsort(np.concatenate(folds))]}


def parts_of(labels: Tensor, count: int, seed: int) -> list[np.ndarray]:
    """Row numbers of a list, cut at random into disjoint parts with the same share of each class."""
    cut = StratifiedKFold(count, shuffle=True, random_state=seed)
    return [part for _, part in cut.split(np.zeros(len(labels)), labels)]


# ---------------------------------------------------------------- committees


def committee(members: list[Answers], labels: Tensor) -> dict[str, Answers]:
    """What a committee decides by every rule; weights and the stack are learned on the folds alone."""
    asked = [name for name in members[0] if name != "folds"]
    scores = {name: np.stack([answers[name] for answers in members]) for name in members[0]}  # (members, n, classes)
    decided: dict[str, Answers] = {"soft": {name: soft_vote(scores[name]) for name in asked}}
    for rule in ensemble.TIE_RULES:
        one_hot = {n: np.eye(len(LABELLED_CLASSES))[majority_vote(scores[n], rule)] for n in asked}
        decided["hard" if rule == "summed certainty" else f"hard, {rule}"] = one_hot
    if "folds" in scores:
        right = (scores["folds"].argmax(-1) == labels.numpy()).mean(-1)  # (members,)
        decided["weighted"] = {n: np.average(scores[n], axis=0, weights=right) for n in asked}
        flat = {name: np.concatenate(list(of), axis=-1) for name, of in scores.items()}  # (n, members * classes)
        learn = partial(linear_probe, flat["folds"], labels.numpy())
        decided["stack"] = {n: learn(flat[n]) for n in asked}
    return decided


def calibration(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Brier score, expected calibration error and its bins (certainty, accuracy, videos) of scores (n, classes)."""
    certainty, right = scores.max(-1), scores.argmax(-1) == labels
    place = np.minimum((certainty * BINS).astype(int), BINS - 1)
    bins = [[certainty[place == b].mean(), right[place == b].mean(), int((place == b).sum())] for b in np.unique(place)]
    error = sum(abs(sure - share) * count for sure, share, count in bins) / len(labels)
    brier = brier_score_loss(labels, scores, labels=list(range(scores.shape[-1])))
    return {"brier": float(brier), "ece": float(error), "bins": [[round(float(x), 4) for x in row] for row in bins]}


def told(answers: Answers, labels: Tensor, probabilities: bool) -> dict[str, Any]:
    """What a card keeps of one member or committee: decisions video by video; certainty and calibration."""
    kept: dict[str, Any] = {n: "".join(map(str, answers[n].argmax(-1))) for n in ("validation", "large")}
    if probabilities:
        kept["certainty"] = {n: round(float(answers[n].max(-1).mean()), 5) for n in ("validation", "large")}
        kept["calibration"] = calibration(answers["large"], labels.numpy())
    return kept


class Bench:
    """Stored features of one encoder and the rows to learn from and to be asked about."""

    def __init__(self, base: Settings, clips: Clips, seed: int) -> None:
        self.settings, self.run = run_of("primary", base, clips, seed)
        self.encoder = load_encoder(self.run / "encoder.safetensors", self.settings)
        task = make_task(clips, LABELLED_CLASSES, labelled_only=True)
        more, self.large_labels = large_test(base)
        self.pixels = [clips.centre[task.train], clips.centre[task.test], more]
        self.labels, self.validation_labels = task.train_labels, task.test_labels
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
        return head_on(self.pooled, self.labels, LinearHead, config.epochs, config.learning_rate, config)

    def surface(self, base: Settings, seed: int) -> dict[str, Answers]:
        """What the same videos give without a trained encoder: random weights, colours, frame differences."""
        config, rows = self.settings.probe, {"train": self.train, **self.asked}
        untrained = self.encoded(new_encoder(base.model, base.grid, seed).to(device())).mean(1)
        head = head_on(untrained, self.labels, LinearHead, config.epochs, config.learning_rate, config)
        found = {"General, random weights": head(self.train, self.asked)}
        for name, describe in {"colour histogram": colour_histogram, "frame differences": frame_differences}.items():
            numbers = dict(zip(rows, map(describe, self.pixels), strict=True))
            learn = partial(linear_probe, numbers["train"], self.labels.numpy())
            found[f"{name}, linear probe"] = {asked: learn(numbers[asked]) for asked in self.asked}
        return found

    def after_block(self, block: int) -> Tensor:
        """Pooled features (n, D) as they leave an earlier block of the encoder."""
        kept: list[Tensor] = []
        hook = self.encoder.blocks[block - 1].register_forward_hook(lambda _, __, out: kept.append(out.mean(1).cpu()))
        self.encoded(self.encoder)
        hook.remove()
        return torch.cat(kept)

    def small_patches(self, base: Settings, clips: Clips, seed: int) -> Fit:
        """A linear head on another encoder, whose patches have half the size."""
        fine, run = run_of("8x8", base, clips, seed)
        pooled = self.encoded(load_encoder(run / "encoder.safetensors", fine)).mean(1)
        config = self.settings.probe
        return head_on(pooled, self.labels, LinearHead, config.epochs, config.learning_rate, config)

    def kinds(self) -> dict[str, Fit]:
        """Heads of unlike kinds: type, and depth that is read."""
        config = self.settings.probe
        attentive = partial(AttentiveHead, heads=self.settings.model.heads)
        long, rate = config.attentive_epochs, config.attentive_learning_rate
        early = self.after_block(self.settings.model.depth // 2)
        early = (early - early[self.train].mean(0)) / early[self.train].std(0)
        fits = {
            "wide": head_on(self.pooled, self.labels, WideHead, config.epochs, rate, config),
            "attentive": head_on(self.tokens, self.labels, attentive, long, rate, config),
            "nearest": neighbours_on(self.pooled, self.labels, config.neighbours),
            "half the depth": head_on(early, self.labels, LinearHead, config.epochs, config.learning_rate, config),
        }
        return fits


def committees(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Every committee on one shared encoder: quarters, bags, other seeds, unlike kinds, and more members."""
    bench = Bench(base, clips, seed)
    everything, random = bench.train, np.random.default_rng(seed)
    bags = [random.choice(everything, len(everything)) for _ in PARTIALS]
    kinds = bench.kinds()
    recipes: dict[str, list[tuple[str, Fit, np.ndarray]]] = {
        "quarters": [(f"Partial {i}", bench.head(i), rows) for i, rows in enumerate(bench.quarters, 1)],
        "bags": [(f"bag {i}", bench.head(i), rows) for i, rows in enumerate(bags, 1)],
        "seeds": [(f"seed {i}", bench.head(i), everything) for i in range(1, 5)],
        "kinds": [("General", bench.head(), everything), *((name, fit, everything) for name, fit in kinds.items())],
        "kinds on quarters": [
            (f"{name}, quarter {i}", kinds[name], rows)
            for i, (name, rows) in enumerate(zip(list(kinds)[:4], bench.quarters, strict=True), 1)
        ],
    }
    answers: dict[str, Answers] = {}
    decided: dict[str, Answers] = {}
    for group, recipe in recipes.items():
        answers |= {name: member(fit, rows, bench.folds, bench.asked) for name, fit, rows in recipe}
        votes = committee([answers[name] for name, _, _ in recipe], bench.labels)
        decided |= {f"{group}: {rule}": of for rule, of in votes.items()}
    for count in COUNTS:
        cut = parts_of(bench.labels, count, seed)
        votes = committee([bench.head(i)(rows, bench.asked) for i, rows in enumerate(cut)], bench.labels)
        decided |= {f"{count} parts: {rule}": votes[rule] for rule in ("hard", "soft")}
    answers |= bench.surface(base, seed)
    members = {group: [name for name, _, _ in recipe] for group, recipe in recipes.items()}
    return card_of(bench, answers, decided) | {"members": members}


def card_of(bench: Bench, answers: dict[str, Answers], decided: dict[str, Answers]) -> dict[str, Any]:
    """Answers of members and committees with the labels, as plain values."""
    with_scores = {name for name in decided if name.endswith((": soft", ": stack", ": weighted"))}
    sheets = {name: told(of, bench.large_labels, True) for name, of in answers.items()}
    sheets |= {name: told(of, bench.large_labels, name in with_scores) for name, of in decided.items()}
    labels = {"validation": bench.validation_labels, "large": bench.large_labels}
    return {
        "run": bench.run.name,
        "labels": {name: "".join(map(str, of.tolist())) for name, of in labels.items()},
        "sheets": sheets,
    }


def patches(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Heads of unlike kinds, one of them on an encoder with smaller patches."""
    bench = Bench(base, clips, seed)
    fits = {"General": bench.head(), **bench.kinds(), "small patches": bench.small_patches(base, clips, seed)}
    answers = {name: member(fit, bench.train, bench.folds, bench.asked) for name, fit in fits.items()}
    decided = {f"kinds: {rule}": of for rule, of in committee(list(answers.values()), bench.labels).items()}
    return card_of(bench, answers, decided) | {"members": {"kinds": list(answers)}}


def habits(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Heads as the published code trains them: on 80 % of each list (F7), and with as many steps for all (F11)."""
    bench = Bench(base, clips, seed)
    bench.folds = []
    random = np.random.default_rng(seed)
    lists = {"General": bench.train, **dict(zip(PARTIALS, bench.quarters, strict=True))}
    short = {key: getattr(PROFILES["paper"].probe, key) for key in ("epochs", "batch", "learning_rate")}
    answers: dict[str, Answers] = {}
    for number, (name, rows) in enumerate(lists.items()):
        most = random.permutation(rows)[: round(0.8 * len(rows))]
        longer = round(len(bench.train) / len(rows))  # epochs for one of General's, so that steps are the same
        ways = {
            "": bench.head(number),
            ", all steps": bench.head(number, epochs=longer * bench.settings.probe.epochs),
            ", published": bench.head(number, **short),
            ", published, all steps": bench.head(number, **short | {"epochs": longer * short["epochs"]}),
        }
        answers |= {name + way: member(fit, rows, [], bench.asked) for way, fit in ways.items()}
        answers[f"{name}, 80 %"] = member(bench.head(number), most, [], bench.asked)
    decided: dict[str, Answers] = {}
    for way in ("", ", 80 %", ", all steps", ", published", ", published, all steps"):
        votes = committee([answers[name + way] for name in PARTIALS], bench.labels)
        decided |= {f"quarters{way}: {rule}": votes[rule] for rule in ("hard", "soft")}
    card = card_of(bench, answers, decided)
    gaps = {way: gap(card["sheets"], "", way) for way in ("", ", all steps")}
    gaps |= {way: gap(card["sheets"], ", published", way) for way in (", published", ", published, all steps")}
    return card | {"gaps": gaps | {"by steps": gaps[", published"] - gaps[", published, all steps"]}}


def gap(sheets: dict[str, Any], general: str, partial: str) -> float:
    """How many points more certain General is than the mean of the Partials, on the large set."""
    sure = [
        100 * sheets[name]["certainty"]["large"] for name in (f"General{general}", *(p + partial for p in PARTIALS))
    ]
    return float(sure[0] - np.mean(sure[1:]))


def independent(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Committees whose members have an encoder each: quarter i on encoder i, and General on each."""
    benches = [Bench(base, clips, other) for other in EXPERIMENTS["primary"].seeds]
    answers: dict[str, Answers] = {}
    for i, bench in enumerate(benches):
        answers[f"General, encoder {i}"] = member(bench.head(), bench.train, benches[0].folds, bench.asked)
        if i < len(PARTIALS):
            rows = bench.quarters[i]
            answers[f"Partial {i + 1}, encoder {i}"] = member(bench.head(i + 1), rows, benches[0].folds, bench.asked)
    members = {f"{kind}s apart": [n for n in answers if n.startswith(kind)] for kind in ("Partial", "General")}
    decided = {
        f"{group}: {rule}": of
        for group, names in members.items()
        for rule, of in committee([answers[name] for name in names], benches[0].labels).items()
    }
    return card_of(benches[0], answers, decided) | {"members": members}


def encoded_rows(encoder: Encoder, clips: Clips, config: ProbeConfig, rows: np.ndarray) -> list[Tensor]:
    """Encodings of some rows, with as many draws of dropout as the configuration says."""
    return ensemble.encodings(encoder, clips.centre[rows], config)


def noisy_heads(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """F6: heads on an encoder trained with dropout, which is on or off while they learn."""
    chosen, run = run_of("F4", base, clips, seed)
    encoder = load_encoder(run / "encoder.safetensors", chosen)
    task, (more, more_labels) = make_task(clips, LABELLED_CLASSES, labelled_only=True), large_test(base)
    asked = {"validation": (clips.centre[task.test], task.test_labels), "large": (more, more_labels)}
    features = {name: encode(encoder, pixels) for name, (pixels, _) in asked.items()}
    labels = {name: "".join(map(str, of.tolist())) for name, (_, of) in asked.items()}
    sheets: dict[str, dict[str, str]] = {}
    for way, draws in (("off", 0), ("on", 4)):
        config = replace(chosen.probe, dropout_draws=draws)
        heads = ensemble.fit_members(clips, partial(encoded_rows, encoder, clips, config), config)
        scores = {name: ensemble.member_scores(heads, of) for name, of in features.items()}
        for number, name in enumerate(ensemble.MEMBERS):
            sheets[f"{name}, dropout {way}"] = {n: "".join(map(str, s[number].argmax(-1))) for n, s in scores.items()}
    return {"run": run.name, "labels": labels, "sheets": sheets}


def tables(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """The paper's Tables 2 and 3 with both recipes, and the same heads on random weights of the same seed."""
    found: dict[str, Any] = {}
    for recipe, name in {"vjepa": "primary", "published": "published"}.items():
        if not (CARDS / f"{name}-{base.profile}-{seed}.json").exists():
            continue  # a question to finished runs, not a reason to make one
        chosen, run = run_of(name, base, clips, seed)
        untrained = new_encoder(chosen.model, chosen.grid, seed).to(device())
        task = make_task(clips, LABELLED_CLASSES, labelled_only=True)
        heads = ensemble.fit_members(clips, partial(encoded_rows, untrained, clips, chosen.probe), chosen.probe)
        scores = ensemble.member_scores(heads, encode(untrained, clips.centre[task.test]))
        answers = {"pre-trained": ensemble.predictions(chosen, clips, run)}
        answers["random weights"] = ensemble.decide(clips, task, scores)
        found[recipe] = {features: table_of(answer) for features, answer in answers.items()} | {"run": run.name}
    return found


def table_of(answers: pd.DataFrame) -> dict[str, Any]:
    """Accuracy and certainty in percent by member and class, and who was right, video by video."""
    right = (answers.predicted == answers.label).astype(int)
    return {
        "accuracy": ensemble.accuracy_table(answers).round(4).to_dict(),
        "certainty": ensemble.certainty_table(answers).round(4).to_dict(),
        "right": {name: "".join(map(str, of)) for name, of in right.groupby(answers.member)},
    }


def certainty_claim(card: dict[str, Any]) -> dict[str, float]:
    """How many points more certain General is than the mean of the Partials."""
    return {"P2a": gap(card["sheets"], "", "")}


STUDIES = {
    "tables": Study("Tables 2 and 3 with both recipes", tables),
    "committees": Study("committees on one shared encoder", committees, claims=certainty_claim),
    "habits": Study("heads on 80 % of each list, and heads with as many steps as General", habits),
    "independent": Study("committees whose members have an encoder each", independent, seeds=(0,)),
    "patches": Study("unlike heads, one of them on an encoder with smaller patches", patches, seeds=(0, 1, 2)),
    "noisy-heads": Study("dropout of the frozen encoder while heads learn", noisy_heads, seeds=(0, 1, 2)),
}
