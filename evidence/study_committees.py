"""Committees of many kinds on the encoders of the book, and heads as the published code trains them.

All are asked about the validation videos and about 4 000 more.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from evidence.experiments import EXPERIMENTS, run_of
from evidence.members import Answers, Bench, Fit, committee, decisions, large_test, parts_of
from evidence.records import CARDS
from evidence.studies import Study
from picojepa import data, ensemble
from picojepa.architecture import Encoder, new_encoder
from picojepa.clips import Clips
from picojepa.config import PROFILES, Settings
from picojepa.ensemble import PARTIALS
from picojepa.features import encode, load_encoder
from picojepa.fitting import ProbeConfig
from picojepa.machine import device
from picojepa.probing import LinearHead, make_task

COUNTS = (2, 3, 4, 6, 8, 12)  # into how many disjoint parts the labelled list is cut


def committees(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Every committee on one shared encoder: quarters, bags, other seeds, unlike kinds, and more members."""
    bench, random = Bench(base, clips, seed), np.random.default_rng(seed)
    everything, kinds = bench.train, bench.kinds()
    bags = [random.choice(everything, len(everything)) for _ in PARTIALS]
    recipes: dict[str, list[tuple[str, Fit, np.ndarray]]] = {
        "quarters": [(f"Partial {i}", bench.head(i), rows) for i, rows in enumerate(bench.quarters, 1)],
        "bags": [(f"bag {i}", bench.head(i), rows) for i, rows in enumerate(bags, 1)],
        "seeds": [(f"seed {i}", bench.head(i), everything) for i in range(1, 5)],
        "kinds": [("General", bench.head(), everything), *((name, fit, everything) for name, fit in kinds.items())],
        "kinds on quarters": [
            (f"{name}, quarter {i}", kinds[name], rows)
            for i, (name, rows) in enumerate(zip(kinds, bench.quarters, strict=True), 1)
        ],
    }
    members = {group: [name for name, _, _ in recipe] for group, recipe in recipes.items()}
    answers = {name: bench.answers_of(fit, rows) for recipe in recipes.values() for name, fit, rows in recipe}
    decided = decisions_of(members, answers, bench)
    for count in COUNTS:
        cut = parts_of(bench.labels, count, seed)
        votes = committee([bench.head(i)(rows, bench.asked) for i, rows in enumerate(cut)], bench.labels)
        decided |= {f"{count} parts: {rule}": votes[rule] for rule in ("hard", "soft")}
    card = bench.card(answers | bench.surface(base, seed), decided)
    return card | {"members": members, "claims": {"P2a": gap(card["sheets"], "", "")}}


def decisions_of(members: dict[str, list[str]], answers: dict[str, Answers], bench: Bench) -> dict[str, Answers]:
    """What each group of members decides by every rule, under ``group: rule``."""
    return {
        f"{group}: {rule}": of
        for group, names in members.items()
        for rule, of in committee([answers[name] for name in names], bench.labels).items()
    }


def independent(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Committees whose members have an encoder each: quarter i on encoder i, and General on each."""
    benches = [Bench(base, clips, other) for other in EXPERIMENTS["primary"].seeds]
    answers: dict[str, Answers] = {}
    for i, bench in enumerate(benches):
        bench.folds = benches[0].folds
        answers[f"General, encoder {i}"] = bench.answers_of(bench.head())
        if i < len(PARTIALS):
            answers[f"Partial {i + 1}, encoder {i}"] = bench.answers_of(bench.head(i + 1), bench.quarters[i])
    members = {f"{kind}s apart": [n for n in answers if n.startswith(kind)] for kind in ("Partial", "General")}
    return benches[0].card(answers, decisions_of(members, answers, benches[0])) | {"members": members}


def habits(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """Heads as the published code trains them: on 80 % of each list (F7), and with as many steps for all (F11)."""
    bench, random = Bench(base, clips, seed), np.random.default_rng(seed)
    short = {key: getattr(PROFILES["paper"].probe, key) for key in ("epochs", "batch", "learning_rate")}
    answers: dict[str, Answers] = {}
    for number, (name, rows) in enumerate(zip(ensemble.MEMBERS, (bench.train, *bench.quarters), strict=True)):
        most = random.permutation(rows)[: round(0.8 * len(rows))]
        longer = round(len(bench.train) / len(rows))  # epochs for one of General's, so that steps are the same
        ways = {
            "": {},
            ", 80 %": {},
            ", all steps": {"epochs": longer * bench.settings.probe.epochs},
            ", published": short,
            ", published, all steps": short | {"epochs": longer * short["epochs"]},
        }
        for way, changes in ways.items():
            answers[name + way] = bench.head(number, **changes)(most if "80 %" in way else rows, bench.asked)
    decided: dict[str, Answers] = {}
    for way in ways:
        votes = committee([answers[name + way] for name in PARTIALS], bench.labels)
        decided |= {f"quarters{way}: {rule}": votes[rule] for rule in ("hard", "soft")}
    card = bench.card(answers, decided)
    gaps = {way: gap(card["sheets"], "", way) for way in ("", ", all steps")}
    gaps |= {way: gap(card["sheets"], ", published", way) for way in (", published", ", published, all steps")}
    return card | {"gaps": gaps | {"by steps": gaps[", published"] - gaps[", published, all steps"]}}


def gap(sheets: dict[str, Any], general: str, partial: str) -> float:
    """How many points more certain General is than the mean of the Partials, on the large set."""
    names = (f"General{general}", *(name + partial for name in PARTIALS))
    first, *others = (100 * sheets[name]["certainty"]["large"] for name in names)
    return float(first - np.mean(others))


def heads_on(encoder: Encoder, clips: Clips, config: ProbeConfig) -> dict[str, LinearHead]:
    """General and the Partials on an encoder, with as many draws of dropout as the configuration says."""
    return ensemble.fit_members(clips, lambda rows: ensemble.encodings(encoder, clips.centre[rows], config), config)


def noisy_heads(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """F6: heads on an encoder trained with dropout, which is on or off while they learn."""
    chosen, run = run_of("F4", base, clips, seed)
    encoder = load_encoder(run / "encoder.safetensors", chosen)
    task = make_task(clips, data.labelled_classes(clips.videos), labelled_only=True)
    more, more_labels = large_test(base, task.classes)
    features = {"validation": encode(encoder, clips.centre[task.test]), "large": encode(encoder, more)}
    labels = {"validation": task.test_labels, "large": more_labels}
    sheets: dict[str, dict[str, str]] = {}
    for way, draws in (("off", 0), ("on", 4)):
        heads = heads_on(encoder, clips, replace(chosen.probe, dropout_draws=draws))
        scores = {name: ensemble.member_scores(heads, of) for name, of in features.items()}
        for number, name in enumerate(ensemble.MEMBERS):
            sheets[f"{name}, dropout {way}"] = decisions({asked: of[number] for asked, of in scores.items()})
    return {
        "run": run.name,
        "labels": {n: "".join(map(str, of.tolist())) for n, of in labels.items()},
        "sheets": sheets,
    }


def tables(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """The paper's Tables 2 and 3 with both recipes, and the same heads on random weights of the same seed."""
    task, found = make_task(clips, data.labelled_classes(clips.videos), labelled_only=True), {}
    for recipe, name in {"vjepa": "primary", "published": "published"}.items():
        if not (CARDS / f"{name}-{base.profile}-{seed}.json").exists():
            continue  # a question to finished runs, not a reason to make one
        chosen, run = run_of(name, base, clips, seed)
        untrained = new_encoder(chosen.model, chosen.grid, seed).to(device())
        heads = heads_on(untrained, clips, chosen.probe)
        scores = ensemble.member_scores(heads, encode(untrained, clips.centre[task.test]))
        found[recipe] = {
            "pre-trained": table_of(ensemble.predictions(chosen, clips, run)),
            "random weights": table_of(ensemble.decide(clips, task, scores)),
            "run": run.name,
        }
    return found


def table_of(answers: pd.DataFrame) -> dict[str, Any]:
    """Accuracy and certainty in percent by member and class, and who was right, video by video."""
    right = (answers.predicted == answers.label).astype(int)
    return {
        "accuracy": ensemble.accuracy_table(answers).round(4).to_dict(),
        "certainty": ensemble.certainty_table(answers).round(4).to_dict(),
        "right": {name: "".join(map(str, of)) for name, of in right.groupby(answers.member)},
    }


STUDIES = {
    "tables": Study("Tables 2 and 3 with both recipes", tables),
    "committees": Study("committees on one shared encoder", committees),
    "habits": Study("heads on 80 % of each list, and heads with as many steps as General", habits),
    "independent": Study("committees whose members have an encoder each", independent, seeds=(0,)),
    "noisy-heads": Study("dropout of the frozen encoder while heads learn", noisy_heads, seeds=(0, 1, 2)),
}
