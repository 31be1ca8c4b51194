"""The list of videos: the configuration, and what is drawn at random for each video.

Each video has a random generator of its own, seeded with the name of its action: any video can be made
alone, a longer list holds the videos of a shorter one, and an action more or less changes no other video.

Book: chapter 1.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from standin.actions import ACTIONS
from standin.scenes import SCENES

VERSION = "2"  # of the generator: another version makes other videos
TRAVELS = ("left", "right")
COUNTER = "validation-counter"  # the split of videos that never play in their action's own scene
RATES = (12.0, 15.0, 20.0, 24.0, 25.0, 30.0, 29.97)  # frames per second
SIZES = ((96, 96), (112, 96), (128, 96), (96, 120), (104, 104))  # width, height in pixels; even for yuv420p
GOPS = (6, 12, 30, 250)  # frames from one key frame to the next


@dataclass(frozen=True)
class StandInConfig:
    """What the stand-in is made of (chapter 1 tells how the difficulty was set)."""

    seed: int = 1
    scale: float = 0.5  # share of the paper's training lists; validation is never scaled
    validation_scale: float = 1.0  # share of the validation list, below 1 only for smoke tests
    scene_correlation: float = 0.5  # probability that a video plays in its action's own scene
    figure_height: tuple[float, float] = (0.6, 1.0)  # standing body / frame height
    background_contrast: float = 0.6  # 1: background as contrasty as the clothes
    variety: float = 0.35  # how much pose at rest, place, camera and light differ between videos; 0: not at all
    clutter: int = 2  # most still shapes behind the figure
    seconds: tuple[float, float] = (1.5, 2.5)  # length of a video
    props: float = 0.75  # probability that the props of an action are there
    occluders: float = 0.1  # probability of a post before the figure
    validation_each: int = 0  # validation videos of every action; 0: as the paper lists
    counter_each: int = 0  # of every action, further videos of the split `COUNTER`

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 1:
            raise ValueError(f"scale must lie in (0, 1], not {self.scale}")
        if not 0 <= self.scene_correlation <= 1:
            raise ValueError(f"scene_correlation must lie in [0, 1], not {self.scene_correlation}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, not {self.seed}")
        for name in ("figure_height", "seconds"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two numbers above 0 that rise, not {(low, high)}")


def plan(config: StandInConfig) -> pd.DataFrame:
    """List every video of the data set; row by row the same for the same ``config``.

    Returns:
        One row per video: path (inside the folder), label, split (pretrain, validation or `COUNTER`), labelled (is
        it in the paper's labelled lists?), scene, seed, frames, fps, width and height (px), gop (frames), crf,
        travel (left or right, equally many of every action), props (are they there?) and occluder (place of a
        post, share of the world's width; nan: none).

    Book: chapter 1
    """
    training, validation, counter = [], [], []
    for label, action in sorted(ACTIONS.items()):
        count = max(8, round(action.pretraining * config.scale))
        # The paper lists 590 videos of adjusting_glasses but labels 589: the first one stays without a label.
        unlabelled = count - (max(8, round(action.labelled * config.scale)) if action.labelled else 0)
        training += [_row(config, "pretrain", label, n, n >= unlabelled) for n in range(count)]
        count = config.validation_each or max(4, round(action.validation * config.validation_scale))
        validation += [_row(config, "validation", label, n, action.labelled > 0) for n in range(count)]
        counter += [_row(config, COUNTER, label, n, action.labelled > 0) for n in range(config.counter_each)]
    return pd.DataFrame(training + validation + counter)


def _row(config: StandInConfig, split: str, label: str, number: int, labelled: bool) -> dict[str, Any]:
    """One row of `plan`."""
    name = zlib.crc32(label.encode())
    rng = np.random.default_rng([config.seed, ("pretrain", "validation", COUNTER).index(split), name, number])
    fps = float(rng.choice(RATES))
    width, height = SIZES[rng.integers(len(SIZES))]
    at_home = rng.random() < config.scene_correlation
    any_scene = tuple(SCENES)[rng.integers(len(SCENES))]
    if split == COUNTER:
        away = [scene for scene in SCENES if scene != label]
        at_home, any_scene = False, away[rng.integers(len(away))]
    row = {
        "path": f"{split}/{label}/{label}_{number + 1:04d}.mp4",
        "label": label,
        "split": split,
        "labelled": labelled,
        "scene": label if at_home and label in SCENES else any_scene,
        "seed": int(rng.integers(2**31)),
        "frames": round(rng.uniform(*config.seconds) * fps),
        "fps": fps,
        "width": width,
        "height": height,
        "gop": int(rng.choice(GOPS)),
        "crf": int(rng.integers(18, 27)),
        "travel": TRAVELS[number % 2],
        "props": bool(rng.random() < config.props),
    }
    post = float(rng.random())
    return row | {"occluder": post if rng.random() < config.occluders else float("nan")}
