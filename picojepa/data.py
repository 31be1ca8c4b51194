"""The videos of a build, the stand-in or one's own, and the clips of a whole list.

Book: chapter 1.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

import standin
from picojepa import store
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.lists import classes, for_the_book, labelled_classes, quarters, read_folder, read_manifest  # noqa: F401
from picojepa.videos import (  # noqa: F401  # noqa: F401
    READ,
    REPORT,
    UNREADABLE_LIMIT,
    VideoError,
    clip_times,
    decode_all,
    file_hash,
    open_video,
    read_clips,
)

DECODED = store.Stage("data.clips", version=1)


# ---------------------------------------------------------------- lists


def source() -> Path | None:
    """The folder or CSV of one's own videos (``PICOJEPA_DATA``, counted from the project's folder); None: the stand-in.

    Raises:
        FileNotFoundError: there is nothing at that path.
    """
    named = os.environ.get("PICOJEPA_DATA")
    if not named:
        return None
    path = (store.ROOT / Path(named).expanduser()).absolute()
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: nothing there (PICOJEPA_DATA); name a folder with one sub-folder per class, or a CSV"
        )
    return path


def own_videos(path: Path) -> pd.DataFrame:
    """The list of one's own videos: of a folder with one sub-folder per class, or of a CSV.

    Raises:
        ValueError: see `read_folder`, `read_manifest` and `for_the_book`.
    """
    return for_the_book(read_folder(path) if path.is_dir() else read_manifest(path), path)


def stand_in(settings: Settings) -> pd.DataFrame:
    """The list of the stand-in's videos; videos that are not there yet are generated (minutes, resumes)."""
    folder = (
        store.cache_folder() / "videos" / store.digest({"config": asdict(settings.data), "version": standin.VERSION})
    )
    standin.generate(settings.data, folder)
    return read_manifest(folder / "manifest.csv")


# ---------------------------------------------------------------- all videos


def data_digest(videos: pd.DataFrame) -> str:
    """Digest of file names (quarters are cut by them) and contents, labels and splits."""
    hashes = [file_hash(Path(path)) for path in videos.path]
    columns = [Path(p).name for p in videos.path], hashes, videos.label, videos.split, videos.labelled.astype(str)
    return store.digest([list(row) for row in zip(*columns, strict=True)])


def load_clips(settings: Settings, videos: pd.DataFrame | None = None) -> Clips:
    """Decode every video once and find the clips again next time.

    Args:
        settings: profile.
        videos: a list from `read_manifest`; default: one's own (see `source`), else the stand-in.

    Raises:
        ValueError: more than ``UNREADABLE_LIMIT`` of the videos cannot be read (the first reasons are listed),
            or the clips would take more disk than allowed or free; one's own list is refused (`for_the_book`).
        OSError: the disk is full or cannot be written.
    """
    own = source() if videos is None else None
    if videos is None:
        videos = own_videos(own) if own else stand_in(settings)
    videos = videos.sort_values("split", kind="stable").reset_index(drop=True)  # pretrain before validation
    content = data_digest(videos)
    with store.result(DECODED, {"clip": asdict(settings.clip), "list": content}) as result:
        if result.missing:
            result.facts |= decode_all(videos, settings.clip, content, result.folder)
    folder = result.folder
    readable = np.load(folder / "done.npy") == READ
    keep = np.flatnonzero(readable)
    skipped = pd.read_csv(folder / "skipped.csv").assign(path=videos.path[~readable].to_numpy())
    training, centre = np.load(folder / "training.npy", mmap_mode="r"), np.load(folder / "centre.npy", mmap_mode="r")
    if len(keep) < len(videos):
        training, centre = training[keep[keep < len(training)]], centre[keep]
    kept = videos[readable].reset_index(drop=True)
    kept = for_the_book(kept, own) if own else kept
    return Clips(kept, training, centre, skipped, store.card(folder)["digest"], folder)


def data_report(clips: Clips) -> pd.DataFrame:
    """What became of every video of a list.

    Returns:
        One row per video, training first: path, status (``read`` or ``unreadable``), reason, frames, seconds,
        frames_per_second, width, height (as shown), codec, rotation (degrees, counter-clockwise) and padding (frames
        of the centre clip that repeat the last one).

    Raises:
        ValueError: the clips were not decoded from files.
    """
    if clips.folder is None:
        raise ValueError("these clips were not decoded from files; use those of load_clips")
    rows = json.loads((clips.folder / "report.json").read_text(encoding="utf-8"))
    return pd.DataFrame(rows, columns=list(REPORT))
