"""What the predictor imagined: one clip with its hidden cells filled in, in several ways side by side.

Letters: M masks, n clips, T frames, S time slices.

Book: the appendix on what the predictor imagines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from matplotlib.figure import Figure

import figures
from figures.plots import pretty

SEEN = "what the encoder saw"
GREY = np.full((3, 1, 1), 128, np.uint8)  # (3, H, W)


@dataclass(frozen=True)
class Filling:
    """One way to fill in the hidden cells.

    Attributes:
        name: in a few words.
        says: what of it is true and what is imagined, in a few words.
        films: uint8 (M, n, T, 3, H, W), visible cells included.
        measures: numbers of each clip, under the name that readers see, (M, n); in percent if it ends with ``(%)``.
    """

    name: str
    says: str
    films: np.ndarray
    measures: Mapping[str, np.ndarray] = field(default_factory=dict)


def seen(films: np.ndarray, hidden: np.ndarray, colour: np.ndarray = GREY) -> np.ndarray:
    """Clips, uint8 (M, n, T, 3, H, W), with the hidden cells, bool (M, S, rows, columns), in grey or another colour."""
    pixels = np.repeat(hidden, films.shape[2] // hidden.shape[1], 1)
    for axis in (2, 3):
        pixels = np.repeat(pixels, films.shape[axis + 2] // hidden.shape[axis], axis)  # (M, T, H, W)
    return np.where(pixels[:, None, :, None], colour, films)


def player(truth: np.ndarray, hidden: np.ndarray, labels: Sequence[str], fillings: Sequence[Filling]) -> HTML:
    """The figure.

    Args:
        truth: the clips, uint8 (n, T, 3, H, W).
        hidden: which cells each mask hides, bool (M, S, rows, columns).
        labels: class of each clip.
        fillings: ways to fill in; the first is the one drawn on paper.

    Raises:
        ValueError: films of a filling do not go with the clips and masks.
    """
    wanted = (len(hidden), *truth.shape)
    if wrong := [filling.name for filling in fillings if filling.films.shape != wanted]:
        raise ValueError(f"films must have the shape {wanted}: {', '.join(wrong)}")
    films = np.broadcast_to(truth, wanted)
    kinds = [Filling("truth", "all true", films), Filling(SEEN, "grey: hidden from it", seen(films, hidden)), *fillings]
    data = {
        "clips": [pretty(label) for label in labels],
        "masks": [_in_words(cells) for cells in hidden],
        "hidden": hidden.astype(int).tolist(),
        "kinds": [_packed(kind, shared=kind.name == "truth") for kind in kinds],
    }
    text = f"The middle frame of a clip, {data['clips'][0]}, {data['masks'][0]}. " + " ".join(
        f"{kind.name}: {kind.says}." for kind in kinds
    )
    return figures.figure("imagined", data, figures.still(_drawn(kinds), text), "What the predictor imagined")


def _in_words(cells: np.ndarray) -> str:
    """What a mask hides, bool (S, rows, columns)."""
    always = "the same in all frames" if (cells == cells[0]).all() else "other ones in other frames"
    return f"{cells[0].sum()} of {cells[0].size} cells hidden, {always}"


def _packed(kind: Filling, shared: bool) -> dict[str, Any]:
    """A filling as plain values; if shared, its films are the same under all masks and are kept once."""
    return {
        "name": kind.name,
        "says": kind.says,
        "films": [[figures.film(clip) for clip in clips] for clips in (kind.films[:1] if shared else kind.films)],
        "measures": {
            name.removesuffix(" (%)"): {
                "values": np.round(values, 3).tolist(),
                "digits": 0 if name.endswith("(%)") else 2,
                "unit": " %" if name.endswith("(%)") else "",
            }
            for name, values in kind.measures.items()
        },
    }


def _drawn(kinds: Sequence[Filling]) -> Figure:
    """The middle frame of the first clip under the first mask, in every kind."""
    columns, middle = min(5, len(kinds)), kinds[0].films.shape[2] // 2
    lines = -(-len(kinds) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(1.7 * columns, 2.2 * lines), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, kind in zip(axes.flat, kinds, strict=False):
        ax.imshow(np.moveaxis(kind.films[0, 0, middle], 0, -1))
        ax.set_title(fill(kind.name, 18), fontsize="x-small")
    return figure
