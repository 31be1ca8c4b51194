"""How many videos a comparison takes: the power of McNemar's exact test, by number of videos and lead.

Book: the page on committees.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from matplotlib.figure import Figure

import figures
from evidence import sample_size
from figures import plots

LEADS = (0.5, 1, 1.5, 2, 3, 4, 5, 7, 10)  # points


def curves(disagree: float, marks: Mapping[str, int], leads: Sequence[float] = LEADS, most: int = 20_000) -> HTML:
    """The probability that a lead is told, over the number of videos.

    Args:
        disagree: share of the videos that only one of the two gets right, 0 to 1.
        marks: numbers of videos to mark, by name; those of one number share a mark.
        leads: true differences of accuracy, in points; those above ``disagree`` cannot be and are left out.
        most: videos at the right end.

    Raises:
        ValueError: no lead is possible.

    Book: the page on committees.
    """
    possible = [lead for lead in leads if lead <= 100 * disagree]
    if not possible:
        raise ValueError(f"with a disagreement of {disagree:.1%} none of the leads {list(leads)} is possible")
    videos = grid(marks, most)
    told = {lead: [sample_size.power(n, lead / 100, disagree) for n in videos] for lead in possible}
    named = {n: " and ".join(name for name, of in marks.items() if of == n) for n in sorted(set(marks.values()))}
    middle = 2 if 2 in possible else possible[len(possible) // 2]
    data = {
        "videos": videos,
        "leads": possible,
        "told": [[round(100 * value, 1) for value in values] for values in told.values()],
        "needed": [needed(lead / 100, disagree) for lead in possible],
        "marks": [{"n": n, "name": name} for n, name in named.items()],
        "start": [possible.index(middle), videos.index(min(named)) if named else len(videos) // 2],
    }
    parts = [f"Curves of the chance to tell a lead, over the number of videos, for a disagreement of {disagree:.1%}."]
    for n, name in named.items():
        chance = 100 * told[middle][videos.index(n)]
        parts.append(f"With {n} videos ({name}) a lead of {middle:g} points is told in {chance:.0f} % of cases.")
    picture = figures.still(_drawing(videos, told, named), " ".join(parts))
    return figures.figure("power", data, picture, "How many videos it takes to tell a lead")


def grid(marks: Mapping[str, int], most: int) -> list[int]:
    """Numbers of videos from 20 on, about evenly spaced in their logarithm, of two digits, and the marked ones."""
    most = max(most, *marks.values(), 20)
    spaced = [int(float(f"{value:.2g}")) for value in np.geomspace(20, most, 37)]
    return sorted({*spaced, *marks.values()})


def needed(lead: float, disagree: float) -> int | None:
    """Fewest videos that tell a lead four times in five, or None if they are too many to count."""
    try:
        return sample_size.videos_needed(lead, disagree)
    except ValueError:
        return None


def _drawing(videos: Sequence[int], told: Mapping[float, Sequence[float]], named: Mapping[int, str]) -> Figure:
    """All curves; each has its lead written at its end, and marks are dashed."""
    figure, ax = plt.subplots(figsize=(7, 3.6))
    for lead, values in told.items():
        ax.plot(videos, 100 * np.asarray(values), color=plots.CONTEXT, linewidth=1.2)
        half = int(np.abs(np.asarray(values) - 0.5).argmin())
        ax.text(videos[half], 100 * values[half], f"{lead:g}", fontsize="small", ha="center", va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
    for n, name in named.items():
        ax.axvline(n, color="0.4", linestyle="--", linewidth=1)
        ax.text(n, 101, f"{n}\n{name}", ha="center", va="bottom", fontsize="small")
    ax.set(xscale="log", xlabel="videos", ylabel="told (% of cases)", ylim=(0, 100))
    return figure
