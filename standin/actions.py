"""The actions: how a figure moves, one function each, and how many videos of it the paper lists.

To add an action, write its function here under `action`; nothing else has to change, and no other video does.

Points are complex numbers x + y·j in *body heights* (the standing figure is about 1 tall), x to where
the figure looks, y up, the origin at the hip. Moving a point is an addition, turning it a product.

Book: chapter 1.
"""

from cmath import exp, rect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import pi, sin
from types import SimpleNamespace as Numbers

import numpy as np

TORSO, NECK, HEAD, LEG, ARM = 0.30, 0.03, 0.075, 0.26, 0.17  # body heights; LEG and ARM are half a limb
OTHER_VALIDATION = 48  # held-out videos of an action that the paper does not label

Line = tuple[complex, ...]

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
VARIED = ("lean", "crouch", "stance")  # ranges that ``variety`` narrows


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


Motion = Callable[[float, Numbers], Pose]  # cycles done so far (a number that grows) and manner -> pose


@dataclass(frozen=True)
class Action:
    """A way of moving, and how many videos of it there are at the size of the paper's lists."""

    motion: Motion
    pretraining: int
    labelled: int  # of those for pre-training; 0: the paper does not label this action
    validation: int


ACTIONS: dict[str, Action] = {}


def action(pretraining: int, labelled: int = 0, validation: int = OTHER_VALIDATION) -> Callable[[Motion], Motion]:
    """Enter the decorated function in `ACTIONS`, under its name and with these numbers of videos.

    Raises:
        ValueError: the name is taken.
    """

    def enter(motion: Motion) -> Motion:
        if (name := motion.__name__) in ACTIONS:
            raise ValueError(f"there is an action {name} already; give this one another name")
        ACTIONS[name] = Action(motion, pretraining, labelled, validation)
        return motion

    return enter


@action(pretraining=957, labelled=957, validation=48)
def abseiling(c: float, m: Numbers) -> Pose:
    """Leans back on a rope, feet against a wall that is not drawn, and hops down."""
    hop = max(0.0, wave(c))
    hip = complex(-0.1 * hop, 0.16 - 0.11 * m.size * (c - m.start))
    wall = complex(0.16 + 0.22 * m.variant, hip.imag - 0.42 + 0.2 * m.variant)
    feet = (wall - 0.13 * hop, wall - 0.13 * hop + 0.05 - 0.12j)
    pose = Pose(hip, m.lean - 0.35 - 0.12 * hop, feet).reach(0.2 + 0.02j, 0.08 - 0.26j)
    return replace(pose, props=((pose.hands[0] + 0.1 + 2j, *pose.hands, hip),))


@action(pretraining=749)
def acting_in_play(c: float, m: Numbers) -> Pose:
    """Paces to and fro with sweeping arms, some with a bow now and then."""
    bow = 0.8 * lift(c / 3) if m.variant < 0.5 else 0.0
    pose = stand(m, hip=complex(0.2 * m.size * wave(c / 3), 0), lean=bow)
    step = 0.14 * wave(c)
    feet = (pose.feet[0] + pose.hip + step + 0.05j * max(0, wave(c + 0.25)), pose.feet[1] + pose.hip - step)
    sweep = 0.1 + 1.2 * m.size * wave(c / 2)
    return replace(pose, feet=feet).reach(rect(0.32, sweep), rect(0.32, 0.5 - sweep))


@action(pretraining=590, labelled=589, validation=48)
def adjusting_glasses(c: float, m: Numbers) -> Pose:
    """One hand goes up to the glasses, nudges them and returns."""
    up = lift(c / 2)
    pose = replace(stand(m), nod=0.25 * up, glasses=True)
    face = 0.1 + 0.1j + 0.035j * m.size * wave(2 * c)
    return pose.reach(rest(m) + up * (face - rest(m)), rest(m))


@action(pretraining=892)
def air_drumming(c: float, m: Numbers) -> Pose:
    """Both forearms beat in turn, fast."""
    beat = 0.1 * m.size * wave(2 * c)
    pose = replace(stand(m), nod=0.2 * wave(c))
    return pose.reach(complex(0.2, -0.15 + beat), complex(0.27, -0.12 - beat))


@action(pretraining=610, labelled=610, validation=48)
def alligator_wrestling(c: float, m: Numbers) -> Pose:
    """Bent low over a long thin body that writhes; the whole figure is shaken."""
    shake = 0.05 * m.size * wave(1.5 * c)
    lean = 0.7 + 0.35 * m.variant - 0.4 * m.lean
    pose = stand(m, hip=complex(shake, 0.03 * wave(c)), lean=lean)
    middle = pose.chest(0j) - 2 * shake + 0.04 - 0.3j
    body = [complex(0.08 * k, 0.05 * m.size * wave(1.5 * c + 0.15 * k) - 0.003 * k * k) for k in range(-5, 6)]
    hands = (middle + body[4], middle + body[6])
    return replace(pose, hands=hands, props=(tuple(middle + point for point in body),))


@action(pretraining=548)
def answering_questions(c: float, m: Numbers) -> Pose:
    """Talks with small gestures of one hand and nods."""
    gesture = m.size * complex(0.06 * wave(c), 0.05 * wave(1.5 * c + m.variant))
    return replace(stand(m), nod=0.22 * wave(c)).reach(0.2 - 0.12j + gesture, rest(m))


@action(pretraining=667)
def applauding(c: float, m: Numbers) -> Pose:
    """Both hands meet before the chest."""
    apart = 0.075 * m.size * (1 + wave(2 * c))
    return stand(m).reach(0.22 - 0.07j + apart * (1j - 0.4), 0.22 - 0.07j - apart * (1j - 0.4))


@action(pretraining=559)
def applying_cream(c: float, m: Numbers) -> Pose:
    """One hand rubs up and down the other arm, or the cheek."""
    rub = wave(1.5 * c)
    if m.variant < 0.35:
        return replace(stand(m), nod=0.1).reach(0.09 + 0.07j + 0.06j * m.size * rub, rest(m))
    arm = rect(1.95 * ARM, -0.7 + 0.6 * m.variant)
    return stand(m).reach(arm * (0.62 + 0.3 * rub) + 0.02j, arm)


@action(pretraining=661, labelled=661, validation=50)
def archaeological_excavation(c: float, m: Numbers) -> Pose:
    """Kneels, one arm brushes the ground in short strokes."""
    stroke = 0.08 * m.size * wave(1.5 * c)
    pose = stand(m, lean=0.6 + 0.35 * m.variant - 0.4 * m.lean)
    ground = -1j * (0.28 - 0.06 * m.crouch)
    brush = pose.chest(0j).real + 0.1 + stroke + ground + 0.12j
    hands, tip = (brush, ground + 0.2 + 0.16j), brush - 0.12j - 0.04 * wave(1.5 * c + 0.2)
    return replace(pose, feet=(ground - 0.26, ground - 0.2), hands=hands, props=((brush, tip),))


@action(pretraining=970)
def archery(c: float, m: Numbers) -> Pose:
    """One arm is stretched out with the bow, the other pulls back slowly and releases."""
    pull = min(1.0, (c / 2 % 1) / 0.75) * max(0.0, 1 - 12 * max(0.0, c / 2 % 1 - 0.9))
    pose = stand(m, lean=-0.5 * m.lean)
    far = rect(1.98 * ARM, 0.3 * (m.variant - 0.4))
    near = far - 0.06 - (0.24 * m.size) * pull
    bow = tuple(pose.chest(far + rect(0.2, 1.1 * k / 3) - 0.13) for k in range(-3, 4))
    pose = pose.reach(near, far)
    return replace(pose, props=(bow, (bow[0], pose.hands[0], bow[-1])))


CLASSES = tuple(sorted(ACTIONS))
LABELLED_CLASSES = tuple(name for name in CLASSES if ACTIONS[name].labelled > 0)
