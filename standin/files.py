"""The files: real H.264 videos, their manifest, and which configuration a folder belongs to.

Book: chapter 1.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import torch
from filelock import FileLock
from torchcodec.encoders import VideoEncoder
from tqdm.auto import tqdm

from footage import workers
from picojepa import store
from standin.actions import CLASSES
from standin.filming import render
from standin.plan import VERSION, StandInConfig, plan


@store.explained()
def generate(
    config: StandInConfig, folder: Path, workers: int | None = None, stream: TextIO | None = None
) -> pd.DataFrame:
    """Write every video that is not there yet, then ``manifest.csv``; an interrupted call is continued by the next.

    Of several calls at once one works and the others wait.

    Args:
        config: what to make.
        folder: where; made if missing.
        workers: processes; default: one per core. 1 works without further processes.
        stream: where the progress bar goes; default: standard output.

    Returns:
        The manifest: the columns of `plan` and ``sha256`` of each file.

    Raises:
        ValueError: ``folder`` holds videos of another generator version or configuration.
        OSError: the disk is full or cannot be written.

    Book: chapter 1
    """
    folder = Path(folder)
    if (table := _finished(config, folder)) is None:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if (table := _finished(config, folder)) is None:
                table = _generate(config, folder, workers or os.cpu_count() or 1, stream or sys.stdout)
    return table


def _finished(config: StandInConfig, folder: Path) -> pd.DataFrame | None:
    """The manifest if all of its videos are there; ValueError if the folder belongs to another configuration."""
    claimed, manifest = folder / "generator.json", folder / "manifest.csv"
    if claimed.exists() and store.digest(json.loads(claimed.read_text())) != store.digest(made_from(config)):
        raise ValueError(f"{claimed} names another version or configuration; delete {folder} or choose another folder")
    table = pd.read_csv(manifest) if manifest.exists() else None
    return None if table is None or not all((folder / path).exists() for path in table["path"]) else table


def claim(config: StandInConfig, folder: Path) -> None:
    """Say for which configuration a folder is, before its first video, so that two never share one."""
    store.write_json(folder / "generator.json", made_from(config))


def made_from(config: StandInConfig) -> dict[str, Any]:
    """All that shapes the videos, as plain values, for keys and for the file that claims a folder."""
    return {"version": VERSION, "actions": CLASSES, "config": store.plain(config)}


def _generate(config: StandInConfig, folder: Path, count: int, stream: TextIO) -> pd.DataFrame:
    """Make what is missing."""
    claim(config, folder)
    for left in folder.rglob(".*.tmp"):  # by a call that was killed
        left.unlink()
    table = plan(config)
    for parent in {(folder / path).parent for path in table["path"]}:
        parent.mkdir(parents=True, exist_ok=True)
    rows, make = table.to_dict("records"), partial(write_video, config=config, folder=folder)
    bar = partial(tqdm, total=len(rows), desc="stand-in videos", unit="video", file=stream)
    if count == 1:
        table["sha256"] = list(bar(map(make, rows)))
    else:
        with ProcessPoolExecutor(count, workers.context(__name__), workers.end_with_parent) as pool:
            table["sha256"] = list(bar(pool.map(make, rows, chunksize=4)))
    store.write_atomically(folder / "manifest.csv", table.to_csv(index=False))
    return table


def write_video(row: Mapping[str, Any], config: StandInConfig, folder: Path) -> str:
    """Render and encode one video unless its file is there; return the file's SHA-256."""
    path = folder / row["path"]
    if not path.exists():
        frames = torch.from_numpy(render(row, config)).permute(0, 3, 1, 2)  # (T, C, H, W)
        # Equal bytes everywhere: one thread, no code that depends on the processor, and no macroblock-tree
        # look-ahead, with which two runs of the same x264 differ.
        options = {"g": row["gop"], "threads": 1, "x264-params": "cpu-independent=1:mbtree=0:rc-lookahead=0"}
        encoded = VideoEncoder(frames, frame_rate=row["fps"]).to_tensor(
            "mp4", codec="libx264", crf=row["crf"], preset="superfast", pixel_format="yuv420p", extra_options=options
        )
        store.write_atomically(path, encoded.numpy().tobytes())
    return hashlib.sha256(path.read_bytes()).hexdigest()
