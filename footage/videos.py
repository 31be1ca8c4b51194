"""From one video file to clips, and from a whole list to a folder of decoded clips, uint8.

Letters: T frames, C = 3 channels, H = W pixels. Book: chapter 1.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torchcodec.decoders import VideoDecoder
from torchcodec.transforms import Resize
from tqdm.auto import tqdm

from footage import containers, workers
from picojepa import require, store
from picojepa.clips import ClipConfig

UNREADABLE_LIMIT = 0.05  # share of unreadable videos above which nothing goes on
CHUNK = 64  # videos decoded between two notes of progress
PIXEL_LIMIT = 8192 * 8192  # of one frame; larger ones are refused before anything is decoded
HOURS_LIMIT = 12  # of one video
TIMEOUT = 120.0  # seconds that a worker may take for one video
PROGRAM_TIMEOUT = 100.0  # seconds that FFmpeg's program may take for one, so that its own message is heard
BATCH_BYTES = 4_000_000  # of decoded clips that a worker hands over at a time
LAST_MOMENT = 1e-3  # seconds before the end of a video at which its last frame is asked for
REMEDY = "remove it from the list or encode it again"
PLAIN = {  # what the decoder says, and what it means
    "The best video stream is unknown": "no moving pictures inside, sound only or neither",
    "Could not seek file to pts=0": "a header without a single frame",
    "Could not push packet to decoder": "damaged or encrypted data",
}
Job = tuple[int, str, list[float]]  # number in the list, path, positions of the clips


class VideoError(ValueError):
    """A video file that can not be used; the message holds the path and the reason."""


def _require(condition: bool, path: str | Path, reason: str) -> None:
    if not condition:
        raise VideoError(f"{path}: {reason}")


@contextmanager
def _explained(path: str | Path, what: str) -> Iterator[None]:
    """Errors of the decoder become a VideoError, in plain words where they are known, without file and line."""
    try:
        yield
    except VideoError:
        raise
    except (RuntimeError, ValueError, LookupError, OSError, subprocess.SubprocessError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        said = re.sub(r"^\w+, \S+:\d+, ", "", lines[0]).strip(" .")[:200]
        plain = next((f"{words}: " for start, words in PLAIN.items() if said.startswith(start)), "")
        raise VideoError(f"{path}: {what} ({plain}{said}); {REMEDY}") from error


def open_video(path: str | Path, size: int | None = None) -> VideoDecoder:
    """Open a video for reading frames by index or time, turned as a player would show them.

    Args:
        path: any file that FFmpeg reads.
        size: squash every frame to this many pixels in height and width while decoding.

    Raises:
        VideoError: missing, empty or unreadable file, one without video frames, or a larger or longer one than allowed.
    """
    return _open(path, size)[0]


def _open(path: str | Path, size: int | None) -> tuple[VideoDecoder, str]:
    """A decoder, and a note if its frames come by the second way, through FFmpeg's program."""
    with _explained(path, "not readable as video"):
        _require(os.path.isfile(path), path, "no such video file; check the path or generate the data again")
        _require(os.path.getsize(path) > 0, path, "the file is empty; fetch or generate it again")
        if _needs_program(Path(path)):
            return through_program(path, size)
    try:
        with _explained(path, "not readable as video"):
            decoder = _open_directly(path, size)
    except VideoError as error:
        return _second_way(path, size, error)
    return _allowed(decoder, path), ""


def _needs_program(path: Path) -> bool:
    """Whether torchcodec would not find the right frames of a file, or not turn them as a player does."""
    if containers.is_avi(path):
        command = ["ffprobe", "-v", "quiet", "-select_streams", "V:0", "-of", "csv=p=0"]
        command += ["-show_entries", "stream=has_b_frames", str(path)]
        said = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False).stdout
        return said.strip() != b"0"  # frames in the order in which they are shown are found by counting
    return containers.is_stream(path) or containers.mirrored(path)


def _second_way(path: str | Path, size: int | None, error: VideoError) -> tuple[VideoDecoder, str]:
    """What FFmpeg's program shows where the first way failed with an error; that one is raised if it shows nothing."""
    try:
        return through_program(path, size)
    except VideoError:
        raise error from None


def _open_directly(path: str | Path, size: int | None) -> VideoDecoder:
    options: dict[str, Any] = {"num_ffmpeg_threads": 1, "transforms": [Resize((size, size))] if size else None}
    decoder = VideoDecoder(str(path), **options)
    meta: Any = decoder.metadata
    if meta.num_frames and 0 not in decoder._get_key_frame_indices():
        decoder = VideoDecoder(str(path), **options, custom_frame_mappings=_shown(path, decoder.stream_index))
        decoder.metadata = meta  # its own is read off the header
    return decoder


def through_program(path: str | Path, size: int | None = None) -> tuple[VideoDecoder, str]:
    """What FFmpeg's own program shows of a file, frame by frame at its times, and a note with its first complaint.

    It decodes the whole file, without loss, into memory, squashed to ``size`` if there is one. This is slower than to
    seek, but needs no index and knows every orientation.

    Raises:
        VideoError: the program shows nothing, or takes longer than `PROGRAM_TIMEOUT`.
    """
    picture = "scale,format=rgb24" + (f",scale={size}:{size}:flags=bilinear" if size else "")
    command = ["ffmpeg", "-v", "error", "-nostdin", "-threads", "1", "-max_pixels", str(PIXEL_LIMIT), "-i", str(path)]
    command += ["-map", "0:V:0", "-fps_mode", "passthrough", "-vf", picture, "-c:v", "ffv1", "-f", "nut", "-"]
    with _explained(path, "not readable as video"):
        try:
            done = subprocess.run(command, capture_output=True, timeout=PROGRAM_TIMEOUT, check=False)
        except subprocess.TimeoutExpired as error:
            slow = f"FFmpeg's program takes longer than {PROGRAM_TIMEOUT:g} s for all of it; cut it into parts, or "
            raise VideoError(
                f"{path}: {slow}put it into another container (ffmpeg -i IN -c:v libx264 OUT.mp4)"
            ) from error
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        complaint = re.sub(r"^(\[[^]]*\] )+", "", said[0]) if said else ""
        _require(bool(done.stdout), path, f"not readable as video ({complaint or 'nothing is shown'}); {REMEDY}")
        decoder = VideoDecoder(done.stdout, num_ffmpeg_threads=1)
    return _allowed(decoder, path), f"through FFmpeg's program{complaint and ': '}{complaint}"


def _allowed(decoder: VideoDecoder, path: str | Path) -> VideoDecoder:
    """The decoder, if its video has frames and is neither too large nor too long; else a VideoError."""
    meta: Any = decoder.metadata
    _require(bool(meta.num_frames), path, f"no frames inside; {REMEDY}")
    width, height = meta.width or 0, meta.height or 0
    _require(width * height <= PIXEL_LIMIT, path, f"{width} x {height} pixels are too many; encode it again, smaller")
    hours = (meta.end_stream_seconds - meta.begin_stream_seconds) / 3600
    _require(hours <= HOURS_LIMIT, path, f"{hours:.0f} hours are too long (limit {HOURS_LIMIT}); cut it into parts")
    return decoder


def _shown(path: str | Path, stream: int) -> str:
    """Times of the frames that are shown, for a file whose edit list hides the key frame before the first of them.

    The decoder seeks among the shown key frames: the first shown frame is called one, and it starts at the hidden one.
    """
    command = ["ffprobe", "-v", "quiet", "-select_streams", str(stream), "-of", "json"]
    command += ["-show_entries", "packet=pts,duration,flags", str(path)]
    packets = json.loads(subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=True).stdout)["packets"]
    shown = sorted((p for p in packets if "D" not in p["flags"] and "pts" in p), key=lambda p: p["pts"])
    for packet in shown:
        packet["key_frame"] = int("K" in packet["flags"] or packet is shown[0])
        packet.setdefault("duration", 0)
    return json.dumps({"frames": shown})


def clip_times(decoder: VideoDecoder, clip: ClipConfig, position: float) -> np.ndarray:
    """Times of a clip's frames in seconds, float64 (T,).

    Args:
        decoder: the video.
        clip: number of frames, and frames per second (None: the video's own rate).
        position: 0 for the earliest possible clip, 0.5 for the centre, 1 for the last.

    Times beyond the end are moved to the last frame: a short video is padded with it.
    """
    meta: Any = decoder.metadata
    start, end = float(meta.begin_stream_seconds or 0), float(meta.end_stream_seconds or 0)
    own_rate = float(meta.average_fps or 25)
    step = 1 / clip.frames_per_second if clip.frames_per_second else clip.stride / own_rate
    last_start = max(start, end - (clip.frames - 1) * step - 1 / own_rate)
    # The middle of the first frame's display time: rounding can not push a frame to its neighbour.
    first = start + position * (last_start - start) + 0.5 / own_rate
    # A last frame that is shown for a moment only, as a variable frame rate allows, is met all the same.
    return np.clip(first + step * np.arange(clip.frames), start, max(start, end - LAST_MOMENT))


def read_clips(path: str | Path, clip: ClipConfig, positions: Sequence[float]) -> Tensor:
    """Read a clip for each position, from 0 (start) to 1 (end) of a video, in one pass.

    Returns:
        uint8 (len(positions), T, C, H, W).

    Raises:
        VideoError: the file can not be opened, or not every frame that is wanted can be decoded.
    """
    return _read(path, clip, positions)[0]


def _read(path: str | Path, clip: ClipConfig, positions: Sequence[float]) -> tuple[Tensor, VideoDecoder, str]:
    """Clips, the decoder they come from, and a note if that is the second way."""
    decoder, note = _open(path, clip.size)
    try:
        return _clips_of(decoder, path, clip, positions), decoder, note
    except VideoError as error:
        if note:
            raise
        decoder, note = _second_way(path, clip.size, error)
        return _clips_of(decoder, path, clip, positions), decoder, note


def _clips_of(decoder: VideoDecoder, path: str | Path, clip: ClipConfig, positions: Sequence[float]) -> Tensor:
    times = np.stack([clip_times(decoder, clip, position) for position in positions])
    meta: Any = decoder.metadata
    with _explained(path, "reading stopped"):
        if meta.end_stream_seconds > meta.begin_stream_seconds:
            frames = decoder.get_frames_played_at(times.ravel().tolist())
        else:  # shown for no time at all
            frames = decoder.get_frames_at([0] * times.size)
    late = times.ravel()[frames.pts_seconds.numpy() > times.ravel() + 1e-3]
    _require(late.size == 0, path, f"the frame at {late[:1].sum():.2f} s can not be decoded; {REMEDY}")
    return frames.data.unflatten(0, times.shape)


def read_batch(jobs: Sequence[Job], clip: ClipConfig) -> list[tuple[np.ndarray | None, dict[str, Any]]]:
    """Clips (None: unreadable) and a row of the data report for each video; this is what a worker process does."""
    outcomes: list[tuple[np.ndarray | None, dict[str, Any]]] = []
    for _, path, positions in jobs:
        try:
            clips, decoder, note = _read(path, clip, positions)
            outcomes.append((clips.numpy(), _row(path, **_facts(path, decoder, clip, note))))
        except VideoError as error:
            outcomes.append((None, _row(path, str(error).removeprefix(f"{path}: "))))
    return outcomes


def _facts(path: str, decoder: VideoDecoder, clip: ClipConfig, note: str) -> dict[str, Any]:
    """What the data report says of a video that was read."""
    meta: Any = decoder.metadata
    start, end, rate = meta.begin_stream_seconds, meta.end_stream_seconds, float(meta.average_fps or 0)
    facts = {"frames": meta.num_frames, "seconds": round(end - start, 3), "frames_per_second": round(rate, 3)}
    with suppress(RuntimeError, ValueError):  # a bare stream has no header
        header: Any = VideoDecoder(path, seek_mode="approximate").metadata if note else meta
        facts |= {"width": header.width, "height": header.height, "codec": header.codec}
        facts |= {"rotation": int(header.rotation or 0)}
    padding = int((clip_times(decoder, clip, 0.5) >= end - LAST_MOMENT).sum())
    return facts | {"padding": padding, "note": note}


def _row(path: str, reason: str = "", **facts: Any) -> dict[str, Any]:
    """A row of the data report; a reason means that the video could not be read."""
    return {"path": path, "status": "unreadable" if reason else "read", "reason": reason, **facts}


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, or the word ``missing``."""
    if not os.path.isfile(path):
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_room(count: int, wanted: float, folder: Path) -> None:
    written = sum(path.stat().st_blocks * 512 for path in folder.glob("*.npy")) / 1e9
    free, limit = shutil.disk_usage(folder).free / 1e9, store.cache_limit()
    require(
        wanted <= limit and wanted - written <= free,
        f"the decoded clips of {count} videos take {wanted:.1f} GB in {folder}; allowed are {limit:g} GB "
        f"(PICOJEPA_CACHE_GB), free are {free:.1f} GB; allow more, name a larger disk in PICOJEPA_CACHE, or lower "
        "clip.clips_per_video or clip.size",
    )


def _array(path: Path, *shape: int) -> np.memmap:
    """Open a uint8 array on disk; all its room is taken at once, as a mapped page without room would kill later."""
    if not path.exists():
        begun = path.with_suffix(".new")
        np.lib.format.open_memmap(begun, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with begun.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, begun.stat().st_size)
        begun.replace(path)
    return np.lib.format.open_memmap(path, mode="r+")


def decode_all(videos: pd.DataFrame, clip: ClipConfig, content: str, folder: Path) -> dict[str, Any]:
    """Fill a folder with ``training.npy``, ``centre.npy`` and ``report.json``; goes on after an interruption.

    The list has training videos first, which are given random clips beside the centre clip that all have. A video
    counts as done when its clips are safe on disk and ``report.jsonl`` has a line for it.

    Returns:
        Facts for the run card: how many videos there are and were skipped, and a digest of ``content`` and pixels.

    Raises:
        ValueError: too little room, or more than `UNREADABLE_LIMIT` of the videos are unreadable.
    """
    trained, shape = int((videos.split == "pretrain").sum()), (clip.frames, 3, clip.size, clip.size)
    one, kept = int(np.prod(shape)), clip.clips_per_video  # bytes of a clip, training clips of a video
    _check_room(len(videos), (len(videos) + trained * kept) * one / 1e9, folder)
    training = _array(folder / "training.npy", trained, kept, *shape)
    centre = _array(folder / "centre.npy", len(videos), *shape)
    log = folder / "report.jsonl"
    rows = {number: row for number, row in store.read_json_lines(log) if row["status"] == "read"}
    store.write_atomically(log, store.as_json_lines([*rows.items()]))  # unreadable ones are tried again
    jobs = []
    for number in (number for number in range(len(videos)) if number not in rows):
        draws = np.random.default_rng([0, number]).random(kept if number < trained else 0)
        jobs.append((number, str(videos.path[number]), [0.5, *draws.tolist()]))
    batch = max(1, min(16, BATCH_BYTES // ((1 + kept) * one)))
    fresh: dict[int, dict[str, Any]] = {}
    with (
        tqdm(total=len(jobs), desc="decoding", unit="video", file=sys.stdout) as bar,
        closing(workers.run(read_batch, jobs, clip, batch=batch, timeout=TIMEOUT)) as outcomes,
    ):
        for (number, path, _), outcome in outcomes:
            clips, fresh[number] = (None, _row(path, outcome)) if isinstance(outcome, str) else outcome
            if clips is not None:
                centre[number] = clips[0]
                if number < trained:
                    training[number] = clips[1:]
            bar.update()
            if len(fresh) == CHUNK or len(rows) + len(fresh) == len(videos):
                training.flush()
                centre.flush()
                with log.open("a", encoding="utf-8") as file:
                    file.write(store.as_json_lines([*fresh.items()]))
                rows |= fresh
                fresh.clear()
    report = [rows[number] for number in range(len(videos))]
    bad = [row for row in report if row["status"] == "unreadable"]
    require(
        len(bad) <= UNREADABLE_LIMIT * len(videos),
        f"{len(bad)} of {len(videos)} videos can not be read (limit {UNREADABLE_LIMIT:.0%}); the first of them:"
        + "".join(f"\n  {row['path']}: {row['reason']}" for row in bad[:5]),
    )
    store.write_atomically(folder / "report.json", json.dumps(report, indent=0))
    pixels = [file_hash(folder / name) for name in ("training.npy", "centre.npy")]
    digest = store.digest({"list": content, "pixels": pixels, "status": [row["status"] for row in report]})
    return {"videos": len(videos), "skipped": len(bad), "digest": digest}
