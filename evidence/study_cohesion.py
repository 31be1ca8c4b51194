"""Whether classes that hold together are classified better (P9).

Cohesion of a class: share of the ten nearest other videos that are of the class, in pooled features of validation
videos, or on their map. Test: Spearman correlation over classes with the accuracy of the class, above 0.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from evidence import baselines
from evidence.experiments import run_of
from evidence.studies import Study
from picojepa import data, ensemble, probing, tsne
from picojepa.architecture import new_encoder
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.features import encode, load_encoder
from picojepa.machine import device


def correlation(cohesion: np.ndarray, accuracy: np.ndarray) -> dict[str, float]:
    """Spearman correlation over classes, and how often it is as large when the classes are dealt by lot."""
    result = stats.permutation_test(
        (cohesion,),
        lambda dealt: stats.spearmanr(dealt, accuracy).statistic,
        permutation_type="pairings",
        n_resamples=1999,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    return {"rho": round(float(result.statistic), 4), "p": round(float(result.pvalue), 4)}


def of_task(
    task: probing.Task, points: dict[str, np.ndarray], tables: dict[str, pd.DataFrame], seed: int
) -> dict[str, Any]:
    """Cohesion and accuracy of every class.

    Args:
        task: the question.
        points: features (n, D) of the validation videos, by their kind.
        tables: predictions for the same videos, by the kind of features.
        seed: of the maps.
    """
    label, rows = task.test_labels.numpy(), []
    for name, features in points.items():
        right = (tables[name].predicted == tables[name].label).to_numpy()
        accuracy = np.array([right[label == c].mean() for c in range(len(task.classes))])
        for space, where in (("features", features), ("map", tsne.tsne_map(features, seed))):
            shares = tsne.shares(where, label)
            held = np.array([shares[label == c].mean() for c in range(len(task.classes))])
            numbers = {"cohesion": held.round(4).tolist(), "accuracy": accuracy.round(4).tolist()}
            rows.append({"features": name, "space": space, **numbers, **correlation(held, accuracy)})
    return {"names": list(task.classes), "n": len(label), "chance": tsne.purity_by_chance(label), "rows": rows}


def cohesion(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """P9: cohesion and accuracy of every class, of ten with the linear probe and of four with General."""
    settings, run = run_of("primary", base, clips, seed)
    pretrained = load_encoder(run / "encoder.safetensors", settings)
    encoders = {
        "pre-trained": pretrained,
        "random weights": new_encoder(settings.model, settings.grid, seed).to(device()),
    }
    found = {}
    for count, classes in (("ten", data.classes(clips.videos)), ("four", data.labelled_classes(clips.videos))):
        task = probing.make_task(clips, classes, labelled_only=count == "four")
        table = probing.probe_run(settings, clips, run, task).query("probe == 'linear'")
        tables = dict(list(table.groupby("features")))
        if count == "four":
            tables["pre-trained"] = ensemble.predictions(settings, clips, run).query("member == 'General'")
        points = {name: encode(encoder, clips.centre[task.test]).numpy() for name, encoder in encoders.items()}
        colours = [baselines.colour_histogram(clips.centre[rows]) for rows in (task.train, task.test)]
        scores = probing.linear_probe(colours[0], task.train_labels.numpy(), colours[1])
        tables["colour histogram"] = probing.prediction_table(clips, task, scores)
        found[count] = of_task(task, points | {"colour histogram": colours[1]}, tables, seed)
    rho = {row["features"]: 100 * row["rho"] for row in found["ten"]["rows"] if row["space"] == "map"}
    ahead = rho["pre-trained"] - rho["random weights"]
    return found | {"claims": {"P9": rho["pre-trained"], "P9 over random": ahead}}


STUDIES = {"cohesion": Study("P9: cohesion of classes against their accuracy", cohesion)}
