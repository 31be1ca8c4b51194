"""The videos of a build, the stand-in or one's own, and the clips of a whole list. Book: chapter 1."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd

import standin
from footage.lists import classes, for_the_book, labelled_classes, quarters, read_folder, read_list, read_manifest  # noqa: F401
from footage.videos import UNREADABLE_LIMIT, VideoError, clip_times, decode_all, file_hash, open_video, read_clips  # noqa: F401
from picojepa import store
from picojepa.clips import Clips
from picojepa.config import Settings

log = logging.getLogger(__name__)
DECODED = store.Stage("data.clips", version=1)


def source() -> Path | None:
    """The folder or CSV of one's own videos (``PICOJEPA_DATA``, counted from the project's folder); None: the stand-in.

    Raises:
        FileNotFoundError: there is nothing at that path.
    """
    named = os.environ.get("PICOJEPA_DATA")
    path = (store.ROOT / Path(named).expanduser()).absolute() if named else None
    if path and not path.exists():
        raise FileNotFoundError(f"{path}: nothing there (PICOJEPA_DATA); name a folder of classes, or a CSV")
    return path


def own_videos(path: Path) -> pd.DataFrame:
    """The list of one's own videos; errors are those of `read_list` and `for_the_book`."""
    videos, remarks = read_list(path)
    for remark in remarks:
        log.info("%s: %s", path, remark)
    return for_the_book(videos, path)


def stand_in(settings: Settings) -> pd.DataFrame:
    """The list of the stand-in's videos; videos that are not there yet are generated (minutes, resumes)."""
    folder = store.cache_folder() / "videos" / store.digest(standin.made_from(settings.data))
    standin.generate(settings.data, folder)
    return read_manifest(folder / "manifest.csv")


def data_digest(videos: pd.DataFrame) -> str:
    """Digest of file names (quarters are cut by them) and contents, labels and splits."""
    names, hashes = [Path(path).name for path in videos.path], [file_hash(Path(path)) for path in videos.path]
    rows = zip(names, hashes, videos.label, videos.split, videos.labelled.astype(str), strict=True)
    return store.digest([list(row) for row in rows])


def load_clips(settings: Settings, videos: pd.DataFrame | None = None) -> Clips:
    """Decode every video once and find the clips again next time.

    Args:
        settings: profile.
        videos: a list from `read_manifest`; default: one's own (see `source`), else the stand-in.

    Raises:
        ValueError: too many videos cannot be read or their clips take too much disk (see `decode_all`), or one's own
            list is refused (`for_the_book`).
        OSError: the disk is full or cannot be written.
    """
    own = source() if videos is None else None
    if videos is None:
        videos = own_videos(own) if own else stand_in(settings)
    videos = videos.sort_values("split", kind="stable").reset_index(drop=True)  # pretrain before validation
    content = data_digest(videos)
    with store.result(DECODED, {"clip": store.plain(settings.clip), "list": content}) as result:
        if result.missing:
            result.facts |= decode_all(videos, settings.clip, content, result.folder)
    folder = result.folder
    training, centre = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("training", "centre"))
    report = _report(folder).assign(path=videos.path)  # the folder of the videos may have moved
    read = (report.status == "read").to_numpy()
    if not read.all():
        training, centre = training[read[: len(training)]], centre[read]
        videos = videos[read].reset_index(drop=True)
    skipped = report.loc[~read, ["path", "reason"]].reset_index(drop=True)
    videos = for_the_book(videos, own) if own else videos
    return Clips(videos, training, centre, skipped, store.card(folder)["digest"], folder)


def data_report(clips: Clips) -> pd.DataFrame:
    """What became of every video of a list, training videos first.

    Returns:
        Columns path, status (``read`` or ``unreadable``), reason, frames, seconds, frames_per_second, width, height (as
        shown), codec, rotation (degrees, counter-clockwise), padding (frames of the centre clip that repeat the last),
        note (how it was read, where that was not the usual way).
    """
    if clips.folder is None:
        raise ValueError("these clips were not decoded from files; use those of load_clips")
    return _report(clips.folder)


def _report(folder: Path) -> pd.DataFrame:
    return pd.DataFrame(json.loads((folder / "report.json").read_text(encoding="utf-8")))
