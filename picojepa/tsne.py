"""Maps of features: t-SNE of patches as in the paper, of whole clips, and a number beside each picture.

Book: chapter 7.
"""

import numpy as np
from sklearn.manifold import TSNE
from sklearn.metrics import pairwise_distances

from picojepa.clips import Clips
from picojepa.data import labelled_classes


def tsne_map(features: np.ndarray, seed: int, perplexity: float = 30.0) -> np.ndarray:
    """Two-dimensional t-SNE map: (n, D) -> (n, 2).

    The perplexity is about how many neighbours count; it is lowered where there are few points.
    Source: van der Maaten and Hinton 2008; pico-JEPA figure 3. Book: chapter 7.
    """
    perplexity = min(perplexity, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(features)


def few_videos(clips: Clips, each: int = 5) -> np.ndarray:
    """Rows of the first labelled training videos of each labelled class, in the order of their file names.

    Source: pico-JEPA figure 3 (about five videos of each class, from the training list). Book: chapter 7.
    """
    videos = clips.videos[clips.videos.labelled & (clips.videos.split == "pretrain")].sort_values("path")
    return np.concatenate([videos.index[videos.label == label][:each] for label in labelled_classes(clips.videos)])


def spaced_tokens(tokens: int, videos: int, most: int = 1000) -> np.ndarray:
    """Which of N tokens to draw of every video: all, or evenly spaced ones, for a map of at most ``most`` points."""
    return np.linspace(0, tokens - 1, min(tokens, max(1, most // videos))).round().astype(int)


def nearest(points: np.ndarray, neighbours: int = 10, apart: np.ndarray | None = None) -> np.ndarray:
    """Numbers of the nearest neighbours of each point, (n, asked); at most half of those that may be asked.

    Args:
        points: (n, d), features or a map.
        neighbours: how many are asked; the point itself never is.
        apart: (n,), if given, only points that differ from the point in this label are asked.
    Book: chapter 7.
    """
    distance = pairwise_distances(np.asarray(points, dtype=np.float64))
    np.fill_diagonal(distance, np.inf)
    if apart is not None:
        distance[apart[:, None] == apart] = np.inf
    most = int(np.isfinite(distance).sum(1).min())
    return distance.argsort(axis=1)[:, : max(1, min(neighbours, most // 2))]


def shares(points: np.ndarray, labels: np.ndarray, neighbours: int = 10, apart: np.ndarray | None = None) -> np.ndarray:
    """For each point the share of its `nearest` neighbours that carry its label (n,): float64 (n,), 0 to 1."""
    return (labels[nearest(points, neighbours, apart)] == labels[:, None]).mean(1)


def purity(points: np.ndarray, labels: np.ndarray, neighbours: int = 10, apart: np.ndarray | None = None) -> float:
    """Mean of `shares` over all points, 0 to 1; same arguments."""
    return float(shares(points, labels, neighbours, apart).mean())


def purity_by_chance(labels: np.ndarray, apart: np.ndarray | None = None) -> float:
    """Expected purity if neighbours were drawn at random from the points that may be asked (see `nearest`)."""
    asked = ~np.eye(len(labels), dtype=bool) if apart is None else apart[:, None] != apart
    alike = asked & (labels[:, None] == labels)
    return float((alike.sum(1) / asked.sum(1)).mean())


def purity_gain(
    points: np.ndarray, labels: np.ndarray, videos: np.ndarray, minus: np.ndarray | None = None, draws: int = 1000
) -> tuple[float, float, float]:
    """Class purity among other videos above chance, and the band that chance alone leaves, in percentage points.

    The points of a video are no witnesses of their own, and videos are each other's neighbours. So the classes are
    dealt to the videos by lot, again and again; what was found counts where it lies outside of nearly all of these.

    Args:
        points: (n, d), equally many for each video.
        labels: (n,), class of each point.
        videos: (n,), video of each point.
        minus: (n, d), other features of the same points, whose purity is taken off in place of chance.
        draws: how often the classes are dealt.

    Returns:
        What was found, and the ends of the middle 95 % of what was dealt: a band around 0, not an interval for the
        first number.
    Book: chapters 7 and 8.
    """
    found = [nearest(space, apart=videos) for space in (points, minus) if space is not None]
    _, first, owner = np.unique(videos, return_index=True, return_inverse=True)
    chance, numbers = purity_by_chance(labels, videos), np.unique(labels[first], return_inverse=True)[1]

    def gain(classes: np.ndarray) -> float:
        of = classes[owner]
        purities = [(of[near] == of[:, None]).mean() for near in found]
        return round(100 * float(purities[0] - (chance if minus is None else purities[1])), 9)

    rng = np.random.default_rng(0)
    low, high = np.quantile([gain(rng.permutation(numbers)) for _ in range(draws)], [0.025, 0.975])
    return gain(numbers), float(low), float(high)
