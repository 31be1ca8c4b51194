"""From one video file to clips, and from a whole list to the store of decoded clips.

Letters: T frames, C = 3 channels, H = W pixels. Clips are stored as uint8.

Book: chapter 1.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torchcodec.decoders import VideoDecoder
from torchcodec.transforms import Resize
from tqdm.auto import tqdm

from picojepa import store, workers
from picojepa.clips import ClipConfig
from picojepa.store import cache_limit

UNREADABLE_LIMIT = 0.05  # share of unreadable videos above which nothing goes on
READ, UNREADABLE = 1, 2  # marks of progress in done.npy; 0: not tried yet
CHUNK = 64  # videos decoded between two marks of progress
PIXEL_LIMIT = 8192 * 8192  # of one frame; larger ones are refused before anything is decoded
HOURS_LIMIT = 12  # of one video
TIMEOUT = 120.0  # seconds that a worker may take for one video
BATCH_BYTES = 4_000_000  # of decoded clips that a worker hands over at a time
FACTS = ("frames", "seconds", "frames_per_second", "width", "height", "codec", "rotation", "padding")
REPORT = ("path", "status", "reason", *FACTS)  # columns of the data report
PLAIN = {  # what the decoder says, and what it means
    "The best video stream is unknown": "no moving pictures inside, sound only or neither",
    "Could not seek file to pts=0": "a header without a single frame",
    "Could not push packet to decoder": "damaged or encrypted data",
}
Job = tuple[int, str, list[float]]  # number in the list, path, positions of the clips
Outcome = tuple[np.ndarray | None, dict[str, Any]]  # clips, if they could be read, and a row of the data report


class VideoError(ValueError):
    """A video file that can not be used; the message holds the path and the reason."""


# ---------------------------------------------------------------- one video


def open_video(path: str | Path, size: int | None = None) -> VideoDecoder:
    """Open a video for reading frames by index or time, turned as a player would show them.

    Args:
        path: any file that FFmpeg reads.
        size: squash every frame to this many pixels in height and width while decoding.

    Raises:
        VideoError: missing, empty or unreadable file, one without video frames, or a larger or longer one than allowed.
    """
    path = Path(path)
    resize = [Resize((size, size))] if size else None
    try:
        if not path.is_file():
            raise VideoError(f"{path}: no such video file; check the path or generate the data again")
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: the file is empty; fetch or generate it again")
        decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, transforms=resize)
        if decoder.metadata.num_frames and 0 not in decoder._get_key_frame_indices():
            known, scanned = _frame_times(path, decoder.stream_index), decoder.metadata
            decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, transforms=resize, custom_frame_mappings=known)
            decoder.metadata = scanned  # its own is read off the header
    except VideoError:
        raise
    except (RuntimeError, ValueError, LookupError, OSError, subprocess.SubprocessError) as error:
        raise VideoError(
            f"{path}: not readable as video ({_first_line(error)}); remove it from the list or encode it again"
        ) from error
    meta: Any = decoder.metadata
    if not meta.num_frames:
        raise VideoError(f"{path}: no frames inside; remove it from the list or encode it again")
    if (meta.width or 0) * (meta.height or 0) > PIXEL_LIMIT:
        raise VideoError(f"{path}: {meta.width} x {meta.height} pixels are too many; encode it again, smaller")
    if (hours := (meta.end_stream_seconds - meta.begin_stream_seconds) / 3600) > HOURS_LIMIT:
        raise VideoError(f"{path}: {hours:.0f} hours are too long (limit {HOURS_LIMIT}); cut it into parts")
    return decoder


def _frame_times(path: Path, stream: int) -> str:
    """Times of the frames that are shown, for a file whose edit list hides the key frame before the first of them.

    The decoder seeks among the shown key frames only; the first shown frame is called one, and the seek to it ends
    at the hidden one before.
    """
    command = ["ffprobe", "-v", "quiet", "-select_streams", str(stream), "-of", "json"]
    command += ["-show_entries", "packet=pts,duration,flags", str(path)]
    packets = json.loads(subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=True).stdout)["packets"]
    shown = sorted((p for p in packets if "D" not in p["flags"] and "pts" in p), key=lambda p: p["pts"])
    frames = [
        {"pts": p["pts"], "duration": p.get("duration", 0), "key_frame": int("K" in p["flags"] or p is shown[0])}
        for p in shown
    ]
    return json.dumps({"frames": frames})


def _wanted_times(meta: Any, clip: ClipConfig, position: float) -> tuple[np.ndarray, float, float]:
    """Times (T,) that a clip asks for, the last of which may lie beyond the end; start and end of the video."""
    start, end = float(meta.begin_stream_seconds or 0), float(meta.end_stream_seconds or 0)
    own_rate = float(meta.average_fps or 25)
    step = 1 / clip.frames_per_second if clip.frames_per_second else clip.stride / own_rate
    last_start = max(start, end - (clip.frames - 1) * step - 1 / own_rate)
    # The middle of the first frame's display time: rounding can not push a frame to its neighbour.
    first = start + position * (last_start - start) + 0.5 / own_rate
    return first + step * np.arange(clip.frames), start, end


def clip_times(decoder: VideoDecoder, clip: ClipConfig, position: float) -> np.ndarray:
    """Times of a clip's frames in seconds, float64 (T,).

    Args:
        decoder: the video.
        clip: number of frames, and frames per second (None: the video's own rate).
        position: 0 for the earliest possible clip, 0.5 for the centre, 1 for the last.

    Times beyond the end are moved to the last frame: a short video is padded with it.
    """
    wanted, start, end = _wanted_times(decoder.metadata, clip, position)
    # A last frame that is shown for a moment only, as a variable frame rate allows, is met all the same.
    return np.maximum(np.minimum(wanted, end - 1e-3), start)


def read_clips(path: str | Path, clip: ClipConfig, positions: Sequence[float]) -> Tensor:
    """Read several clips of one video in one pass.

    Args:
        path: video file.
        clip: geometry and sampling.
        positions: one number from 0 (start) to 1 (end) for every clip.

    Returns:
        uint8 (len(positions), T, C, H, W).

    Raises:
        VideoError: the file can not be opened, or not every frame that is wanted can be decoded.
    """
    return _clips_of(open_video(path, clip.size), path, clip, positions)


def _clips_of(decoder: VideoDecoder, path: str | Path, clip: ClipConfig, positions: Sequence[float]) -> Tensor:
    times = np.stack([clip_times(decoder, clip, position) for position in positions])
    meta: Any = decoder.metadata
    try:
        if meta.end_stream_seconds > meta.begin_stream_seconds:
            frames = decoder.get_frames_played_at(times.ravel().tolist())
        else:  # shown for no time at all
            frames = decoder.get_frames_at([0] * times.size)
    except (RuntimeError, IndexError, ValueError) as error:
        raise VideoError(
            f"{path}: reading stopped ({_first_line(error)}); remove it from the list or encode it again"
        ) from error
    late = frames.pts_seconds.numpy() > times.ravel() + 1e-3
    if late.any():
        raise VideoError(
            f"{path}: the frame at {times.ravel()[late][0]:.2f} s can not be decoded; "
            "remove it from the list or encode it again"
        )
    return frames.data.unflatten(0, times.shape)


def _first_line(error: Exception) -> str:
    """What went wrong: in plain words where they are known, then as the decoder says it, without file and line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = re.sub(r"^\w+, \S+:\d+, ", "", lines[0]).strip(" .")[:200]
    plain = next((words for start, words in PLAIN.items() if said.startswith(start)), "")
    return f"{plain}: {said}" if plain else said


def read_batch(jobs: Sequence[Job], clip: ClipConfig) -> list[Outcome]:
    """Read the clips of some videos; this is what a worker process does."""
    return [_outcome(path, clip, positions) for _, path, positions in jobs]


def _outcome(path: str, clip: ClipConfig, positions: Sequence[float]) -> Outcome:
    row: dict[str, Any] = {"path": path, "status": "read", "reason": ""} | dict.fromkeys(FACTS)
    try:
        decoder = open_video(path, clip.size)
        meta = decoder.metadata
        wanted, start, end = _wanted_times(meta, clip, 0.5)
        rate, padding = round(float(meta.average_fps or 0), 3), int((wanted >= max(end, start + 1e-9)).sum())
        values = (meta.num_frames, round(end - start, 3), rate, meta.width, meta.height, meta.codec)
        row |= dict(zip(FACTS, (*values, int(meta.rotation or 0), padding), strict=True))
        return _clips_of(decoder, path, clip, positions).numpy(), row
    except VideoError as error:
        return None, row | _unreadable(str(error).removeprefix(f"{path}: "))


def _unreadable(reason: str) -> dict[str, str]:
    return {"status": "unreadable", "reason": reason}


# ---------------------------------------------------------------- all videos


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, or the word ``missing``."""
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def decode_all(videos: pd.DataFrame, clip: ClipConfig, content: str, folder: Path) -> dict[str, Any]:
    """Fill a folder with the clips, ``report.json`` and ``skipped.csv``; goes on after an interruption."""
    _check_room(videos, clip, folder)
    trained = int((videos.split == "pretrain").sum())
    shape = (clip.frames, 3, clip.size, clip.size)
    training = _array(folder / "training.npy", (trained, clip.clips_per_video, *shape))
    centre = _array(folder / "centre.npy", (len(videos), *shape))
    done = _array(folder / "done.npy", (len(videos),))
    log = folder / "report.jsonl"
    saved = store.read_json_lines(log)  # of an interrupted call
    rows = {line["number"]: line["row"] for line in saved if done[line["number"]] == READ}
    store.write_atomically(log, _lines(rows))
    bytes_of_a_video = (1 + clip.clips_per_video) * clip.frames * 3 * clip.size**2
    batch = max(1, min(16, BATCH_BYTES // bytes_of_a_video))
    jobs = []
    for number in (i for i in range(len(videos)) if i not in rows):
        draws = np.random.default_rng([0, number]).random(clip.clips_per_video if number < trained else 0)
        jobs.append((number, str(videos.path[number]), [0.5, *draws.tolist()]))
    with (
        tqdm(total=len(jobs), desc="decoding", unit="video", file=sys.stdout) as bar,
        closing(workers.run(read_batch, jobs, clip, batch=batch, timeout=TIMEOUT)) as outcomes,
    ):
        fresh: dict[int, dict[str, Any]] = {}
        for (number, path, _), outcome in outcomes:
            if isinstance(outcome, str):
                outcome = None, {"path": path} | _unreadable(outcome) | dict.fromkeys(FACTS)
            clips, row = outcome
            if clips is not None:
                centre[number] = clips[0]
                if number < trained:
                    training[number] = clips[1:]
            fresh[number] = row
            bar.update()
            if len(fresh) == CHUNK or len(rows) + len(fresh) == len(videos):
                training.flush()
                centre.flush()
                with log.open("a", encoding="utf-8") as file:
                    file.write(_lines(fresh))
                done[list(fresh)] = [READ if fresh[i]["status"] == "read" else UNREADABLE for i in fresh]
                done.flush()
                rows |= fresh
                fresh = {}
    report = [rows[number] for number in range(len(videos))]
    bad = [row for row in report if row["status"] == "unreadable"]
    _check_unreadable(bad, len(videos))
    pd.DataFrame(bad, columns=["path", "reason"]).to_csv(folder / "skipped.csv", index=False)
    store.write_atomically(folder / "report.json", json.dumps(report, indent=0))
    pixels = [file_hash(folder / name) for name in ("training.npy", "centre.npy", "done.npy")]
    digest = store.digest({"list": content, "pixels": pixels})
    return {"videos": len(videos), "skipped": len(bad), "digest": digest}


def _lines(rows: dict[int, dict[str, Any]]) -> str:
    return store.as_json_lines([{"number": number, "row": row} for number, row in rows.items()])


def _check_unreadable(bad: list[dict[str, Any]], videos: int) -> None:
    if len(bad) > UNREADABLE_LIMIT * videos:
        listed = "\n  ".join(f"{row['path']}: {row['reason']}" for row in bad[:5])
        raise ValueError(
            f"{len(bad)} of {videos} videos can not be read (limit {UNREADABLE_LIMIT:.0%}); "
            f"the first of them:\n  {listed}"
        )


def _array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Open a uint8 array on disk, zeros where nothing was written yet; all its room is taken at once.

    Raises:
        OSError: the disk is full. (Later it would be too late to say so: a process dies of a mapped page without room.)
    """
    if not path.exists():
        new = path.with_suffix(".new")
        np.lib.format.open_memmap(new, mode="w+", dtype=np.uint8, shape=shape).flush()
        if hasattr(os, "posix_fallocate"):
            with new.open("r+b") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, new.stat().st_size)
                except OSError as error:
                    raise OSError(error.errno, error.strerror, str(path)) from error
        os.replace(new, path)
    return np.lib.format.open_memmap(path, mode="r+")
