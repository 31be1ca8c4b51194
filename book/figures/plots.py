"""Pictures of the book: one palette, one visual grammar, used by chapters only.

Blue is context (seen), orange is target (hidden), green is predicted. Grey is chance and random
weights, blue pre-trained, purple supervised. The colours are told apart with any kind of colour vision.

Book: every chapter.
"""

import base64
import html
import inspect
import io
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython.display import HTML, DisplayHandle, Markdown
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.ticker import NullFormatter
from pandas.io.formats.style import Styler
from PIL import Image
from sklearn.metrics import confusion_matrix
from torchcodec.decoders import VideoDecoder
from torchcodec.encoders import VideoEncoder

from figures.fonts import use_fonts
from footage.lists import paper_lists
from picojepa import data, results
from picojepa.checkpoints import read_metrics
from picojepa.clips import Clips

CONTEXT, TARGET, PREDICTED, NEUTRAL = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
COLOURS = {
    "context": CONTEXT,
    "target": TARGET,
    "predicted": PREDICTED,
    "random weights": NEUTRAL,
    "pre-trained": CONTEXT,
    "published": "#56B4E9",
    "supervised": "#7B3F98",
    "without stop-gradient": "#000000",
    "colour histogram": "#B58900",
    "frame differences": "#A0522D",
    "scene, from the list": "#CC79A7",
    "chance": "#555555",
}
MARKERS = "osD^vPX<>*"
NUMBER = r"([-+]?[\d.,]+(e[-+]?\d+)?%?)?"  # what stands right-aligned in a table, whatever its type


def use_style() -> None:
    """Set the book's figure style, whatever the user's own; every chapter calls it once."""
    matplotlib.rcdefaults()
    sns.set_theme(
        style="ticks",
        context="notebook",
        rc={
            "figure.dpi": 110,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.constrained_layout.use": True,
            "axes.titlesize": "medium",
        },
    )
    use_fonts()
    pd.set_option("display.html.use_mathjax", False)  # a name may hold what begins a formula


def plain_numbers(axis: Axis) -> None:
    """Numbers of a logarithmic axis as they are: texts are not read as formulas, see `fonts.use_fonts`."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def pretty(name: str) -> str:
    """A class name for people: underscores between letters become spaces."""
    return re.sub(r"(?<=[^\W\d_])_(?=[^\W\d_])", " ", name)


def short_name(path: str) -> str:
    """A file with the folder it lies in."""
    return "/".join(Path(path).parts[-2:])


def told(names: Sequence[str], most: int = 6) -> str:
    """Names for a sentence; of many the first and how many more."""
    rest = len(names) - most
    return ", ".join(names) if rest < 2 else f"{', '.join(names[:most])} and {rest} more"


def described(clips: Clips) -> str:
    """What the videos of this build are, in sentences for the reader of a chapter."""
    videos, own = clips.videos, data.source()
    if own is None:
        return "The videos of this build are the stand-in of chapter 1: generated stick figures, not Kinetics."
    names, numbers = data.classes(videos), videos.split.value_counts()
    rest = sorted(set(videos.label) - set(names))
    only = f" {told(rest)}: no validation videos, so used for pre-training only." if rest else ""
    name = short_name(str(own)) if own.is_file() else own.name
    return (
        f"The videos of this build are not the stand-in but {name!r}: {numbers['pretrain']} for training and "
        f"{numbers['validation']} for validation, of {len(names)} classes ({told(names)}).{only} Read 'stand-in' as "
        "these videos where scores, tables and pictures are meant, and as the drawn figures where generator, scenes, "
        "tuning or loaded results are."
    )


def table(frame: pd.DataFrame, formats: Mapping[str, str] | None = None, precision: int = 1) -> Styler:
    """A table in the page's style, for reading: names without underscores, numbers rounded.

    Args:
        frame: an index with a name becomes the first column, one without is left out.
        formats: column -> format of its numbers, such as ``{:.0%}``.
        precision: digits after the point in all other columns.
    """
    frame = (frame.reset_index() if any(frame.index.names) else frame).rename_axis(columns=None)
    shown = frame.map(lambda value: pretty(value) if isinstance(value, str) else value).rename(columns=pretty)
    how = {pretty(c): f for c, f in (formats or {}).items()}
    styler = shown.style.format(how, precision=precision, escape="html").format_index(escape="html", axis=1)
    cells = [
        {"selector": "th, td", "props": "padding: 0.15em 0.45em; text-align: right"},
        {"selector": "td", "props": "white-space: nowrap"},
    ]
    left = {}
    for name in shown.select_dtypes(exclude="number"):
        texts = shown[name].map(str)
        if not texts.str.fullmatch(NUMBER).all():
            longest = max(texts.str.len(), default=0)  # short texts stay on one line; book.css reads `--least`
            wrap = f"white-space: {'nowrap' if longest < 12 else 'normal'}; --least: {min(longest, 12)}ch"
            aside = {"selector": "", "props": "text-align: left; white-space: normal"}
            left[name] = [aside, {"selector": "td", "props": wrap}]
    styler = styler.set_table_styles(cells).set_table_styles(left, overwrite=False)
    return styler.hide(axis="index").set_table_attributes('class="dataframe mathjax_ignore"')


def with_intervals(table: pd.DataFrame, decimals: int = 0) -> pd.DataFrame:
    """Accuracy and its Wilson interval over videos in percent, as text, by class (rows) and member (columns).

    Book: chapter 8.
    """
    pooled = results.score_table(table, ["member"]).assign(label="all videos")
    scores = pd.concat([results.score_table(table, ["label", "member"]), pooled])
    text = [
        f"{a:.{decimals}f} ({lo:.{decimals}f}–{hi:.{decimals}f})"
        for a, lo, hi in scores[["accuracy", "low", "high"]].to_numpy()
    ]
    wide = scores.assign(text=text).pivot(index="label", columns="member", values="text")
    return wide.loc[list(dict.fromkeys(scores.label))].rename_axis(index=None, columns=None)


def source(*definitions: Callable[..., object]) -> Markdown:
    """The source of functions or classes of the package, as the chapter shows it, with a link to the whole file."""
    parts = []
    for item in definitions:
        module = item.__module__.replace(".", "/")
        place = "" if item.__name__.startswith("_") else f"#{item.__qualname__}"  # private ones have no anchor
        link = f'<a href="_modules/{module}.html{place}">{module}.py</a>'
        if not module.startswith("picojepa"):  # of another room, whose sources are no pages
            link = f"`{'book/' * module.startswith('figures')}{module}.py`"
        parts.append(f"From {link}:\n\n```python\n{inspect.getsource(item)}```")
    return Markdown("\n\n".join(parts))


def class_styles(classes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each class; the paper's ten keep theirs, whichever of them are shown."""
    paper = list(paper_lists().index)
    known = paper if set(classes) <= set(paper) else sorted(set(classes))
    colours = sns.color_palette("colorblind", 10) if len(known) <= 10 else sns.color_palette("husl", len(known))
    return dict(zip(known, zip(colours.as_hex(), cycle(MARKERS), strict=False), strict=False))


# ---------------------------------------------------------------- clips and masks


def show_clips(clips: np.ndarray, titles: Sequence[str]) -> Figure:
    """A strip of frames for each clip, uint8 (n, T, 3, H, W), one row per clip."""
    rows, frames = clips.shape[:2]
    figure, axes = plt.subplots(rows, frames, figsize=(1.1 * frames, 1.2 * rows), squeeze=False)
    for row, clip, title in zip(axes, clips, titles, strict=True):
        for ax, frame in zip(row, clip, strict=True):
            ax.imshow(np.moveaxis(frame, 0, -1))
            ax.set_axis_off()
        # A long title must not widen its column: the layout sees only a blank.
        row[0].set_title(" ", loc="left", fontsize="small")
        row[0].annotate(
            pretty(title), (0, 1), (0, 4), "axes fraction", "offset points", fontsize="small"
        ).set_in_layout(False)
    return figure


def webp(picture: np.ndarray, quality: int = 80) -> str:
    """A picture, uint8 (H, W, 3), as a data URI of a WebP file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="webp", quality=quality)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def video(paths: Sequence[str | Path], labels: Sequence[str], width: int = 140) -> HTML:
    """Videos side by side, inside the page; H.264 files only. In the built book they play while they are seen.

    Args:
        paths: mp4 files, put into the page as they are.
        labels: caption and text alternative of each.
        width: pixels.
    """
    cells = []
    for path, label in zip(paths, labels, strict=True):
        data, text = base64.b64encode(Path(path).read_bytes()).decode(), html.escape(pretty(label))
        first = VideoDecoder(str(path)).get_frame_at(0).data  # (3, H, W), shown until the video plays, and on paper
        height = round(width * first.shape[1] / first.shape[2])
        poster = webp(first.movedim(0, -1).numpy())
        cells.append(
            f'<figure style="width:{width}px"><video width="{width}" height="{height}" controls loop muted playsinline '
            f'preload="none" poster="{poster}" aria-label="{text}"><source src="data:video/mp4;base64,{data}" '
            f'type="video/mp4"></video><figcaption>{text}</figcaption></figure>'
        )
    style = "display:flex;flex-wrap:wrap;gap:8px"
    return HTML(f'<div class="book-videos" style="{style}">{"".join(cells)}</div>')


def clip_video(clips: np.ndarray, labels: Sequence[str], frames_per_second: float = 8.0, width: int = 140) -> HTML:
    """Clips, uint8 (n, T, 3, H, W), as small videos inside the page."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.mp4" for i in range(len(clips))]
        for path, clip in zip(paths, clips, strict=True):
            VideoEncoder(torch.from_numpy(np.ascontiguousarray(clip)), frame_rate=frames_per_second).to_file(
                str(path), codec="libx264", pixel_format="yuv420p", crf=20
            )
        return video(paths, labels, width)


def paint_mask(clip: np.ndarray, hidden: np.ndarray, strength: float = 0.55) -> np.ndarray:
    """Tint a clip: orange where tokens are hidden, blue where they are shown.

    Args:
        clip: uint8 (T, 3, H, W).
        hidden: bool (slices, rows, columns).
        strength: 0 no tint, 1 only tint.

    Returns:
        uint8 (T, 3, H, W).
    """
    frames, _, height, width = clip.shape
    cells = (
        hidden.repeat(frames // hidden.shape[0], 0)
        .repeat(height // hidden.shape[1], 1)
        .repeat(width // hidden.shape[2], 2)
    )
    colours = np.array([_rgb(CONTEXT), _rgb(TARGET)])[cells.astype(int)]  # (T, H, W, 3)
    weight = np.where(cells, strength, strength / 3)[:, None]  # (T, 1, H, W)
    return (clip * (1 - weight) + np.moveaxis(colours, -1, 1) * weight).astype(np.uint8)


def hidden_grid(target: torch.Tensor, grid: tuple[int, int, int]) -> np.ndarray:
    """Token numbers of one clip's target, (K,), as bool (slices, rows, columns)."""
    hidden = np.zeros(int(np.prod(grid)), dtype=bool)
    hidden[target.numpy()] = True
    return hidden.reshape(grid)


def _rgb(colour: str) -> tuple[int, int, int]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))  # type: ignore[return-value]


# ---------------------------------------------------------------- diagrams and curves


def boxes(
    places: Mapping[str, tuple[float, float]],
    arrows: Sequence[tuple[str, str, str]],
    colours: Mapping[str, str],
    size: tuple[float, float] = (9, 3.6),
) -> Figure:
    """A diagram of named boxes and labelled arrows; coloured boxes are networks, the others are data.

    Args:
        places: box text -> (x, y) centre, in inches of the figure; the first line is printed bold.
        arrows: (from, to, label). A label that starts with ``x`` and a space marks a cut gradient (two strokes
            across the arrow), one that starts with ``~`` and a space a copy of weights (dashed).
        colours: box text -> colour of edge and tint.
        size: of the figure in inches.
    """
    figure, ax = plt.subplots(figsize=size, layout="none")
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(0, size[0]), ylim=(0, size[1]))
    ax.set_axis_off()
    for text, (x, y) in places.items():
        colour = colours.get(text, NEUTRAL)
        box = FancyBboxPatch((x - 0.8, y - 0.3), 1.6, 0.6, boxstyle="round,pad=0.02,rounding_size=0.1")
        box.set(facecolor=(*to_rgb(colour), 0.14 if text in colours else 0.0), edgecolor=colour)
        box.set_linewidth(2 if text in colours else 1)
        ax.add_patch(box)
        title, _, rest = text.partition("\n")
        ax.text(x, y + 0.11 * bool(rest), title, ha="center", va="center", fontsize=11, weight="bold")
        ax.text(x, y - 0.12, rest, ha="center", va="center", fontsize=10)
    for start, end, label in arrows:
        _arrow(ax, np.array(places[start]), np.array(places[end]), label)
    return figure


def _arrow(ax: Axes, start: np.ndarray, end: np.ndarray, label: str) -> None:
    """An arrow between the edges of two boxes of `boxes`, with its label beside it."""
    steep = abs(end[1] - start[1]) > abs(end[0] - start[0])
    inset = np.array([0, 0.36]) if steep else np.array([0.86, 0])
    tail, head = start + inset * np.sign(end - start), end - inset * np.sign(end - start)
    cut, copied = label.startswith("x "), label.startswith("~ ")
    line = "--" if copied else "-"
    ax.add_patch(FancyArrowPatch(tail, head, arrowstyle="-|>", mutation_scale=13, color="#444444", linestyle=line))
    middle = (tail + head) / 2
    if cut:
        along = (head - tail) / np.linalg.norm(head - tail)
        stroke = 0.13 * np.array([-along[1], along[0]]) + 0.05 * along
        for shift in (-0.04, 0.04):
            ends = middle + shift * along + np.stack([-stroke, stroke])
            ax.plot(*ends.T, color="#B00020", linewidth=2)
    text = label[2:] if cut or copied else label
    if steep:
        ax.text(middle[0] + 0.1, middle[1], text, fontsize=9.2, ha="left", va="center")
    else:
        ax.text(middle[0], middle[1] + (0.17 if cut else 0.08), text, fontsize=9.2, ha="center", va="bottom")


def training_curves(runs: Mapping[str, pd.DataFrame], columns: Mapping[str, str], colours: Mapping[str, str]) -> Figure:
    """One panel per column of the metrics, three in a row, one line per run, over clips seen.

    Args:
        runs: name -> `checkpoints.read_metrics`; rows without a number in a column are left out of its panel.
        columns: column -> axis label.
        colours: name -> colour.
    """
    across = min(3, len(columns))
    down = -(-len(columns) // across)
    figure, axes = plt.subplots(down, across, figsize=(3.4 * across, 2.8 * down), squeeze=False)
    for ax, (column, label) in zip(axes.flat, columns.items(), strict=False):
        for style, (name, metrics) in zip(("-", "--", ":", "-."), runs.items(), strict=False):
            seen = metrics[["clips", column]].dropna().astype(float)
            ax.plot(seen.clips / 1000, seen[column], style, label=name, color=colours[name])
        ax.set(xlabel="clips seen (thousand)", ylabel=label, ylim=(min(0, ax.get_ylim()[0]), None))
    for ax in axes.flat[len(columns) :]:
        ax.set_axis_off()
    axes[0][0].legend(frameon=False)
    return figure


class LiveCurves:
    """Curves of a run that is under way, drawn again in one place of the page at every call.

    To be handed to `pretraining.run` as ``on_log``. The last drawing stays.

    Book: chapter 4.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        """Columns of the metrics -> axis labels."""
        self.columns, self.place = columns, DisplayHandle()
        self.shown = False

    def __call__(self, folder: Path, model: object = None) -> None:
        """Draw the metrics in a run's folder."""
        figure = training_curves({"this run": read_metrics(folder)}, self.columns, {"this run": CONTEXT})
        (self.place.update if self.shown else self.place.display)(figure)
        self.shown = True
        plt.close(figure)  # or the notebook shows it once more


# ---------------------------------------------------------------- scores


def score_bars(scores: pd.DataFrame, name: str, chance: float, ax: Axes | None = None, other: str = NEUTRAL) -> Figure:
    """Accuracies (percent) as horizontal bars with intervals and a line at chance.

    Args:
        scores: rows of `results.score_table`, with ``accuracy``, ``low``, ``high``, ``n``.
        name: the column that names a bar.
        chance: percent.
        ax: where to draw; default: a figure of its own.
        other: colour of a bar whose name has none of its own.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 0.42 * len(scores) + 1))
    names = list(scores[name])
    colours = [next((c for key, c in COLOURS.items() if key in n), other) for n in names]
    ax.barh(
        names,
        scores.accuracy,
        color=colours,
        xerr=[scores.accuracy - scores.low, scores.high - scores.accuracy],
        error_kw={"ecolor": "#222222", "capsize": 3},
    )
    ax.axvline(chance, color=COLOURS["chance"], linestyle="--", linewidth=1)
    ax.text(chance, -0.7, f"chance {chance:.3g} %", fontsize="small", ha="center", va="bottom")
    ax.set(xlabel=f"accuracy (%), 95 % interval over {scores.n.iloc[0]} videos", xlim=(0, 100))
    ax.invert_yaxis()
    return ax.figure  # type: ignore[return-value]


def confusions(tables: Mapping[str, pd.DataFrame], classes: Sequence[str]) -> Figure:
    """Confusion matrices side by side: rows the truth, columns the answer, cells counts of videos."""
    side = max(3.1, 0.45 * len(classes))
    figure, axes = plt.subplots(
        1, len(tables), figsize=(side * len(tables) + 1.8, side + 1.3), squeeze=False, sharey=True
    )
    names = [pretty(c) for c in classes]
    matrices = [confusion_matrix(t.label, t.predicted, labels=list(classes)) for t in tables.values()]
    for ax, title, counts in zip(axes[0], tables, matrices, strict=True):
        sns.heatmap(
            counts,
            vmin=0,
            vmax=max(m.max() for m in matrices),
            annot=True,
            fmt="d",
            cmap="Blues",
            cbar=False,
            square=True,
            xticklabels=names,
            yticklabels=names,
            ax=ax,
        )
        ax.set(title=title, xlabel="answer")
        ax.tick_params(axis="x", rotation=40)
        plt.setp(ax.get_xticklabels(), ha="right")
    axes[0][0].set_ylabel("truth")
    return figure


def maps(
    points: Mapping[str, np.ndarray], labels: Sequence[str], numbers: Mapping[str, np.ndarray] | None = None
) -> Figure:
    """t-SNE maps side by side, coloured and marked by class.

    Args:
        points: title -> map, (n, 2).
        labels: class of each point, the same in all maps.
        numbers: title -> small integers (n,) that choose the colours in place of the class; markers still tell it.
    """
    figure, axes = plt.subplots(1, len(points), figsize=(4 * len(points), 4.4), squeeze=False)
    of_point, styles = np.asarray(labels), class_styles(labels)
    for ax, (title, xy) in zip(axes[0], points.items(), strict=True):
        palette = np.array(sns.color_palette("colorblind"))
        for name in dict.fromkeys(labels):
            chosen, (colour, marker) = of_point == name, styles[name]
            ax.scatter(
                *xy[chosen].T,
                s=14,
                alpha=0.75,
                color=palette[numbers[title][chosen]] if numbers and title in numbers else colour,
                marker=marker,
                label=pretty(name),
                linewidths=0,
            )
        ax.set(title=title, xticks=[], yticks=[], xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize="small", markerscale=1.8)
    return figure
