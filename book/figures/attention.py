"""Where the attentive probe looks: its attention over the tokens of a clip, as heat over the frames.

Letters: n clips, H heads, N tokens in S time slices, D width.

Book: chapter 5.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import HTML
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor

import figures
from figures.plots import pretty
from picojepa import probing
from picojepa.architecture import Encoder
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.features import encode
from picojepa.probing import AttentiveHead, Task, new_attentive_head

HEAT = "#FFD400"


def trained_heads(settings: Settings, clips: Clips, run: Path, task: Task) -> dict[str, AttentiveHead]:
    """The heads of the attentive probe on random weights and on a pre-trained run, as its results keep them."""
    heads = {}
    for name, encoder in {"random weights": None, "pre-trained": run}.items():
        heads[name] = new_attentive_head(settings, len(task.classes))
        heads[name].load_state_dict(load_file(probing.probed(settings, clips, task, encoder) / probing.ATTENTIVE))
    return heads


@torch.no_grad()
def attention_weights(head: AttentiveHead, features: Tensor) -> Tensor:
    """How much each attention head looks at each token: (n, N, D) -> (n, H, N); each row sums to 1."""
    attention, heads = head.attention, head.attention.num_heads
    (to_query, to_key, _), (add_query, add_key, _) = (
        x.chunk(3) for x in (attention.in_proj_weight, attention.in_proj_bias)
    )
    query = (head.query @ to_query.T + add_query).reshape(1, heads, -1, 1)  # (1, H, D / H, 1)
    key = (head.norm(features) @ to_key.T + add_key).unflatten(-1, (heads, -1)).transpose(1, 2)  # (n, H, N, D / H)
    return ((key @ query).squeeze(-1) / key.shape[-1] ** 0.5).softmax(-1)


def chosen(task: Task, right: Sequence[bool], most: int = 10) -> np.ndarray:
    """For each class the place in ``task.test`` of its first right answer, for every second one of its first wrong one.

    A class without such an answer gives its first video, one without test videos nothing.
    """
    found = []
    for number in range(min(most, len(task.classes))):
        rows = np.flatnonzero(task.test_labels.numpy() == number)
        fits = rows[np.asarray(right, dtype=bool)[rows] == (number % 2 == 0)]
        found += [*fits[:1], *rows[:1]][:1]
    return np.array(found, dtype=int)


@torch.no_grad()
def looked(
    head: AttentiveHead, features: Tensor, names: Sequence[str], task: Task, slices: int
) -> list[dict[str, Any]]:
    """What the figure tells of clips of the named classes, (n, N, D): answers with and without the strongest token.

    Weights are in millionths, for the mean over heads and for each head; shares of slices and certainties in percent.
    """
    weights = attention_weights(head, features)
    views = torch.cat([weights.mean(1, keepdim=True), weights], 1)  # (n, 1 + H, N)
    shares = 100 * views.unflatten(2, (slices, -1)).sum(3).double()
    told = []
    for tokens, view, share, name in zip(features, views, shares, names, strict=True):
        best = int(view[0].argmax())
        rest = torch.cat([tokens[:best], tokens[best + 1 :]])
        whole, less = (head(x[None])[0].softmax(-1) for x in (tokens, rest))
        answer = {"said": pretty(task.classes[int(whole.argmax())]), "certainty": round(100 * whole.max().item(), 1)}
        answer |= {"other": pretty(task.classes[int(less.argmax())]), "less": round(100 * less.max().item(), 1)}
        answer |= {"right": task.classes[int(whole.argmax())] == name, "slices": share.numpy().round(1).tolist()}
        told.append(answer | {"weights": (1e6 * view).round().int().tolist()})
    return told


def explorer(
    settings: Settings,
    clips: Clips,
    task: Task,
    encoders: Mapping[str, Encoder],
    heads: Mapping[str, AttentiveHead],
    places: Sequence[int] | np.ndarray,
) -> HTML:
    """The figure, for test videos by their places in ``task.test``; the encoder that is named last is shown first."""
    films = clips.centre[task.test[places]]
    names = [task.classes[int(task.test_labels[place])] for place in places]
    told = {
        name: looked(heads[name], encode(encoder, films, pool=False), names, task, settings.grid[0])
        for name, encoder in encoders.items()
    }
    last, answers = list(told.items())[-1]
    tokens = int(np.prod(settings.grid)) // settings.grid[0]
    data = {
        "start": int(np.argmax(answers[0]["weights"][0])) // tokens * settings.model.tubelet,
        "grid": settings.grid,
        "tubelet": settings.model.tubelet,
        "views": ["mean of all heads", *(f"head {number + 1}" for number in range(settings.model.heads))],
        "clips": [{"name": pretty(n), "film": figures.film(film)} for n, film in zip(names, films, strict=True)],
        "encoders": [{"name": name, "clips": answers} for name, answers in told.items()],
    }
    text = " ".join(
        f"{pretty(name)}: answered {answer['said']}, {answer['certainty']:.0f} % certain; attention by time slice "
        f"{', '.join(f'{share:.0f} %' for share in answer['slices'][0])}."
        for name, answer in zip(names[:3], answers, strict=False)
    )
    picture = figures.still(_drawn(films[:3], answers, names, settings.grid), f"Encoder: {last}. {text}")
    return figures.figure("attention", data, picture, "Where the attentive probe looks")


def _drawn(
    films: np.ndarray, told: Sequence[Mapping[str, Any]], names: Sequence[str], grid: tuple[int, int, int]
) -> Figure:
    """The first frame of each slice under the mean over heads, and the share of the slice; a row for each clip."""
    figure, axes = plt.subplots(len(films), grid[0], figsize=(1.5 * grid[0], 1.9 * len(films)), squeeze=False)
    for line, film, answer, name in zip(axes, films, told, names, strict=False):
        heat = np.array(answer["weights"][0], dtype=float).reshape(grid)
        parts = zip(line, film[:: len(film) // grid[0]], heat, answer["slices"][0], strict=True)
        for number, (ax, frame, cells, share) in enumerate(parts, 1):
            ax.imshow(frame.mean(0) / 2, cmap="gray", vmin=0, vmax=255)
            over = np.kron(cells / heat.max(), np.ones((frame.shape[1] // grid[1], frame.shape[2] // grid[2])))
            ax.imshow(np.ones((*over.shape, 3)) * to_rgb(HEAT), alpha=0.85 * over)
            ax.set(xticks=[], yticks=[], xlabel=f"slice {number}: {share:.0f} %")
        line[0].set_title(" ", loc="left", fontsize="small")  # a long title must not widen its column
        title = f"{pretty(name)}: answered {answer['said']}"
        line[0].annotate(title, (0, 1), (0, 4), "axes fraction", "offset points", fontsize="small").set_in_layout(False)
    return figure
