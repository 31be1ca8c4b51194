"""The procedural stand-in data set: stick figures that perform the ten actions, as real H.264 files.

Two factors make a video. The *action* is motion and pose only; the *scene* is the background only.
Everything else (body, clothes, camera, light, clutter) is drawn at random and tells nothing about either.

Points are complex numbers x + y·j in *body heights* (the standing figure is about 1 tall), x to where
the figure looks, y up, the origin at the hip. Moving a point is an addition, turning it a product.

Book: chapter 1.
"""

import colorsys
import hashlib
import json
import os
import sys
from cmath import exp, rect
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import acos, pi, sin
from pathlib import Path
from types import SimpleNamespace as Numbers
from typing import Any, TextIO

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torchcodec.encoders import VideoEncoder
from tqdm.auto import tqdm

from picojepa import store as disk
from picojepa import workers
from standin.plan import StandInConfig

CLASSES = (
    "abseiling",
    "acting_in_play",
    "adjusting_glasses",
    "air_drumming",
    "alligator_wrestling",
    "answering_questions",
    "applauding",
    "applying_cream",
    "archaeological_excavation",
    "archery",
)
LABELLED_CLASSES = ("abseiling", "adjusting_glasses", "alligator_wrestling", "archaeological_excavation")
PAPER_PRETRAINING = (957, 749, 590, 892, 610, 548, 667, 559, 661, 970)
PAPER_LABELLED = (957, 589, 610, 661)
PAPER_VALIDATION = (48, 48, 48, 50)

VERSION = "1"  # of the generator: another version makes other videos

RATES = (12.0, 15.0, 20.0, 24.0, 25.0, 30.0, 29.97)  # frames per second
SIZES = ((96, 96), (112, 96), (128, 96), (96, 120), (104, 104))  # width, height in pixels; even for yuv420p
GOPS = (6, 12, 30, 250)  # frames from one key frame to the next
OTHER_VALIDATION = 48  # held-out videos of a class that the paper does not label

TORSO, NECK, HEAD, LEG, ARM = 0.30, 0.03, 0.075, 0.26, 0.17  # body heights; LEG and ARM are half a limb
SUPERSAMPLING = 2  # drawn pixels per video pixel, along each axis
MARGIN = 8  # video pixels of background beyond each edge, room for the camera's drift

Colour = tuple[int, int, int]
Line = tuple[complex, ...]
Shape = tuple[bool, complex, complex, Colour]  # is it a disc?, upper left corner and extent (video pixels)
Video = NDArray[np.uint8]


def plan(config: StandInConfig) -> pd.DataFrame:
    """List every video of the data set; row by row the same for the same ``config``.

    Returns:
        One row per video: path (inside the folder), label, split (pretrain or validation), labelled (is it in
        the paper's labelled lists?), scene, seed, frames, fps, width and height (px), gop (frames), crf.

    Book: chapter 1
    """
    labelled = dict(zip(LABELLED_CLASSES, PAPER_LABELLED, strict=True))
    validation = dict(zip(LABELLED_CLASSES, PAPER_VALIDATION, strict=True))
    rows = []
    for label, listed in zip(CLASSES, PAPER_PRETRAINING, strict=True):
        count = max(8, round(listed * config.scale))
        # The paper lists 590 videos of adjusting_glasses but uses 589: the first one stays without a label.
        first = count - max(8, round(labelled.get(label, 0) * config.scale))
        rows += [_row(config, "pretrain", label, n, label in labelled and n >= first) for n in range(count)]
    for label in CLASSES:
        count = max(4, round(validation.get(label, OTHER_VALIDATION) * config.validation_scale))
        rows += [_row(config, "validation", label, n, label in labelled) for n in range(count)]
    return pd.DataFrame(rows)


def _row(config: StandInConfig, split: str, label: str, number: int, labelled: bool) -> dict[str, Any]:
    """One row of `plan`, drawn from a generator of its own so that any video can be made alone."""
    rng = np.random.default_rng([config.seed, int(split == "validation"), CLASSES.index(label), number])
    fps = float(rng.choice(RATES))
    width, height = SIZES[rng.integers(len(SIZES))]
    own_scene = rng.random() < config.scene_correlation
    other_scene = CLASSES[rng.integers(len(CLASSES))]
    return {
        "path": f"{split}/{label}/{label}_{number + 1:04d}.mp4",
        "label": label,
        "split": split,
        "labelled": labelled,
        "scene": label if own_scene else other_scene,
        "seed": int(rng.integers(2**31)),
        "frames": round(rng.uniform(*config.seconds) * fps),
        "fps": fps,
        "width": width,
        "height": height,
        "gop": int(rng.choice(GOPS)),
        "crf": int(rng.integers(18, 27)),
    }


# The action: motion and pose.

# How a figure moves: ranges of uniform draws, the same for every action.
MANNER = {
    "period": (0.7, 1.4),  # seconds of one cycle
    "start": (0, 1),  # cycles already done at the first frame
    "size": (1.0, 1.35),  # factor on every amplitude
    "lean": (-0.15, 0.45),  # radians that the torso leans forward at rest
    "crouch": (0, 1),  # 0 upright ... 1 deep in the knees
    "stance": (0.04, 0.16),  # half the distance between the feet
    "rest_forward": (0, 0.18),  # where an idle hand is, from the chest
    "rest_up": (-0.32, -0.12),
    "variant": (0, 1),  # picks among the ways to do the same thing
}


VARIED = ("lean", "crouch", "stance", "across", "down", "turn", "drift", "light")  # ranges that ``variety`` narrows


def draw_numbers(ranges: Mapping[str, tuple[float, float]], rng: np.random.Generator, variety: float = 1.0) -> Numbers:
    """Draw one number from each range, as attributes of these names; ``variety`` narrows some about their middle."""
    numbers = {name: rng.uniform(low, high) for name, (low, high) in ranges.items()}
    middles = {name: sum(ranges[name]) / 2 for name in VARIED if name in ranges}
    return Numbers(**numbers | {name: middle + variety * (numbers[name] - middle) for name, middle in middles.items()})


@dataclass(frozen=True)
class Pose:
    """One figure at one moment; the near limb first, then the far one."""

    hip: complex
    lean: float  # radians, forward
    feet: tuple[complex, complex]
    hands: tuple[complex, complex] = (0j, 0j)
    nod: float = 0.0  # radians, forward
    glasses: bool = False
    props: tuple[Line, ...] = ()  # thin lines: rope, bow, brush, ...

    def chest(self, offset: complex) -> complex:
        """The point at ``offset`` from the shoulders, in a frame that leans with the torso."""
        return self.hip + (1j * TORSO + offset) * exp(-1j * self.lean)

    def reach(self, near: complex, far: complex) -> "Pose":
        """The same pose with the hands at these offsets from the chest."""
        return replace(self, hands=(self.chest(near), self.chest(far)))


def wave(cycles: float) -> float:
    """A sine of one period per cycle, -1 ... 1."""
    return sin(2 * pi * cycles)


def lift(cycles: float) -> float:
    """Once per cycle smoothly from 0 to 1, a stay there, and back."""
    x = min(1.0, max(0.0, 0.5 + 1.1 * wave(cycles)))
    return x * x * (3 - 2 * x)


def rest(m: Numbers) -> complex:
    """An idle hand, from the chest."""
    return complex(m.rest_forward, m.rest_up)


def stand(m: Numbers, hip: complex = 0j, lean: float = 0.0) -> Pose:
    """Both feet on the ground, the hands at rest; ``lean`` is added to the manner's own."""
    ground = -1j * (2 * LEG - 0.02 - 0.2 * m.crouch)
    return Pose(hip, m.lean + lean, (ground + m.stance, ground - m.stance)).reach(rest(m), rest(m) + 0.04)


def abseiling(c: float, m: Numbers) -> Pose:
    """Leans back on a rope, feet against a wall that is not drawn, and hops down."""
    hop = max(0.0, wave(c))
    hip = complex(-0.1 * hop, 0.16 - 0.11 * m.size * (c - m.start))
    wall = complex(0.16 + 0.22 * m.variant, hip.imag - 0.42 + 0.2 * m.variant)
    feet = (wall - 0.13 * hop, wall - 0.13 * hop + 0.05 - 0.12j)
    pose = Pose(hip, m.lean - 0.35 - 0.12 * hop, feet).reach(0.2 + 0.02j, 0.08 - 0.26j)
    return replace(pose, props=((pose.hands[0] + 0.1 + 2j, *pose.hands, hip),))


def acting_in_play(c: float, m: Numbers) -> Pose:
    """Paces to and fro with sweeping arms, some with a bow now and then."""
    bow = 0.8 * lift(c / 3) if m.variant < 0.5 else 0.0
    pose = stand(m, hip=complex(0.2 * m.size * wave(c / 3), 0), lean=bow)
    step = 0.14 * wave(c)
    feet = (pose.feet[0] + pose.hip + step + 0.05j * max(0, wave(c + 0.25)), pose.feet[1] + pose.hip - step)
    sweep = 0.1 + 1.2 * m.size * wave(c / 2)
    return replace(pose, feet=feet).reach(rect(0.32, sweep), rect(0.32, 0.5 - sweep))


def adjusting_glasses(c: float, m: Numbers) -> Pose:
    """One hand goes up to the glasses, nudges them and returns."""
    up = lift(c / 2)
    pose = replace(stand(m), nod=0.25 * up, glasses=True)
    face = 0.1 + 0.1j + 0.035j * m.size * wave(2 * c)
    return pose.reach(rest(m) + up * (face - rest(m)), rest(m))


def air_drumming(c: float, m: Numbers) -> Pose:
    """Both forearms beat in turn, fast."""
    beat = 0.1 * m.size * wave(2 * c)
    pose = replace(stand(m), nod=0.2 * wave(c))
    return pose.reach(complex(0.2, -0.15 + beat), complex(0.27, -0.12 - beat))


def alligator_wrestling(c: float, m: Numbers) -> Pose:
    """Bent low over a long thin body that writhes; the whole figure is shaken."""
    shake = 0.05 * m.size * wave(1.5 * c)
    lean = 0.7 + 0.35 * m.variant - 0.4 * m.lean
    pose = stand(m, hip=complex(shake, 0.03 * wave(c)), lean=lean)
    middle = pose.chest(0j) - 2 * shake + 0.04 - 0.3j
    body = [complex(0.08 * k, 0.05 * m.size * wave(1.5 * c + 0.15 * k) - 0.003 * k * k) for k in range(-5, 6)]
    hands = (middle + body[4], middle + body[6])
    return replace(pose, hands=hands, props=(tuple(middle + point for point in body),))


def answering_questions(c: float, m: Numbers) -> Pose:
    """Talks with small gestures of one hand and nods."""
    gesture = m.size * complex(0.06 * wave(c), 0.05 * wave(1.5 * c + m.variant))
    return replace(stand(m), nod=0.22 * wave(c)).reach(0.2 - 0.12j + gesture, rest(m))


def applauding(c: float, m: Numbers) -> Pose:
    """Both hands meet before the chest."""
    apart = 0.075 * m.size * (1 + wave(2 * c))
    return stand(m).reach(0.22 - 0.07j + apart * (1j - 0.4), 0.22 - 0.07j - apart * (1j - 0.4))


def applying_cream(c: float, m: Numbers) -> Pose:
    """One hand rubs up and down the other arm, or the cheek."""
    rub = wave(1.5 * c)
    if m.variant < 0.35:
        return replace(stand(m), nod=0.1).reach(0.09 + 0.07j + 0.06j * m.size * rub, rest(m))
    arm = rect(1.95 * ARM, -0.7 + 0.6 * m.variant)
    return stand(m).reach(arm * (0.62 + 0.3 * rub) + 0.02j, arm)


def archaeological_excavation(c: float, m: Numbers) -> Pose:
    """Kneels, one arm brushes the ground in short strokes."""
    stroke = 0.08 * m.size * wave(1.5 * c)
    pose = stand(m, lean=0.6 + 0.35 * m.variant - 0.4 * m.lean)
    ground = -1j * (0.28 - 0.06 * m.crouch)
    brush = pose.chest(0j).real + 0.1 + stroke + ground + 0.12j
    hands, tip = (brush, ground + 0.2 + 0.16j), brush - 0.12j - 0.04 * wave(1.5 * c + 0.2)
    return replace(pose, feet=(ground - 0.26, ground - 0.2), hands=hands, props=((brush, tip),))


def archery(c: float, m: Numbers) -> Pose:
    """One arm is stretched out with the bow, the other pulls back slowly and releases."""
    pull = min(1.0, (c / 2 % 1) / 0.75) * max(0.0, 1 - 12 * max(0.0, c / 2 % 1 - 0.9))
    pose = stand(m, lean=-0.5 * m.lean)
    far = rect(1.98 * ARM, 0.3 * (m.variant - 0.4))
    near = far - 0.06 - (0.24 * m.size) * pull
    bow = tuple(pose.chest(far + rect(0.2, angle) - 0.13) for angle in np.linspace(-1.1, 1.1, 7))
    pose = pose.reach(near, far)
    return replace(pose, props=(bow, (bow[0], pose.hands[0], bow[-1])))


ACTIONS: dict[str, Callable[[float, Numbers], Pose]] = {name: globals()[name] for name in CLASSES}


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
    dark, light = (np.array(colour(hue + 0.1 * sign, saturation, brightness + sign * swing)) for sign in (-1, 1))
    pattern = np.asarray(texture(points.real, points.imag, noise), dtype=np.float32)[..., None]
    return Image.fromarray((dark + pattern * (light - dark)).astype(np.uint8))


# The picture: body, clothes and camera know neither action nor scene. Ranges of uniform draws.
LOOK = {
    "across": (0.38, 0.62),  # the hip's place, share of the frame's width
    "down": (0.46, 0.62),  # ... and of its height
    "turn": (-0.15, 0.15),  # radians
    "mirror": (-1, 1),  # below 0: looks to the left
    "thickness": (0.08, 0.12),  # of a limb, body heights
    "head": (0.85, 1.2),  # factor on the head's radius
    "depth": (0, 0.1),  # distance between near and far shoulder as it is seen
    "glasses": (0, 1),  # below 0.4: wears some
    "sleeves": (0, 1),  # below 0.5: long ones
    "drift": (0, 5),  # of the camera, video pixels
    "drift_way": (0, 2 * pi),  # radians
    "drift_rate": (0.05, 0.25),  # cycles per second
    "drift_start": (0, 1),  # cycles
    "light": (0, 0.15),  # change of the brightness, share
    "light_rate": (0.05, 0.4),  # cycles per second
    "light_start": (0, 1),  # cycles
}
COLOURS = {  # hue, saturation, brightness
    "skin": ((0.03, 0.09), (0.3, 0.6), (0.7, 1.0)),
    "shirt": ((0, 1), (0, 0.5), (0.75, 1.0)),
    "trousers": ((0, 1), (0, 0.5), (0.6, 0.9)),
    "tool": ((0, 1), (0, 0.5), (0.1, 0.9)),  # also hair and glasses
}


@dataclass(frozen=True)
class Pencil:
    """Draws in body heights on a picture of `SUPERSAMPLING` times the video's size."""

    draw: ImageDraw.ImageDraw
    origin: complex  # of the figure, drawn pixels; the imaginary part points down
    unit: float  # drawn pixels per body height
    turn: complex  # rotation, a number of absolute value 1
    mirror: bool

    def stroke(self, points: Line, fill: Colour, thickness: float, round_ends: bool = True) -> None:
        """Draw a line through ``points``; a single point gives a disc."""
        turned = [point * self.turn * self.unit for point in points]
        pixels = [(self.origin.real + (-p.real if self.mirror else p.real), self.origin.imag - p.imag) for p in turned]
        self.draw.line(pixels, fill=fill, width=max(1, round(thickness * self.unit)))
        radius = thickness * self.unit / 2
        for x, y in pixels if round_ends else []:
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def limb(self, root: complex, end: complex, half: float, thickness: float, *fills: Colour) -> complex:
        """Draw a limb of two parts of length ``half`` that reaches for ``end``; return where it arrives."""
        distance = min(max(abs(end - root), 1e-6), 2 * half)
        direction = (end - root) / max(abs(end - root), 1e-6)
        bend = acos(distance / (2 * half)) * (1 if half == LEG else -1)  # knees bend forward, elbows back
        joint, tip = root + half * direction * exp(1j * bend), root + distance * direction
        self.stroke((root, joint), fills[0], thickness)
        self.stroke((joint, tip), fills[-1], 0.9 * thickness)
        return tip


def draw_figure(pencil: Pencil, pose: Pose, look: Numbers, colours: Mapping[str, Colour]) -> None:
    """Draw one figure with its props, from the far limbs to the near ones."""
    skin, shirt, trousers, tool = (colours[name] for name in ("skin", "shirt", "trousers", "tool"))
    sleeve, wide = shirt if look.sleeves < 0.5 else skin, look.thickness
    shoulder, side, up = pose.chest(-0.02j), look.depth / 2, exp(-1j * (pose.lean + pose.nod))
    pencil.limb(shoulder + side, pose.hands[1] + side, ARM, wide, dimmed(shirt), dimmed(sleeve))
    pencil.limb(pose.hip + side / 2, pose.feet[1], LEG, wide, dimmed(trousers))
    pencil.limb(pose.hip - side / 2, pose.feet[0], LEG, wide, trousers)
    pencil.stroke((pose.hip, shoulder), shirt, 1.9 * wide)
    head = pose.chest(0j) + (NECK + HEAD) * 1j * up
    pencil.stroke((pose.chest(0j), head), skin, wide)
    pencil.stroke((head,), skin, 2 * HEAD * look.head)
    pencil.stroke((head + (0.02j - 0.035) * up,), tool, 1.5 * HEAD * look.head)  # hair: shows where the face is
    if pose.glasses or look.glasses < 0.4:
        pencil.stroke((head + 0.01j * up, head + (0.085 + 0.01j) * up), tool, 0.02, round_ends=False)
    for prop in pose.props:
        pencil.stroke(prop, tool, 0.025, round_ends=False)
    hand = pencil.limb(shoulder - side, pose.hands[0] - side, ARM, wide, shirt, sleeve)
    pencil.stroke((hand,), skin, 1.2 * wide)


def dimmed(fill: Colour) -> Colour:
    """The colour of a limb on the far side."""
    return fill[0] * 3 // 4, fill[1] * 3 // 4, fill[2] * 3 // 4


def draw_clutter(rng: np.random.Generator, count: int, largest: float, size: tuple[int, int]) -> list[Shape]:
    """Draw still rectangles and discs of any colour, up to ``largest`` of a frame of ``size`` video pixels."""
    shapes = []
    for _ in range(count):
        corner, extent = rng.random(2) * size, rng.uniform(0.04, largest, 2) * size
        fill = colour(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.1, 0.5))
        shapes.append((bool(rng.random() < 0.5), complex(*corner), complex(*extent), fill))
    return shapes


def paint_clutter(draw: ImageDraw.ImageDraw, shapes: list[Shape], shift: complex) -> None:
    """Paint clutter, moved by ``shift`` video pixels."""
    for disc, corner, extent, fill in shapes:
        first, last = SUPERSAMPLING * (corner + shift), SUPERSAMPLING * (corner + extent + shift)
        (draw.ellipse if disc else draw.rectangle)((first.real, first.imag, last.real, last.imag), fill=fill)


def render(row: Mapping[str, Any], config: StandInConfig) -> Video:
    """Draw one video of `plan`, given its row; nothing but ``row`` and ``config`` decides a pixel.

    Returns:
        Frames (T, H, W, 3), uint8 RGB, 0 ... 255.

    Raises:
        KeyError: the row names an unknown action or scene.

    Book: chapter 1
    """
    # One stream per factor: another scene leaves the motion as it is, and the other way round.
    motion, body, scenery = (np.random.default_rng([int(row["seed"]), stream]) for stream in range(3))
    action = ACTIONS[row["label"]]
    manner, look = draw_numbers(MANNER, motion, config.variety), draw_numbers(LOOK, body, config.variety)
    colours = {name: colour(*(body.uniform(*r) for r in ranges)) for name, ranges in COLOURS.items()}
    width, height = size = int(row["width"]), int(row["height"])
    unit = SUPERSAMPLING * height * body.uniform(*config.figure_height)
    behind = draw_clutter(body, round(body.random() * config.clutter), 0.3, size)
    before = draw_clutter(body, round(body.random() * config.clutter / 2), 0.12, size)
    shape = SUPERSAMPLING * (height + 2 * MARGIN), SUPERSAMPLING * (width + 2 * MARGIN)
    backdrop = background(row["scene"], shape, config.background_contrast, scenery)
    paint_clutter(ImageDraw.Draw(backdrop), behind, complex(MARGIN, MARGIN))
    frames = np.empty((int(row["frames"]), height, width, 3), dtype=np.uint8)
    for index in range(len(frames)):
        seconds = index / row["fps"]
        camera = rect(look.drift * wave(look.drift_rate * seconds + look.drift_start), look.drift_way)
        image = look_through(backdrop, camera, size)
        draw = ImageDraw.Draw(image)
        hip = SUPERSAMPLING * (complex(look.across * width, look.down * height) + camera)
        pencil = Pencil(draw, hip, unit, exp(1j * look.turn), look.mirror < 0)
        draw_figure(pencil, action(manner.start + seconds / manner.period, manner), look, colours)
        paint_clutter(draw, before, camera)
        light = 1 + look.light * wave(look.light_rate * seconds + look.light_start)
        frames[index] = np.minimum(np.asarray(image.reduce(SUPERSAMPLING)) * np.float32(light), 255)
    return frames


def look_through(backdrop: Image.Image, camera: complex, size: tuple[int, int]) -> Image.Image:
    """Cut a frame of ``size`` video pixels from the backdrop; bilinear, for drifts below a pixel."""
    corner = SUPERSAMPLING * (complex(MARGIN, MARGIN) - camera)
    drawn = SUPERSAMPLING * size[0], SUPERSAMPLING * size[1]
    window = (1, 0, corner.real, 0, 1, corner.imag)
    return backdrop.transform(drawn, Image.Transform.AFFINE, window, Image.Resampling.BILINEAR)


# The files.


@disk.explained()
def generate(
    config: StandInConfig, folder: Path, workers: int | None = None, stream: TextIO | None = None
) -> pd.DataFrame:
    """Write every video that is not there yet, then ``manifest.csv``; an interrupted call is continued by the next.

    Of several calls at once one works and the others wait.

    Args:
        config: what to make.
        folder: where; made if missing.
        workers: processes; default: one per core. 1 works without further processes.
        stream: where the progress bar goes; default: standard output.

    Returns:
        The manifest: the columns of `plan` and ``sha256`` of each file.

    Raises:
        ValueError: ``folder`` holds videos of another generator version or configuration.
        OSError: the disk is full or cannot be written.

    Book: chapter 1
    """
    folder = Path(folder)
    if (table := _finished(config, folder)) is None:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if (table := _finished(config, folder)) is None:
                table = _generate(config, folder, workers or os.cpu_count() or 1, stream or sys.stdout)
    return table


def _finished(config: StandInConfig, folder: Path) -> pd.DataFrame | None:
    """The manifest if all of its videos are there; ValueError if the folder belongs to another configuration."""
    claim, manifest = folder / "generator.json", folder / "manifest.csv"
    if claim.exists() and json.loads(claim.read_text()) != _maker(config):
        raise ValueError(f"{claim} names another version or configuration; delete {folder} or choose another folder")
    table = pd.read_csv(manifest) if manifest.exists() else None
    return None if table is None or not all((folder / path).exists() for path in table["path"]) else table


def _claim(config: StandInConfig, folder: Path) -> None:
    """Say for which configuration a folder is, before its first video, so that two never share one."""
    _write(folder / "generator.json", json.dumps(_maker(config), indent=1).encode())


def _maker(config: StandInConfig) -> dict[str, Any]:
    """What makes the videos of a folder, as JSON has it."""
    return json.loads(json.dumps({"version": VERSION, "config": asdict(config)}))


def _generate(config: StandInConfig, folder: Path, count: int, stream: TextIO) -> pd.DataFrame:
    """Make what is missing."""
    _claim(config, folder)
    for left in folder.rglob(".*.partial"):  # by a call that was killed
        left.unlink()
    table = plan(config)
    for parent in {(folder / path).parent for path in table["path"]}:
        parent.mkdir(parents=True, exist_ok=True)
    rows, make = table.to_dict("records"), partial(write_video, config=config, folder=folder)
    bar = partial(tqdm, total=len(rows), desc="stand-in videos", unit="video", file=stream)
    if count == 1:
        table["sha256"] = list(bar(map(make, rows)))
    else:
        with ProcessPoolExecutor(count, workers.context(__name__), workers.end_with_parent) as pool:
            table["sha256"] = list(bar(pool.map(make, rows, chunksize=4)))
    _write(folder / "manifest.csv", table.to_csv(index=False).encode())
    return table


def write_video(row: Mapping[str, Any], config: StandInConfig, folder: Path) -> str:
    """Render and encode one video unless its file is there; return the file's SHA-256."""
    path = folder / row["path"]
    if not path.exists():
        frames = torch.from_numpy(render(row, config)).permute(0, 3, 1, 2)  # (T, C, H, W)
        # Equal bytes everywhere: one thread, no code that depends on the processor, and no macroblock-tree
        # look-ahead, with which two runs of the same x264 differ.
        options = {"g": row["gop"], "threads": 1, "x264-params": "cpu-independent=1:mbtree=0:rc-lookahead=0"}
        encoded = VideoEncoder(frames, frame_rate=row["fps"]).to_tensor(
            "mp4", codec="libx264", crf=row["crf"], preset="veryfast", pixel_format="yuv420p", extra_options=options
        )
        _write(path, encoded.numpy().tobytes())
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees a part of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:  # a full disk is told without a name
        raise OSError(error.errno, error.strerror, str(path)) from error
