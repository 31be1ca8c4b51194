"""The scenes: what the background looks like. They know nothing of the action.

A scene of an action's name is that action's own; an action without one plays in any of them. Another scene
changes the videos: the scene of a video is drawn among all.

Book: chapter 1.
"""

import colorsys
from cmath import rect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Colour = tuple[int, int, int]

DUSK = 0.6  # factor on the scenes' brightness: the figures are lit, so that they stand out

# The scene: hue, saturation, brightness, and a texture, 0 ... 1, of x and y (frame heights) and smooth noise.
SCENES: dict[str, tuple[float, float, float, Callable[..., NDArray[Any]]]] = {
    "abseiling": (0.07, 0.25, 0.50, lambda x, y, noise: np.abs(2 * noise(9) - 1)),  # rock
    "acting_in_play": (0.98, 0.65, 0.50, lambda x, y, noise: 0.5 + 0.5 * np.sin(40 * x)),  # curtain
    "adjusting_glasses": (0.10, 0.40, 0.65, lambda x, y, noise: (x * 7 // 1 + y * 7 // 1) % 2),  # checks
    "air_drumming": (0.78, 0.45, 0.45, lambda x, y, noise: np.clip(8 * noise(6) - 4, 0, 1)),  # blobs
    "alligator_wrestling": (0.30, 0.50, 0.40, lambda x, y, noise: noise(28)),  # foliage
    "answering_questions": (0.60, 0.45, 0.50, lambda x, y, noise: (3 * y) % 1),  # shaded planks
    "applauding": (0.68, 0.30, 0.35, lambda x, y, noise: np.hypot(x * 7 % 1 - 0.5, y * 7 % 1 - 0.5) < 0.3),  # crowd
    "applying_cream": (0.48, 0.25, 0.70, lambda x, y, noise: np.minimum(x * 6 % 1, y * 6 % 1) > 0.15),  # tiles
    "archaeological_excavation": (0.13, 0.50, 0.60, lambda x, y, noise: np.sin(35 * y + 6 * np.sin(5 * x)) / 2 + 0.5),
    "archery": (0.22, 0.45, 0.55, lambda x, y, noise: 0.5 * noise(20) + np.clip(0.25 - y, 0, 0.5)),  # meadow
}


def colour(hue: float, saturation: float, brightness: float) -> Colour:
    """An 8-bit RGB colour from hue (turns), saturation and brightness."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(1, saturation), min(1, max(0, brightness)))
    return round(255 * red), round(255 * green), round(255 * blue)


def background(scene: str, shape: tuple[int, int], contrast: float, rng: np.random.Generator) -> Image.Image:
    """Paint one random variant of a scene, of ``shape`` (rows, columns)."""

    def noise(cells: int) -> NDArray[np.float32]:
        coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        return np.clip(np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC)), 0, 1)

    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32) / shape[0] - 0.5
    shift = complex(*rng.uniform(-0.15, 0.15, 2))
    points = (columns + 1j * rows) * rect(rng.uniform(0.7, 1.3), rng.normal(0, 0.12)) + shift
    hue, saturation, brightness, texture = SCENES[scene]
    hue, saturation = hue + rng.normal(0, 0.05), saturation * rng.uniform(0.6, 1.3)
    brightness, swing = DUSK * brightness + rng.normal(0, 0.05), 0.25 * contrast * rng.uniform(0.5, 1.0)
    shades = [colour(hue + 0.1 * sign, saturation, brightness + sign * swing) for sign in (-1, 1)]
    dark, light = np.array(shades, dtype=np.float32)
    pattern = np.asarray(texture(points.real, points.imag, noise), dtype=np.float32)[..., None]
    return Image.fromarray((dark + pattern * (light - dark)).astype(np.uint8))
