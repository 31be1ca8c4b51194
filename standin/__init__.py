"""The procedural stand-in data set: stick figures that perform the paper's ten actions, as real H.264 files.

- `standin.actions`: how a figure moves, one function for each action
- `standin.scenes`: what is behind it
- `standin.plan`: the configuration and the list of videos
- `standin.drawing`: from a row of the list to frames
- `standin.files`: from the list to a folder of videos

Two factors make a video. The *action* is motion and pose only; the *scene* is the background only.
Everything else (body, clothes, camera, light, clutter) is drawn at random and tells nothing about either.

Book: chapter 1.
"""

from typing import Any

from standin.actions import ACTIONS, CLASSES, LABELLED
from standin.drawing import render
from standin.plan import VERSION, StandInConfig, plan
from standin.scenes import SCENES

__all__ = [
    "ACTIONS",
    "CLASSES",
    "LABELLED",
    "SCENES",
    "VERSION",
    "StandInConfig",
    "generate",
    "plan",
    "render",
    "write_video",
]


def __getattr__(name: str) -> Any:
    """Load `standin.files` when a video is made: the configuration needs neither PyTorch nor FFmpeg."""
    if name in ("generate", "write_video"):
        from standin import files

        return getattr(files, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
