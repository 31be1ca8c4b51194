"""The picture: a figure before a scene, seen by a camera; frames of one video.

Body, clothes, camera, light and clutter are drawn at random and tell nothing about action or scene.

Book: chapter 1.
"""

from cmath import exp, rect
from collections.abc import Mapping
from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from standin.actions import ACTIONS, ARM, HEAD, LEG, MANNER, NECK, Line, Numbers, Pose, draw_numbers, wave
from standin.figure import bent, dimmed
from standin.plan import StandInConfig
from standin.scenes import Colour, background, colour

SUPERSAMPLING = 2  # drawn pixels per video pixel, along each axis
MARGIN = 8  # video pixels of background beyond each edge, room for the camera's drift

Shape = tuple[bool, complex, complex, Colour]  # is it a disc?, upper left corner and extent (video pixels)
Video = NDArray[np.uint8]

# Ranges of uniform draws, the same for every action and scene.
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
        joint, tip = bent(root, end, half)
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
    pose_at = ACTIONS[row["label"]].motion
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
        draw_figure(pencil, pose_at(manner.start + seconds / manner.period, manner), look, colours)
        paint_clutter(draw, before, camera)
        light = 1 + look.light * wave(look.light_rate * seconds + look.light_start)
        frames[index] = np.minimum(np.asarray(image.reduce(SUPERSAMPLING)) * np.float32(light), 255)
    return frames


def look_through(backdrop: Image.Image, camera: complex, size: tuple[int, int]) -> Image.Image:
    """Cut a frame of ``size`` video pixels from the backdrop; bilinear, for drifts below a pixel."""
    corner = SUPERSAMPLING * (complex(MARGIN, MARGIN) - camera)
    drawn = SUPERSAMPLING * size[0], SUPERSAMPLING * size[1]
    box = (corner.real, corner.imag, corner.real + drawn[0], corner.imag + drawn[1])
    return backdrop.resize(drawn, Image.Resampling.BILINEAR, box)
