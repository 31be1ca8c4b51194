"""Lists of videos: manifests, splits and quarters, and the clips of a whole list.

Book: chapter 1.
"""

import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from picojepa import standin, store
from picojepa.clips import Clips, crop, crop_boxes, label_numbers, normalise  # noqa: F401
from picojepa.config import LABELLED_CLASSES, Settings, cache_folder
from picojepa.videos import (  # noqa: F401
    READ,
    UNREADABLE_LIMIT,
    VideoError,
    clip_gigabytes,
    clip_times,
    decode_all,
    file_hash,
    open_video,
    read_clips,
)

REQUIRED_COLUMNS = ("path", "label")
OPTIONAL_COLUMNS = ("split", "labelled", "scene", "seed", "frames", "fps", "width", "height", "gop", "crf", "sha256")
SPLITS = ("pretrain", "validation")
log = logging.getLogger(__name__)


# ---------------------------------------------------------------- lists


def read_manifest(path: Path) -> pd.DataFrame:
    """Read and check a list of videos.

    Args:
        path: CSV with the columns ``path`` (relative to the CSV) and ``label``; optional ``split``
            (``pretrain`` or ``validation``), ``labelled``, ``scene`` and what the generator noted.

    Returns:
        One row per video with absolute paths, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: missing or unknown column, unknown split, double path, no rows, a class without training videos.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"no manifest at {path}; generate the stand-in (chapter 1) or write a CSV with the columns path,label"
        )
    if not path.read_text(encoding="utf-8").strip():
        raise ValueError(f"{path}: the manifest lists no videos; add at least one row")
    table = pd.read_csv(path, dtype={"path": str, "label": str, "split": str})
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    if unknown := [c for c in table.columns if c not in known]:
        raise ValueError(f"{path}: unknown column {', '.join(unknown)}; known columns: {', '.join(known)}")
    if missing := [c for c in REQUIRED_COLUMNS if c not in table.columns]:
        raise ValueError(f"{path}: column {', '.join(missing)} is missing; add it to the first line and to every row")
    if table.empty:
        raise ValueError(f"{path}: the manifest lists no videos; add at least one row")
    if (bad := table[list(REQUIRED_COLUMNS)].isna().any(axis=1)).any():
        raise ValueError(f"{path}: line {int(bad.argmax()) + 2}: empty path or label; fill it or remove the row")
    if "split" not in table:
        table["split"] = "pretrain"
    if wrong := sorted(set(table.split.dropna()) - set(SPLITS)) + ["empty"] * bool(table.split.isna().any()):
        raise ValueError(f"{path}: unknown split {', '.join(wrong)}; known splits: {', '.join(SPLITS)}")
    if double := table.path[table.path.duplicated()].tolist():
        raise ValueError(f"{path}: listed twice: {double[0]}; remove one of the rows")
    if bare := sorted(set(table.label) - set(table.label[table.split == "pretrain"])):
        raise ValueError(
            f"{path}: class without training videos: {', '.join(bare)}; add some or remove its validation videos"
        )
    if "labelled" not in table:
        table["labelled"] = (table.split == "pretrain") & table.label.isin(LABELLED_CLASSES)
    return table.assign(path=[str((path.parent / p).resolve()) for p in table.path])


def stand_in(settings: Settings) -> pd.DataFrame:
    """The list of the stand-in's videos; videos that are not there yet are generated (minutes, resumes)."""
    folder = cache_folder() / "videos" / store.digest({"config": asdict(settings.data), "version": standin.VERSION})
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # of several processes one generates, the others wait
        standin.generate(settings.data, folder)
    return read_manifest(folder / "manifest.csv")


def quarters(videos: pd.DataFrame) -> pd.Series:
    """Number of the quarter, 1 to 4, of every labelled training video; 0 for all others.

    Each class is listed in the order of its file names and cut into contiguous runs of ceil(n / 4).

    Source: rule behind pico-JEPA's published lists (its Table 1: 706 / 707 / 707 / 697). Book: chapter 1.
    """
    number = pd.Series(0, index=videos.index)
    for label in LABELLED_CLASSES:
        of_class = videos[(videos.split == "pretrain") & (videos.label == label)].sort_values("path")
        run = -(-len(of_class) // 4) or 1
        number[of_class.index] = np.arange(len(of_class)) // run + 1
    return number.where(videos.labelled & (videos.split == "pretrain"), 0)


# ---------------------------------------------------------------- all videos


def data_digest(videos: pd.DataFrame) -> str:
    """Digest of file names (quarters are cut by them) and contents, labels and splits."""
    hashes = videos.sha256 if "sha256" in videos else [file_hash(Path(p)) for p in videos.path]
    columns = [Path(p).name for p in videos.path], hashes, videos.label, videos.split, videos.labelled.astype(str)
    return store.digest([list(row) for row in zip(*columns, strict=True)])


def load_clips(settings: Settings, videos: pd.DataFrame | None = None) -> Clips:
    """Decode every video once and find the clips again next time.

    Args:
        settings: profile.
        videos: a list from `read_manifest`; default: the stand-in.

    Raises:
        ValueError: more than ``UNREADABLE_LIMIT`` of the videos cannot be read (the first reasons are listed),
            or the clips would take more disk than allowed or free.
    """
    videos = stand_in(settings) if videos is None else videos
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
    return Clips(videos[readable].reset_index(drop=True), training, centre, skipped, store.card(folder)["digest"])
