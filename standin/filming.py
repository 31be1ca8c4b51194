"""The picture: a figure of any size, anywhere, in a world through which a camera travels beside it.

What a video asks is separate: the *action* is motion and pose, the *scene* is the texture of the world, and the
*travel*, to the left or to the right, is the camera's. The world looks the same from a camera that goes either way, so
no single frame tells the travel. A figure stands in the light before a dark world or in the shade before a bright one,
so that brightness at a place tells no pose.

Book: chapter 1.
"""

from cmath import rect
from collections.abc import Mapping
from dataclasses import dataclass
from math import pi
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from standin.actions import ACTIONS, MANNER, Numbers, draw_numbers, wave
from standin.figure import BODY, Pencil, draw_clothes, draw_figure
from standin.plan import StandInConfig
from standin.scenes import SCENES, colour

STEPS = 2  # places of the camera in a pixel, along each axis
MARGIN = 2  # pixels of world beyond what the camera sees
SWING = (0.05, 0.2)  # of the brightness of a texture, at full contrast

Pixels = NDArray[np.uint8]

# Ranges of uniform draws, the same for every action, scene and travel. Lengths are shares of the frame's height.
CAMERA = {
    "across": (0.2, 0.8),  # the hip's place, share of the frame's width
    "down": (0.40, 0.62),  # ... and of its height
    "turn": (-0.25, 0.25),  # of the figure, radians
    "mirror": (-1, 1),  # below 0: looks to the left
    "speed": (0.1, 0.4),  # of the travel, a second
    "climb": (-0.08, 0.08),  # up or down, a second
    "shake": (0, 0.02),
    "shake_rate": (0.5, 1.5),  # cycles per second
    "shake_start": (0, 1),  # cycles
    "wander": (0, 0.08),  # how badly the camera keeps the figure in its place
    "wander_way": (0, 2 * pi),  # radians
    "wander_rate": (0.1, 0.4),  # cycles per second
    "wander_start": (0, 1),  # cycles
    "light": (0, 0.3),  # change of the brightness, share
    "light_rate": (0.1, 0.8),  # cycles per second
    "light_start": (0, 1),  # cycles
}


@dataclass(frozen=True)
class World:
    """The world around the middle of the camera's way, drawn `STEPS` times finer than a frame, and its post."""

    picture: Pixels  # (STEPS * rows, STEPS * columns, 3)
    post: float  # place of a post that stands before the figure, share of the width; nan: none
    post_width: float  # share of a frame's width
    post_colour: tuple[int, int, int]

    def seen(self, camera: complex, size: tuple[int, int]) -> Pixels:
        """A frame of (width, height) pixels from a camera that is ``camera`` pixels away from the middle."""
        width, height = size
        rows, columns = self.picture.shape[0], self.picture.shape[1]
        left = round(columns / 2 + STEPS * (camera.real - width / 2))
        top = round(rows / 2 + STEPS * (camera.imag - height / 2))
        return self.picture[top : top + STEPS * height : STEPS, left : left + STEPS * width : STEPS].copy()

    def cover(self, frame: Pixels, camera: complex) -> None:
        """Draw the post, if there is one, over a frame."""
        if not np.isnan(self.post):
            width = frame.shape[1]
            middle = (self.post - 0.5) * self.picture.shape[1] / STEPS - camera.real + width / 2
            left, right = (max(0, round(middle + side * self.post_width * width / 2)) for side in (-1, 1))
            frame[:, left:right] = self.post_colour


def build_world(row: Mapping[str, Any], config: StandInConfig, reach: complex, bright: bool) -> World:
    """Paint one variant of a scene, large enough for a camera that goes ``reach`` pixels from the middle."""
    rng = np.random.default_rng([int(row["seed"]), 2])
    width, height = int(row["width"]), int(row["height"])
    rows, columns = (int(side + 2 * (way + MARGIN)) for side, way in ((height, reach.imag), (width, reach.real)))

    def noise(cells: int) -> NDArray[np.float32]:
        shape = (max(2, cells * rows // height), max(2, cells * columns // height))
        coarse = Image.fromarray(rng.random(shape, dtype=np.float32))
        return np.clip(np.asarray(coarse.resize((columns, rows), Image.Resampling.BICUBIC)), 0, 1)

    y, x = np.mgrid[:rows, :columns].astype(np.float32) / height
    points = (x + 1j * y) * rect(rng.uniform(0.8, 1.25), rng.normal(0, 0.15)) + complex(*rng.uniform(-1, 1, 2))
    texture = np.asarray(SCENES[row["scene"]](points.real, points.imag, noise), dtype=np.float32)
    octaves = sum(noise(3 * 2**k) / 2**k for k in range(5)) / 2  # 1/f
    share = rng.uniform(0.35, 0.65)
    pattern = (share * texture + (1 - share) * np.clip(2 * octaves - 0.5, 0, 1))[..., None]
    hue, saturation = rng.random(), rng.uniform(0.1, 0.7) * (0.7 if bright else 1)
    value, swing = rng.uniform(0.2, 0.5) + 0.42 * bright, config.background_contrast * rng.uniform(*SWING)
    shades = ((hue, value - swing), (hue + rng.normal(0, 0.1), value + swing))
    low, high = (np.array(colour(tone, saturation, level), dtype=np.float32) for tone, level in shades)
    picture = np.ascontiguousarray((low + pattern * (high - low)).astype(np.uint8))
    draw_clutter(picture, rng, round(rng.random() * config.clutter * columns / rows), height)
    fine = Image.fromarray(picture).resize((STEPS * columns, STEPS * rows), Image.Resampling.BILINEAR)
    post_colour = colour(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.1, 0.9))
    return World(np.asarray(fine), row["occluder"], rng.uniform(0.08, 0.2), post_colour)


def draw_clutter(picture: Pixels, rng: np.random.Generator, count: int, height: int) -> None:
    """Draw still boxes and ovals of any colour, up to 0.3 frame heights large."""
    for _ in range(count):
        corner = [int(rng.integers(side)) for side in picture.shape[1::-1]]
        extent = [int(share * height / 2) for share in rng.uniform(0.05, 0.3, 2)]
        fill = colour(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.1, 0.7))
        if rng.random() < 0.5:
            cv2.ellipse(picture, corner, extent, 0, 0, 360, fill, cv2.FILLED, cv2.LINE_AA)
        else:
            end = [start + 2 * half for start, half in zip(corner, extent, strict=True)]
            cv2.rectangle(picture, corner, end, fill, cv2.FILLED)


def camera_path(row: Mapping[str, Any], camera: Numbers) -> tuple[list[complex], list[complex]]:
    """Where the camera is in every frame, in pixels from the middle of its way, and how it is shaken there."""
    width, height, count = int(row["width"]), int(row["height"]), int(row["frames"])
    way = complex((1 if row["travel"] == "right" else -1) * camera.speed * width, camera.climb * height)
    seconds = [index / row["fps"] for index in range(count)]
    middle = seconds[-1] / 2
    phases = [camera.shake_rate * s + camera.shake_start for s in seconds]
    shaken = [height * camera.shake * complex(wave(phase), wave(1.3 * phase)) for phase in phases]
    return [way * (s - middle) + shake for s, shake in zip(seconds, shaken, strict=True)], shaken


def render(row: Mapping[str, Any], config: StandInConfig) -> Pixels:
    """Draw one video of `standin.plan`, given its row; nothing but ``row`` and ``config`` decides a pixel.

    Returns:
        Frames (T, H, W, 3), uint8 RGB, 0 ... 255.

    Raises:
        KeyError: the row names an unknown action or scene.

    Book: chapter 1
    """
    # One stream per factor: another scene leaves the motion as it is, and the other way round.
    motion, looks = (np.random.default_rng([int(row["seed"]), stream]) for stream in range(2))
    pose_at = ACTIONS[row["label"]].motion
    manner = draw_numbers(MANNER, motion, config.variety)
    camera, body = draw_numbers(CAMERA, looks), draw_numbers(BODY, looks)
    shaded = bool(looks.random() < 0.5)
    clothes = draw_clothes(looks, shaded)
    width, height = size = int(row["width"]), int(row["height"])
    unit = height * looks.uniform(*config.figure_height)
    path, shaken = camera_path(row, camera)
    seconds = (len(path) - 1) / 2 / row["fps"]
    ways = camera.speed * width * seconds, abs(camera.climb) * height * seconds
    reach = complex(*ways) + height * camera.shake * (1 + 1j)  # the same for both travels, so that the world is
    world = build_world(row, config, reach, bright=shaded)
    frames = np.empty((len(path), height, width, 3), dtype=np.uint8)
    for index, (place, shake) in enumerate(zip(path, shaken, strict=True)):
        seconds = index / row["fps"]
        frame = world.seen(place, size)
        swing = height * camera.wander * wave(camera.wander_rate * seconds + camera.wander_start)
        hip = complex(camera.across * width, camera.down * height) + rect(swing, camera.wander_way) - shake
        pencil = Pencil(frame, hip, unit, camera.turn, camera.mirror < 0)
        pose = pose_at(manner.start + seconds / manner.period, manner)
        draw_figure(pencil, pose, body, clothes, row["props"])
        world.cover(frame, place)
        light = 1 + camera.light * wave(camera.light_rate * seconds + camera.light_start)
        cv2.LUT(frame, np.minimum(np.arange(256) * light, 255).astype(np.uint8), frames[index])
    return frames
