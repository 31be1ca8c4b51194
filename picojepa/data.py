"""The videos of a build, the stand-in or one's own, and the clips of a whole list.

Book: chapter 1.
"""

import logging
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import standin
from picojepa import disk, store
from picojepa.clips import Clips
from picojepa.config import ROOT, Settings, cache_folder
from picojepa.lists import (  # noqa: F401 - chapters say data.quarters
    classes,
    for_the_book,
    labelled_classes,
    near_duplicates,
    quarters,
    read_folder,
    read_manifest,
    short_name,
    told,
)
from picojepa.videos import (  # noqa: F401 - and data.read_clips
    READ,
    UNREADABLE_LIMIT,
    VideoError,
    clip_times,
    data_report,
    decode_all,
    file_hash,
    open_video,
    read_clips,
)

log = logging.getLogger(__name__)


# ---------------------------------------------------------------- lists


def source() -> Path | None:
    """The folder or CSV of one's own videos (``PICOJEPA_DATA``, counted from the project's folder); None: the stand-in.

    Raises:
        FileNotFoundError: there is nothing at that path.
    """
    named = os.environ.get("PICOJEPA_DATA")
    if not named:
        return None
    path = (ROOT / Path(named).expanduser()).absolute()
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
    folder = cache_folder() / "videos" / store.digest({"config": asdict(settings.data), "version": standin.VERSION})
    standin.generate(settings.data, folder)
    return read_manifest(folder / "manifest.csv")


def described(clips: Clips) -> str:
    """What the videos of this build are, in sentences for the reader of a chapter."""
    videos, own = clips.videos, source()
    if own is None:
        return "The videos of this build are the stand-in of chapter 1: generated stick figures, not Kinetics."
    names, numbers = classes(videos), videos.split.value_counts()
    rest = sorted(set(videos.label) - set(names))
    only = f" {told(rest)}: no validation videos, so used for pre-training only." if rest else ""
    name = short_name(str(own)) if own.is_file() else own.name
    return (
        f"The videos of this build are not the stand-in but {name!r}: {numbers['pretrain']} for training and "
        f"{numbers['validation']} for validation, of {len(names)} classes ({told(names)}).{only} Read 'stand-in' as "
        "these videos where scores, tables and pictures are meant, and as the drawn figures where generator, scenes, "
        "tuning or loaded results are."
    )


# ---------------------------------------------------------------- all videos


def data_digest(videos: pd.DataFrame) -> str:
    """Digest of file names (quarters are cut by them) and contents, labels and splits."""
    hashes = videos.sha256 if "sha256" in videos else [file_hash(Path(p)) for p in videos.path]
    columns = [Path(p).name for p in videos.path], hashes, videos.label, videos.split, videos.labelled.astype(str)
    return store.digest([list(row) for row in zip(*columns, strict=True)])


@disk.explained()
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
    folder = store.result(
        "data.clips",
        {"clip": asdict(settings.clip), "list": content},
        partial(decode_all, videos, settings.clip, content),
    )
    readable = np.load(folder / "done.npy") == READ
    keep = np.flatnonzero(readable)
    skipped = pd.read_csv(folder / "skipped.csv").assign(path=videos.path[~readable].to_numpy())
    training, centre = np.load(folder / "training.npy", mmap_mode="r"), np.load(folder / "centre.npy", mmap_mode="r")
    if len(keep) < len(videos):
        training, centre = training[keep[keep < len(training)]], centre[keep]
    kept = videos[readable].reset_index(drop=True)
    kept = for_the_book(kept, own) if own else kept
    return Clips(kept, training, centre, skipped, store.card(folder)["digest"])
