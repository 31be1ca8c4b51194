"""The figure: body, clothes and props, drawn with OpenCV at its place in a frame.

Points are complex numbers in body heights, as in `standin.actions`. Body and clothes are drawn at random and tell
nothing about the action.

Book: chapter 1.
"""

from cmath import exp
from collections.abc import Mapping
from math import acos

import cv2
import numpy as np
from numpy.typing import NDArray

from standin.actions import ARM, HEAD, LEG, NECK, Line, Numbers, Pose
from standin.scenes import Colour, colour

FRACTION = 4  # bits of a coordinate's part below a pixel

# Ranges of uniform draws, the same for every action and scene.
BODY = {
    "thickness": (0.09, 0.13),  # of a limb, body heights
    "head": (0.85, 1.2),  # factor on the head's radius
    "depth": (0, 0.1),  # distance between near and far shoulder as it is seen, body heights
    "glasses": (0, 1),  # below 0.4: wears some
    "sleeves": (0, 1),  # below 0.5: long ones
}
CLOTHES = {  # hue, saturation, brightness
    "skin": ((0.03, 0.09), (0.3, 0.6), (0.7, 1.0)),
    "shirt": ((0, 1), (0, 0.6), (0.7, 1.0)),
    "trousers": ((0, 1), (0, 0.6), (0.6, 0.95)),
    "tool": ((0, 1), (0, 0.5), (0.1, 0.9)),  # also hair and glasses
}
SHADE = 0.4  # brightness of a figure in the shade, against one in the light


def draw_clothes(rng: np.random.Generator, shaded: bool) -> dict[str, Colour]:
    """Colours of skin, clothes and tools, in the light or in the shade."""
    shade = SHADE if shaded else 1.0
    drawn = {name: [rng.uniform(*limits) for limits in ranges] for name, ranges in CLOTHES.items()}
    return {name: colour(hue, saturation, shade * value) for name, (hue, saturation, value) in drawn.items()}


def bent(root: complex, end: complex, half: float) -> tuple[complex, complex]:
    """Where joint and tip of a limb are, of two parts of length ``half``, that reaches from its root for ``end``."""
    distance = min(max(abs(end - root), 1e-6), 2 * half)
    direction = (end - root) / max(abs(end - root), 1e-6)
    bend = acos(distance / (2 * half)) * (1 if half == LEG else -1)  # knees bend forward, elbows back
    return root + half * direction * exp(1j * bend), root + distance * direction


class Pencil:
    """Draws in body heights on a frame, uint8 (H, W, 3), in place, with smooth edges."""

    def __init__(self, frame: NDArray[np.uint8], origin: complex, unit: float, turn: float, mirror: bool) -> None:
        """``origin`` of the figure (pixels, y down), pixels of a body height, a turn (radians), looks to the left?"""
        self.frame, self.unit = frame, unit
        self.corner, self.scale = origin * 2**FRACTION, unit * 2**FRACTION * exp(1j * turn)
        self.side = -1 if mirror else 1

    def stroke(self, points: Line, fill: Colour, thickness: float) -> None:
        """Draw a line with round ends through ``points``; a single point gives a disc."""
        turned = [point * self.scale for point in points]
        pixels = [(int(self.corner.real + self.side * p.real), int(self.corner.imag - p.imag)) for p in turned]
        if len(pixels) == 1:
            radius = int(thickness * self.unit * 2 ** (FRACTION - 1))
            cv2.circle(self.frame, pixels[0], radius, fill, cv2.FILLED, cv2.LINE_AA, FRACTION)
        width = max(1, round(thickness * self.unit))
        for start, end in zip(pixels, pixels[1:], strict=False):
            cv2.line(self.frame, start, end, fill, width, cv2.LINE_AA, FRACTION)

    def limb(self, root: complex, end: complex, half: float, thickness: float, *fills: Colour) -> complex:
        """Draw a limb of two parts of length ``half`` that reaches for ``end``; return where it arrives."""
        joint, tip = bent(root, end, half)
        self.stroke((root, joint), fills[0], thickness)
        self.stroke((joint, tip), fills[-1], 0.9 * thickness)
        return tip


def dimmed(fill: Colour) -> Colour:
    """The colour of a limb on the far side."""
    return fill[0] * 3 // 4, fill[1] * 3 // 4, fill[2] * 3 // 4


def draw_figure(pencil: Pencil, pose: Pose, body: Numbers, clothes: Mapping[str, Colour], props: bool) -> None:
    """Draw one figure, from the far limbs to the near ones, with the props of its action or without."""
    skin, shirt, trousers, tool = (clothes[name] for name in ("skin", "shirt", "trousers", "tool"))
    sleeve, wide = shirt if body.sleeves < 0.5 else skin, body.thickness
    shoulder, side, up = pose.chest(-0.02j), body.depth / 2, exp(-1j * (pose.lean + pose.nod))
    neck = pose.chest(0j)
    head = neck + (NECK + HEAD) * 1j * up
    pencil.limb(shoulder + side, pose.hands[1] + side, ARM, wide, dimmed(shirt), dimmed(sleeve))
    pencil.limb(pose.hip + side / 2, pose.feet[1], LEG, wide, dimmed(trousers))
    pencil.limb(pose.hip - side / 2, pose.feet[0], LEG, wide, trousers)
    pencil.stroke((pose.hip, shoulder), shirt, 1.9 * wide)
    pencil.stroke((neck, head), skin, wide)
    pencil.stroke((head,), skin, 2 * HEAD * body.head)
    pencil.stroke((head + (0.02j - 0.035) * up,), tool, 1.5 * HEAD * body.head)  # hair: shows where the face is
    if pose.glasses or body.glasses < 0.4:
        pencil.stroke((head + 0.01j * up, head + (0.085 + 0.01j) * up), tool, 0.03)
    for prop in pose.props if props else ():
        pencil.stroke(prop, tool, 0.035)
    hand = pencil.limb(shoulder - side, pose.hands[0] - side, ARM, wide, shirt, sleeve)
    pencil.stroke((hand,), skin, 1.2 * wide)
