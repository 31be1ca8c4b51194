"""From video files to clips: manifests, lists and quarters, reading clips, the store of decoded clips.

Letters: T frames, C = 3 channels, H = W pixels. Clips are stored as uint8 and normalised when used.

Book: chapter 1.
"""

import hashlib
import logging
import re
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock
from torch import Tensor
from torchcodec.decoders import VideoDecoder
from torchcodec.transforms import Resize
from tqdm.auto import tqdm

from picojepa import standin, store
from picojepa.clips import Clips
from picojepa.config import LABELLED_CLASSES, ClipConfig, Settings, cache_folder, cache_limit

REQUIRED_COLUMNS = ("path", "label")
OPTIONAL_COLUMNS = ("split", "labelled", "scene", "seed", "frames", "fps", "width", "height", "gop", "crf", "sha256")
SPLITS = ("pretrain", "validation")
UNREADABLE_LIMIT = 0.05  # share of unreadable videos above which nothing goes on
READ, UNREADABLE = 1, 2  # marks of progress in done.npy; 0: not tried yet
CHUNK = 64  # videos decoded between two marks of progress
log = logging.getLogger(__name__)


class VideoError(ValueError):
    """A video file that can not be used; the message holds the path and the reason."""


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


# ---------------------------------------------------------------- one video


def open_video(path: str | Path, size: int | None = None) -> VideoDecoder:
    """Open a video for reading frames by index or time.

    Args:
        path: any file that FFmpeg reads.
        size: squash every frame to this many pixels in height and width while decoding.

    Raises:
        VideoError: missing, empty or unreadable file, or one without video frames.
    """
    path = Path(path)
    if not path.is_file():
        raise VideoError(f"{path}: no such video file; check the path or generate the data again")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty; fetch or generate it again")
    try:
        decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, transforms=[Resize((size, size))] if size else None)
        frames = decoder.metadata.num_frames
    except (RuntimeError, ValueError) as error:
        raise VideoError(
            f"{path}: not readable as video ({_first_line(error)}); remove it from the list or encode it again"
        ) from error
    if not frames:
        raise VideoError(f"{path}: no frames inside; remove it from the list or encode it again")
    return decoder


def clip_times(decoder: VideoDecoder, clip: ClipConfig, position: float) -> np.ndarray:
    """Times of a clip's frames in seconds, float64 (T,).

    Args:
        decoder: the video.
        clip: number of frames, and frames per second (None: the video's own rate).
        position: 0 for the earliest possible clip, 0.5 for the centre, 1 for the last.

    Times beyond the end are moved to the last frame: a short video is padded with it.
    """
    meta = decoder.metadata
    start, end = float(meta.begin_stream_seconds or 0), float(meta.end_stream_seconds or 0)
    own_rate = float(meta.average_fps or 25)
    step = 1 / clip.frames_per_second if clip.frames_per_second else clip.stride / own_rate
    last_start = max(start, end - (clip.frames - 1) * step - 1 / own_rate)
    # The middle of the first frame's display time: rounding can not push a frame to its neighbour.
    first = start + position * (last_start - start) + 0.5 / own_rate
    return np.minimum(first + step * np.arange(clip.frames), end - 0.5 / own_rate)


def read_clips(path: str | Path, clip: ClipConfig, positions: Sequence[float]) -> Tensor:
    """Read several clips of one video in one pass.

    Args:
        path: video file.
        clip: geometry and sampling.
        positions: one number from 0 (start) to 1 (end) for every clip.

    Returns:
        uint8 (len(positions), T, C, H, W).

    Raises:
        VideoError: the file can not be opened or breaks off while it is read.
    """
    decoder = open_video(path, clip.size)
    times = np.stack([clip_times(decoder, clip, position) for position in positions])
    try:
        frames = decoder.get_frames_played_at(times.ravel().tolist()).data
    except (RuntimeError, IndexError, ValueError) as error:
        raise VideoError(
            f"{path}: reading stopped ({_first_line(error)}); remove it from the list or encode it again"
        ) from error
    return frames.unflatten(0, times.shape)


def _first_line(error: Exception) -> str:
    """What went wrong, without the decoder's source file and line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\w+, \S+:\d+, ", "", lines[0])[:200]


# ---------------------------------------------------------------- all videos


def data_digest(videos: pd.DataFrame) -> str:
    """Digest of file names (quarters are cut by them) and contents, labels and splits."""
    hashes = videos.sha256 if "sha256" in videos else [file_hash(Path(p)) for p in videos.path]
    columns = [Path(p).name for p in videos.path], hashes, videos.label, videos.split, videos.labelled.astype(str)
    return store.digest([list(row) for row in zip(*columns, strict=True)])


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, or the word ``missing``."""
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        partial(_decode_all, videos, settings.clip, content),
    )
    readable = np.load(folder / "done.npy") == READ
    keep = np.flatnonzero(readable)
    skipped = pd.read_csv(folder / "skipped.csv").assign(path=videos.path[~readable].to_numpy())
    training, centre = np.load(folder / "training.npy", mmap_mode="r"), np.load(folder / "centre.npy", mmap_mode="r")
    if len(keep) < len(videos):
        training, centre = training[keep[keep < len(training)]], centre[keep]
    return Clips(videos[readable].reset_index(drop=True), training, centre, skipped, store.card(folder)["digest"])


def clip_gigabytes(videos: pd.DataFrame, clip: ClipConfig) -> float:
    """Disk that the decoded clips of a list take."""
    clips = clip.clips_per_video * int((videos.split == "pretrain").sum()) + len(videos)
    return clips * clip.frames * 3 * clip.size**2 / 1e9


def _check_room(videos: pd.DataFrame, clip: ClipConfig, folder: Path) -> None:
    written = sum(path.stat().st_blocks * 512 for path in folder.glob("*.npy")) / 1e9
    wanted, free = clip_gigabytes(videos, clip), shutil.disk_usage(folder).free / 1e9
    if wanted > cache_limit() or wanted - written > free:
        raise ValueError(
            f"the decoded clips of {len(videos)} videos take {wanted:.1f} GB in {folder}; "
            f"allowed are {cache_limit():g} GB (PICOJEPA_CACHE_GB), free are {free:.1f} GB; allow more, "
            "name a larger disk in PICOJEPA_CACHE, or lower clip.clips_per_video or clip.size"
        )


def _decode_all(videos: pd.DataFrame, clip: ClipConfig, content: str, folder: Path) -> dict[str, Any]:
    """Fill a folder with ``training.npy``, ``centre.npy`` and ``skipped.csv``; goes on after an interruption."""
    _check_room(videos, clip, folder)
    trained = int((videos.split == "pretrain").sum())
    shape = (clip.frames, 3, clip.size, clip.size)
    training = _array(folder / "training.npy", (trained, clip.clips_per_video, *shape))
    centre = _array(folder / "centre.npy", (len(videos), *shape))
    done = _array(folder / "done.npy", (len(videos),))
    reasons: dict[int, str] = {}
    waiting = [i for i in range(len(videos)) if done[i] != READ]

    def decode(i: int) -> None:
        count = clip.clips_per_video if i < trained else 0
        positions = [0.5, *np.random.default_rng([0, i]).random(count)]
        try:
            clips = read_clips(videos.path[i], clip, positions).numpy()
        except VideoError as error:
            reasons[i] = str(error)
            return
        centre[i] = clips[0]
        if count:
            training[i] = clips[1:]

    with ThreadPoolExecutor() as pool, tqdm(total=len(waiting), desc="decoding", unit="video", file=sys.stdout) as bar:
        for start in range(0, len(waiting), CHUNK):
            chunk = waiting[start : start + CHUNK]
            list(pool.map(decode, chunk))
            training.flush()
            centre.flush()
            done[chunk] = [UNREADABLE if i in reasons else READ for i in chunk]
            done.flush()
            bar.update(len(chunk))
    _check_unreadable(reasons, videos)
    table = pd.DataFrame(
        {"path": [videos.path[i] for i in sorted(reasons)], "reason": [reasons[i] for i in sorted(reasons)]}
    )
    table.to_csv(folder / "skipped.csv", index=False)
    pixels = [file_hash(folder / name) for name in ("training.npy", "centre.npy", "done.npy")]
    digest = store.digest({"list": content, "pixels": pixels})
    return {"videos": len(videos), "skipped": len(reasons), "digest": digest}


def _check_unreadable(reasons: dict[int, str], videos: pd.DataFrame) -> None:
    if len(reasons) > UNREADABLE_LIMIT * len(videos):
        listed = "\n  ".join(reasons[i] for i in sorted(reasons)[:5])
        raise ValueError(
            f"{len(reasons)} of {len(videos)} videos can not be read (limit {UNREADABLE_LIMIT:.0%}); "
            f"the first of them:\n  {listed}"
        )


def _array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Open a uint8 array on disk, zeros where nothing was written yet."""
    if path.exists():
        return np.lib.format.open_memmap(path, mode="r+")
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
