"""Figures that answer: each works in the built page without a kernel, in JupyterLab, and as a picture on paper.

A figure is a picture for print and for readers without scripts, data as JSON, and a script of the same name as
its module (``masks.py``, ``masks.js``). `core.js` gives all of them the same controls. Media are data URIs here;
the book's build turns them into files of their own, which a page loads when they are needed.

Book: every chapter that lets the reader try something.
"""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from matplotlib.figure import Figure

from figures.plots import CONTEXT, TARGET, webp

SCRIPTS = Path(__file__).parent
BUDGET = 1_150_000  # characters that the films of one figure may take
PALETTE = {"context": CONTEXT, "target": TARGET}  # for the scripts
SIDE, FRAMES = 64, 8  # of a film, at most


def figure(kind: str, data: Mapping[str, Any], picture: str, title: str) -> HTML:
    """An interactive figure.

    Args:
        kind: name of the script, such as ``masks`` for ``masks.js``.
        data: what the script shows; plain values, lists and mappings.
        picture: HTML of what stands there without scripts and in print, such as `still` makes; it has its own
            text alternative.
        title: what a screen reader calls the figure.
    """
    core, style, script = (
        (SCRIPTS / name).read_text(encoding="utf-8") for name in ("core.js", "core.css", f"{kind}.js")
    )
    payload = json.dumps({"palette": PALETTE, **data}, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    return HTML(
        f'<div class="pj" data-kind="{kind}" role="group" aria-label="{html.escape(title)}">'
        f'<div class="pj-still">{picture}</div><div class="pj-live"></div>'
        f'<script type="application/json">{payload}</script></div>'
        f"<style>.pj {{ --pj-context: {CONTEXT}; }}\n{style}</style><script>{core}{script}picojepa.scan();</script>"
    )


def still(drawing: Figure, text: str) -> str:
    """A Matplotlib figure as an ``<img>`` with its text alternative; the figure is closed."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=110)
    plt.close(drawing)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(text)}" loading="lazy" src="data:image/png;base64,{data}">'


def film(clip: np.ndarray, quality: int = 80) -> dict[str, Any]:
    """A clip, uint8 (T, 3, H, W), for the scripts' ``ui.film``: all frames in one picture, one below the other."""
    frames, _, height, width = clip.shape
    column = np.moveaxis(clip, 1, -1).reshape(frames * height, width, 3)
    return {"src": webp(column, quality), "frames": frames, "width": width, "height": height}


def films(clips: np.ndarray, order: Sequence[int] | np.ndarray) -> list[dict[str, Any] | None]:
    """Small films of clips, uint8 (n, T, 3, H, W): as many as a page should hold, in ``order``; else None."""
    found: list[dict[str, Any] | None] = [None] * len(clips)
    left = BUDGET
    for row in order:
        clip = clips[row]
        step, thin = max(1, len(clip) // FRAMES), max(1, clip.shape[-1] // SIDE)
        made = film(clip[::step, :, ::thin, ::thin], quality=60)
        left -= len(made["src"])
        if left < 0:
            break
        found[row] = made
    return found
