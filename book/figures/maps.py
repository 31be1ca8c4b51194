"""A t-SNE map whose dots are clips: point at one and see what it is and who its neighbours are.

Book: chapter 7.
"""

from collections.abc import Mapping

import numpy as np
from IPython.display import HTML
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path

import figures
from figures import plots
from picojepa import tsne
from picojepa.clips import Clips

NEIGHBOURS = 5


def dots(clips: Clips, rows: np.ndarray, maps: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> HTML:
    """Maps of the same clips, of which one is shown at a time.

    Args:
        clips: the videos.
        rows: row numbers of the clips, (n,).
        maps: name -> the features (n, D), whose nearest neighbours are told, and their map (n, 2).

    Book: chapter 7.
    """
    labels = clips.videos.label.iloc[rows].tolist()
    names, styles = list(dict.fromkeys(labels)), plots.class_styles(labels)
    spread = np.random.default_rng(0).permutation(len(rows))  # which clips have films, if the page cannot hold all
    data = {
        "maps": list(maps),
        "places": [placed(xy).tolist() for _, xy in maps.values()],
        "neighbours": [tsne.nearest(features, NEIGHBOURS).tolist() for features, _ in maps.values()],
        "classes": [
            {"name": plots.pretty(name), "colour": styles[name][0], "shape": outline(styles[name][1])} for name in names
        ],
        "labels": [names.index(label) for label in labels],
        "films": figures.films(clips.centre[rows], spread),
    }
    title = next(iter(maps))
    counts = ", ".join(f"{plots.pretty(name)} {labels.count(name)}" for name in names)
    text = f"Map of {len(rows)} clips by t-SNE, {title}; one mark for each clip, colour and shape by class: {counts}."
    drawing = plots.maps({title: maps[title][1]}, labels)
    drawing.set_size_inches(8, 5.4)
    picture = figures.still(drawing, text)
    return figures.figure("maps", data, picture, "Map of clips: each dot plays its clip")


def placed(xy: np.ndarray) -> np.ndarray:
    """A map, (n, 2), moved into the square from 0 to 1 with y downwards; both axes keep the same scale."""
    middle, size = (xy.max(0) + xy.min(0)) / 2, np.ptp(xy, axis=0).max()
    return ((xy - middle) * [1, -1] / (size or 1) + 0.5).round(4)


def outline(marker: str) -> str:
    """A marker of Matplotlib as the path of an SVG, within -0.5 to 0.5, y downwards."""
    style = MarkerStyle(marker)
    corners = style.get_transform().transform_path(style.get_path())
    letters = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}
    parts = [_part(letters[code], points) for points, code in corners.iter_segments(simplify=False)]
    return "".join(parts)


def _part(letter: str, points: np.ndarray) -> str:
    turned = np.reshape(points, (-1, 2)) * [1, -1]
    return letter if letter == "Z" else letter + " ".join(f"{value:.3g}" for value in turned.ravel())
