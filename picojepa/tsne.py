"""Maps of features: t-SNE of patches as in the paper, of whole clips, and a number beside each picture.

Book: chapter 7.
"""

import numpy as np
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors


def tsne_map(features: np.ndarray, seed: int, perplexity: float = 30.0) -> np.ndarray:
    """Two-dimensional t-SNE map: (n, D) -> (n, 2).

    Args:
        features: one row per point.
        seed: of the random start.
        perplexity: about how many neighbours count; lowered where there are few points.

    Source: van der Maaten and Hinton 2008; pico-JEPA figure 3. Book: chapter 7.
    """
    return TSNE(perplexity=min(perplexity, (len(features) - 1) / 3), init="random", random_state=seed).fit_transform(
        features
    )


def purity(points: np.ndarray, labels: np.ndarray, neighbours: int = 10) -> float:
    """Mean share of a point's nearest neighbours that carry its label, 0 to 1 (the point itself is left out).

    Args:
        points: (n, d), features or a map.
        labels: (n,), class or video of each point.
        neighbours: how many are asked.
    """
    neighbours = min(neighbours, len(points) - 1)
    found = NearestNeighbors(n_neighbors=neighbours).fit(points).kneighbors(return_distance=False)  # (n, neighbours)
    return float((labels[found] == labels[:, None]).mean())


def purity_by_chance(labels: np.ndarray) -> float:
    """Expected purity if neighbours were drawn at random from the other points."""
    counts = np.unique(labels, return_counts=True)[1]
    return float((counts * (counts - 1)).sum() / (len(labels) * (len(labels) - 1)))
