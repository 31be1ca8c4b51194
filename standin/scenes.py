"""The scenes: what the world looks like behind a figure. They know nothing of the action.

A scene of an action's name is that action's own; an action without one plays in any of them. Another scene
changes the videos: the scene of a video is drawn among all.

Book: chapter 1.
"""

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np

Colour = tuple[int, int, int]
Texture = Callable[[Any, Any, Callable[[int], Any]], Any]

# A texture, 0 ... 1, of x and y (frame heights) and of smooth noise with so many cells in a frame height.
SCENES: dict[str, Texture] = {
    "abseiling": lambda x, y, noise: np.abs(2 * noise(9) - 1),  # rock
    "acting_in_play": lambda x, y, noise: 0.5 + 0.5 * np.sin(40 * x + 2 * noise(3)),  # curtain
    "adjusting_glasses": lambda x, y, noise: (x * 7 // 1 + y * 7 // 1) % 2,  # checks
    "air_drumming": lambda x, y, noise: np.clip(8 * noise(6) - 4, 0, 1),  # blobs
    "alligator_wrestling": lambda x, y, noise: noise(28),  # foliage
    "answering_questions": lambda x, y, noise: (5 * y) % 1,  # shaded planks
    "applauding": lambda x, y, noise: np.hypot(x * 7 % 1 - 0.5, y * 7 % 1 - 0.5) < 0.3,  # crowd
    "applying_cream": lambda x, y, noise: np.minimum(x * 6 % 1, y * 6 % 1) > 0.15,  # tiles
    "archaeological_excavation": lambda x, y, noise: np.sin(35 * y + 6 * np.sin(5 * x)) / 2 + 0.5,  # layers
    "archery": lambda x, y, noise: np.clip(1.4 * np.sin(60 * (x + 0.6 * y)), 0, 1),  # rain
}


def colour(hue: float, saturation: float, brightness: float) -> Colour:
    """An 8-bit RGB colour from hue (turns), saturation and brightness."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(1, saturation), min(1, max(0, brightness)))
    return round(255 * red), round(255 * green), round(255 * blue)
