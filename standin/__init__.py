"""The procedural stand-in data set: stick figures that perform the paper's ten actions, as real H.264 files.

- `standin.actions`: how a figure moves, one function for each action
- `standin.scenes`: what is behind it
- `standin.plan`: the configuration and the list of videos
- `standin.drawing`: from a row of the list to frames
- `standin.filming`: the same for version 2, with figures by `standin.figure`
- `standin.files`: from the list to a folder of videos

Two factors make a video. The *action* is motion and pose only; the *scene* is the background only.
Everything else (body, clothes, camera, light, clutter) is drawn at random and tells nothing about either.

Book: chapter 1.
"""

from standin.actions import ACTIONS, CLASSES, LABELLED_CLASSES
from standin.files import generate, made_from, render, write_video
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
