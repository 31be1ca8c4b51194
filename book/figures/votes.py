"""Four votes, one video at a time: who says what, how sure, and how a tie is broken.

Book: chapter 6.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

import figures
from figures import plots
from picojepa import ensemble
from picojepa.clips import Clips
from picojepa.probing import Task


def table(clips: Clips, task: Task, predictions: pd.DataFrame) -> HTML:
    """Every validation video with the answers of all members, their certainty, the vote in words, and the truth.

    Args:
        clips: the videos.
        task: whose test videos are asked.
        predictions: of `ensemble.predictions`, for the same clips and task.

    Book: chapter 6.
    """
    scores = ensemble.scores_of(predictions, ensemble.MEMBERS)  # (5, n, classes)
    names = [plots.pretty(name) for name in task.classes]
    truth, kinds = task.test_labels.numpy(), kinds_of_videos(scores, task.test_labels.numpy())
    telling = np.unique(np.concatenate([kinds[name] for name in list(kinds)[1:4]])).astype(int)
    order = np.concatenate([telling, np.setdiff1d(kinds["all videos"], telling)])
    first = int(order[0])
    words, vote = steps(scores[1:, first], names)
    text = f"An example of the table: {names[truth[first]]}. " + " ".join(
        f"{member} says {names[of[first].argmax()]} with {100 * of[first].max():.0f} %."
        for member, of in zip(ensemble.MEMBERS, scores, strict=True)
    )
    data = {
        "members": list(ensemble.MEMBERS),
        "classes": names,
        "kinds": {name: rows.tolist() for name, rows in kinds.items()},
        "videos": [_video(scores[:, row], int(truth[row]), names) for row in range(len(truth))],
        "names": predictions.video[predictions.member == "General"].tolist(),
        "films": figures.films(clips.centre[task.test], order),
    }
    drawing = _drawing(scores[:, first], names, int(truth[first]), vote)
    drawing.axes[0].set_xlabel(textwrap.fill(words[-1], 80), fontsize="small")
    picture = figures.still(drawing, " ".join([text, *words]))
    return figures.figure("votes", data, picture, "Members and their votes, one video at a time")


def kinds_of_videos(scores: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Row numbers of the videos of each kind: scores (5, n, classes) of General and the Partials, truth (n,)."""
    vote, general = ensemble.majority_vote(scores[1:]) == truth, scores[0].argmax(-1) == truth
    chosen = scores.argmax(-1)  # (5, n)
    kinds = {
        "all videos": np.full(len(truth), True),
        "ties": ensemble.leaders(scores[1:]).sum(1) > 1,
        "the vote is right, General is wrong": vote & ~general,
        "General is right, the vote is wrong": general & ~vote,
        "all five agree": (chosen == chosen[0]).all(0),
        "all five are wrong": (chosen != truth).all(0),
    }
    return {name: np.flatnonzero(holds) for name, holds in kinds.items()}


def steps(scores: np.ndarray, names: Sequence[str]) -> tuple[list[str], int]:
    """How the voters of one video come to their answer, in words, and the number of that answer.

    Args:
        scores: probabilities, (voters, classes).
        names: of the classes.

    Book: chapter 6.
    """
    counts = ensemble.ballots(scores[:, None])[0]  # (classes,)
    named = [number for number in np.argsort(-counts, kind="stable").tolist() if counts[number]]
    said = [f"Count the votes: {_listed([f'{names[i]} {counts[i]}' for i in named])}."]
    first = np.flatnonzero(counts == counts.max()).tolist()
    if len(first) == 1:
        winner = first[0]
        said.append(f"One class has the most, so no rule for ties is needed: {names[winner]}.")
        return said, winner
    sums = ensemble.certainty_breaks(scores[:, None])[0]
    winner = first[int(sums[first].argmax())]
    said.append(f"No class leads alone: a tie of {_listed([names[i] for i in first])}.")
    digits = next((d for d in range(2, 8) if len({f"{sums[i]:.{d}f}" for i in first}) == len(first)), 8)
    summed = _listed([f"{names[i]} {sums[i]:.{digits}f}" for i in first])
    equal = (sums[first] == sums[winner]).sum() > 1
    rule = "The sums are equal; the first of the list wins" if equal else "The larger sum wins"
    return [*said, f"Sum the certainty of all {len(scores)} voters: {summed}. {rule}: {names[winner]}."], winner


def _video(scores: np.ndarray, truth: int, names: Sequence[str]) -> dict[str, Any]:
    """What the script shows of one video: for each member its three largest scores as (class, percent)."""
    words, vote = steps(scores[1:], names)
    best = scores.argsort(-1)[:, ::-1][:, :3]
    top = [[[int(i), round(100 * float(of[i]))] for i in order] for of, order in zip(scores, best, strict=True)]
    return {"truth": truth, "vote": vote, "top": top, "steps": words}


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _drawing(scores: np.ndarray, names: Sequence[str], truth: int, vote: int) -> Figure:
    """The scores of all members for one video, (5, classes), as a table of shades; of many classes those that count."""
    shown = sorted({*scores.argmax(-1).tolist(), truth, *range(min(4, len(names)))})
    figure, ax = plt.subplots(figsize=(1.5 * len(shown) + 1.5, 2.8))
    ax.imshow(scores[:, shown], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), score in np.ndenumerate(scores[:, shown]):
        chosen = shown[column] == int(scores[row].argmax())
        ax.text(column, row, f"{100 * score:.0f} %" + " *" * chosen, ha="center", va="center",
                color="white" if score > 0.75 else "black", weight="bold" if chosen else "normal")  # fmt: skip
    ax.set_xticks(range(len(shown)), [names[i].replace(" ", "\n") for i in shown])
    ax.set_yticks(range(len(scores)), ensemble.MEMBERS)
    ax.set_title(f"truth: {names[truth]}; the four Partials vote: {names[vote]} (* answer)")
    return figure
