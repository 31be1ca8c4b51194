"""The procedural stand-in data set: stick figures that perform the paper's ten actions, as real H.264 files.

- `standin.actions`: how a figure moves, one function for each action
- `standin.scenes`: what is behind it
- `standin.plan`: the configuration and the list of videos
- `standin.figure`: body, clothes and props
- `standin.filming`: from a row of the list to frames
- `standin.files`: from the list to a folder of videos

Three factors make a video. The *action* is motion, pose and props; the *scene* is the texture of the world; the
*travel*, to the left or to the right, is the camera's. Everything else (body, clothes, light, clutter) is drawn at
random and tells nothing about any of them.

Book: chapter 1.
"""

from standin.actions import ACTIONS, CLASSES, LABELLED_CLASSES
from standin.files import generate, made_from, write_video
from standin.filming import render
from standin.plan import COUNTER, StandInConfig, plan
from standin.scenes import SCENES

__all__ = [
    "ACTIONS",
    "CLASSES",
    "COUNTER",
    "LABELLED_CLASSES",
    "SCENES",
    "StandInConfig",
    "generate",
    "made_from",
    "plan",
    "render",
    "write_video",
]
