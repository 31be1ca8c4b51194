"""Training as a film: what some held-out clips look like to an encoder, step by step, beside the curves.

Book: chapter 4.
"""

import base64
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

import figures
from figures import plots
from picojepa import pretraining, store
from picojepa.checkpoints import read_metrics
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.features import encode
from picojepa.jepa import JEPA
from picojepa.machine import threads

CLIPS = 8  # held-out clips whose features are kept
LOOKS = 12  # looks at the features of a run, about
FILM = store.Stage("pretraining.film", version=1)
MEASURES = {"loss": "loss", "spread": "spread", "effective_rank": "effective rank"}
STYLES = (
    (plots.COLOURS["pre-trained"], "-", "o"),
    (plots.COLOURS["without stop-gradient"], "--", "s"),
)  # of the first and the second run


def film(runs: Mapping[str, Settings], clips: Clips) -> HTML:
    """Two runs side by side: loss, spread and effective rank so far, and the features of a clip as colours.

    Args:
        runs: name -> settings of a whole run; both of the same length and geometry.
        clips: decoded clips.
    """
    folders = [watch(settings, clips) for settings in runs.values()]
    colours, share = as_colours(np.stack([np.load(folder / "features.npy") for folder in folders]))
    metrics = {name: read_metrics(folder) for name, folder in zip(runs, folders, strict=True)}
    settings, rows = next(iter(runs.values())), chosen(clips)
    shown = clips.centre[rows][:, :: settings.model.tubelet]  # (n, slices, 3, H, W)
    names = [f"{number}: {plots.pretty(label)}" for number, label in enumerate(clips.videos.label.iloc[rows], start=1)]
    data = {
        "runs": list(runs),
        "steps": next(iter(metrics.values())).step.tolist(),
        "measures": {text: [m[name].tolist() for m in metrics.values()] for name, text in MEASURES.items()},
        "clips": [{"name": name, "film": figures.film(clip)} for name, clip in zip(names, shown, strict=True)],
        "grid": list(settings.grid),
        "colours": base64.b64encode(colours.tobytes()).decode(),
        "share": share,
    }
    told = (
        f"Line charts of {', '.join(MEASURES.values())} for two runs, {' and '.join(runs)}; below, the features of "
        "one clip as colours at a few steps, one row for each run. A row in one even colour tells nothing apart."
    )
    picture = figures.still(_picture(metrics, colours[:, :, 0], shown[0, 0], settings.grid), told)
    return figures.figure("training_film", data, picture, "Two training runs, step by step")


def watch(settings: Settings, clips: Clips) -> Path:
    """A pre-training that is looked at `LOOKS` times on its way, found again or made.

    Args:
        settings: of the run.
        clips: decoded clips.

    Returns:
        Folder with ``metrics.jsonl``, a row per look, ``features.npy``, float32 (looks, clips, N, D), of some held-out
        clips, all taken after the step, and ``card.json``.
    """
    training = settings.training
    every = max(1, training.steps // LOOKS)
    often = replace(training, log_every=every, watch_every=every, checkpoint_every=every)
    watched = replace(settings, training=often)
    with store.result(FILM, pretraining.training_inputs(watched, clips) | {"clips": CLIPS}) as result:
        if result.missing:
            _record(watched, clips, result.folder)
            result.facts |= {"steps": training.steps, "clips": training.steps * training.batch, "seed": training.seed}
    return result.folder


def _record(settings: Settings, clips: Clips, folder: Path) -> None:
    held_out = clips.centre[chosen(clips)]

    def look(folder: Path, model: JEPA) -> None:
        step = int(read_metrics(folder).step.iloc[-1])
        np.save(folder / f"{step}.npy", encode(model.encoder, held_out, pool=False).numpy())

    with threads(pretraining.chosen_threads(settings, clips)[0]):
        pretraining.pretrain(settings, clips, folder, look)
    looks = [folder / f"{step}.npy" for step in read_metrics(folder).step]
    np.save(folder / "features.npy", np.stack([np.load(path) for path in looks]))
    for path in (*looks, folder / "checkpoint.pt"):
        path.unlink(missing_ok=True)


def chosen(clips: Clips) -> np.ndarray:
    """Rows of the held-out clips that are shown, evenly from the list."""
    rows = clips.select(clips.videos.split == "validation")
    return rows[np.linspace(0, len(rows) - 1, min(CLIPS, len(rows))).astype(int)]


def as_colours(features: np.ndarray) -> tuple[np.ndarray, float]:
    """Three numbers of each token as red, green and blue.

    From the features of each look their mean over all clips and tokens is taken away. One principal component
    analysis of what is left, over all runs and looks, gives three directions, and one scale for each: so colours
    can be compared over the whole film, and a token equal to the mean is grey.

    Args:
        features: (runs, looks, clips, N, D).

    Returns:
        uint8 (runs, looks, clips, N, 3), and the share of the variance in the three directions.
    """
    centred = features - features.mean((2, 3), keepdims=True)
    flat = centred.reshape(-1, features.shape[-1]).astype(np.float64)
    variances, directions = np.linalg.eigh(flat.T @ flat)  # ascending
    directions = directions[:, :-4:-1]
    directions = directions * np.sign(directions[np.abs(directions).argmax(0), range(3)])
    places = centred @ directions
    scale = np.quantile(np.abs(places), 0.98, axis=(0, 1, 2, 3)).clip(1e-12)
    colours = (127.5 * (1 + np.clip(places / scale, -1, 1))).astype(np.uint8)
    return colours, float(variances[-3:].sum() / variances.sum().clip(1e-12))


def _picture(
    metrics: Mapping[str, pd.DataFrame], colours: np.ndarray, frame: np.ndarray, grid: tuple[int, int, int]
) -> Figure:
    """Curves above; below, a frame and the colours of its time slice, (runs, looks, N, 3), at a few looks."""
    looks = np.unique(np.linspace(0, colours.shape[1] - 1, 6).astype(int))
    figure = plt.figure(figsize=(9, 5.6))
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.2))[:, 0]
    for ax, (column, text) in zip(above.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        for (name, seen), (colour, line, marker) in zip(metrics.items(), STYLES, strict=True):
            ax.plot(seen.step, seen[column], line, marker=marker, markersize=4, color=colour, label=name)
        ax.set(xlabel="step", ylabel=text, ylim=(0, None))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize="small")
    axes = below.subplots(2, len(looks) + 1)
    for row, name, run in zip(axes, metrics, colours, strict=True):
        row[0].imshow(np.moveaxis(frame, 0, -1))
        row[0].set_ylabel(name, fontsize="small")
        for ax, look in zip(row[1:], looks, strict=True):
            ax.imshow(run[look].reshape(*grid, 3)[0])
            ax.set_title(f"step {metrics[name].step.iloc[look]}", fontsize="small")
        for ax in row:
            ax.set(xticks=[], yticks=[])
    return figure
