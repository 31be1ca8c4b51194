"""What clips say without any network: the features that a pre-trained encoder has to beat.

Letters: n clips, T frames, H, W pixels.

Book: chapters 1 and 5.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from picojepa import probing, store
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.probing import Task

PROBED = store.Stage("probing.baselines", version=2)
WITHOUT_NETWORK = ("colour histogram", "tiny pictures", "frame differences")  # names in `BASELINES`
COMPONENTS = 128  # as many numbers as an encoder of the profile laptop gives


def colour_histogram(clips: np.ndarray, bins: int = 8) -> np.ndarray:
    """Share of a clip's pixels in each bin of red, green and blue; uint8 (n, T, 3, H, W) -> (n, 3 * bins)."""
    bin_of = np.asarray(clips) // (256 // bins)
    channels = [np.stack([(bin_of[:, :, c] == b).mean((1, 2, 3)) for b in range(bins)], 1) for c in range(3)]
    return np.concatenate(channels, 1)


def frame_differences(clips: np.ndarray, side: int = 16) -> np.ndarray:
    """Mean absolute difference of neighbouring frames in side x side places: uint8 (n, T, 3, H, W) -> (n, side**2)."""
    maps = []
    for clip in clips:  # one at a time: the clips may be mapped from disk
        moved = np.abs(np.diff(clip.astype(np.float32), axis=0)).mean((0, 1))  # (H, W)
        maps.append(F.adaptive_avg_pool2d(torch.from_numpy(moved)[None], side).flatten())
    return torch.stack(maps).numpy()


def shrunk(clips: np.ndarray, side: int) -> np.ndarray:
    """Every frame as a picture of side x side: uint8 (n, T, 3, H, W) -> float32 (n, T, 3, side, side)."""
    parts = [F.adaptive_avg_pool2d(torch.from_numpy(np.array(clip)).float(), side).numpy() for clip in clips]
    return np.stack(parts)


def tiny_pictures(clips: np.ndarray, side: int = 8) -> np.ndarray:
    """The mean frame as a picture of side x side: uint8 (n, T, 3, H, W) -> (n, 3 * side**2)."""
    return shrunk(clips, side).mean(1).reshape(len(clips), -1)


def pixels(clips: np.ndarray, side: int = 32) -> np.ndarray:
    """Every number of every frame at side x side: uint8 (n, T, 3, H, W) -> (n, T * 3 * side**2)."""
    return shrunk(clips, side).reshape(len(clips), -1)


def difference_films(clips: np.ndarray, side: int = 32) -> np.ndarray:
    """Absolute difference of neighbouring frames, at side x side: uint8 (n, T, 3, H, W) -> (n, (T - 1) * side**2)."""
    return np.abs(np.diff(shrunk(clips, side), axis=1)).mean(2).reshape(len(clips), -1)


def principal(train: np.ndarray, test: np.ndarray, count: int = COMPONENTS) -> tuple[np.ndarray, np.ndarray]:
    """The first principal components of training features (n, F), and the test features along them."""
    with threadpool_limits(1):
        found = PCA(min(count, *train.shape), svd_solver="randomized", random_state=0).fit(train)
        return found.transform(train), found.transform(test)


def plainly(describe: Callable[[np.ndarray], np.ndarray]) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """A description of single clips as a baseline."""
    return lambda train, test: (describe(train), describe(test))


def compressed(describe: Callable[[np.ndarray], np.ndarray]) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """The principal components of a description as a baseline."""
    return lambda train, test: principal(describe(train), describe(test))


# Name -> features of training and test clips, from clips uint8 (n, T, 3, H, W) of both.
BASELINES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "colour histogram": plainly(colour_histogram),
    "tiny pictures": plainly(tiny_pictures),
    "frame differences": plainly(frame_differences),
    "PCA of pixels": compressed(pixels),
    "PCA of frame differences": compressed(difference_films),
}


def probe_baselines(settings: Settings, clips: Clips, task: Task) -> pd.DataFrame:
    """Predictions of a linear probe on features without a network, see `WITHOUT_NETWORK`, stored."""
    with store.result(PROBED, probing.task_inputs(settings, clips, task)) as result:
        if result.missing:
            tables = []
            for name in WITHOUT_NETWORK:
                train, test = BASELINES[name](clips.centre[task.train], clips.centre[task.test])
                scores = probing.linear_probe(train, task.train_labels.numpy(), test)
                tables.append(probing.prediction_table(clips, task, scores, features=name, probe="linear"))
            pd.concat(tables).to_csv(result.folder / probing.PREDICTIONS, index=False)
    return probing.read_predictions(result.folder)
