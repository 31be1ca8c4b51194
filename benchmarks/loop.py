"""The real training loop: how long it waits for its batches, and how fast it is beside other work.

Usage: python -m benchmarks.loop FOLDER [--profile NAME] [--threads N|auto]    trains in FOLDER until it is killed
"""

import argparse
import os
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from picojepa import config, store
from picojepa.checkpoints import read_metrics
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.pretraining import chosen_threads, pretrain
from standin import CLASSES

NEVER = 1_000_000_000  # steps
ENDLESS = [sys.executable, "-c", "while True: pass"]
ALONE, BUSY, SECOND = "alone", "beside a busy process", "beside a second training"
THREADS = ("auto", 1, 2)
PATIENCE = 120.0  # seconds in which a process should have started, and taken a step
NOTES = [
    "waiting_*: share of the time after the first logged step that pretrain waits for a batch; clips, of random bytes, "
    "lie in memory.",
    "crowded: clips a second of pretrain in a fresh process on random bytes. The busy process is an endless loop in "
    "Python; the second training is another copy, started at the same time. threads: auto is what the package chooses "
    "by itself, chosen is what it came to. ratio_to_alone: of the rate alone with the same threads.",
]


def random_clips(settings: Settings, videos: int) -> Clips:
    """Random bytes in the shape of a list's clips."""
    shape = (videos, 1 + settings.clip.clips_per_video, settings.clip.frames, 3, settings.clip.size, settings.clip.size)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    names = [str(number) for number in range(videos)]
    table = pd.DataFrame({"path": names, "label": [CLASSES[i % len(CLASSES)] for i in range(videos)]})
    return Clips(table.assign(split="pretrain"), pixels[:, 1:], pixels[:, 0], pd.DataFrame(), "random")


def measurable(settings: Settings, steps: int, every: int) -> Settings:
    """A training of so many steps that logs every so many of them and is otherwise left alone."""
    length = {"clips": steps * settings.training.batch, "log_every": every}
    return replace(settings, training=replace(settings.training, **length, watch_every=NEVER, checkpoint_every=NEVER))


def waiting(folder: Path, paper_batch: int, quick: bool) -> dict[str, float]:
    """Share of the time that a short run waits for its batches."""
    laptop, paper = config.settings("laptop", "vjepa"), config.settings("paper", "vjepa")
    paper = replace(paper, training=replace(paper.training, batch=paper_batch))
    shares = {}
    for settings, steps in ((laptop, 6 if quick else 150), (paper, 3 if quick else 7)):
        run = folder / f"run-{settings.profile}"
        run.mkdir()
        clips = random_clips(settings, 2 * settings.training.batch)
        pretrain(measurable(settings, steps, max(1, steps // 6)), clips, run)
        rows = read_metrics(run)
        spent = (rows.clips.diff() / rows.clips_per_second)[1:]
        shares[f"waiting_{settings.profile}"] = float((rows.waiting[1:] * spent).sum() / spent.sum())
    return shares


# ---------------------------------------------------------------- beside other work


def train(folder: Path, profile: str, threads: str) -> None:
    """What a process of its own does: say the number of threads, then train until it is killed."""
    settings = measurable(config.settings(profile, "vjepa"), NEVER, 1)
    clips = random_clips(settings, 8 * settings.training.batch)
    number = chosen_threads(settings, clips)[0] if threads == "auto" else int(threads)
    torch.set_num_threads(number)
    (folder / "threads").write_text(str(number))
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        pretrain(settings, clips, folder)


def started(folder: Path, profile: str, threads: int | str) -> subprocess.Popen:
    """A process that trains in a folder."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "benchmarks.loop", str(folder), "--profile", profile, "--threads", str(threads)]
    return subprocess.Popen(command, cwd=store.ROOT)


def rows_of(folder: Path, process: subprocess.Popen, least: int) -> pd.DataFrame:
    """The metrics of a running training, once it has taken at least so many steps."""
    deadline = time.monotonic() + PATIENCE
    while not (folder / "metrics.jsonl").exists() or len(rows := read_metrics(folder)) < least:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args} ended, or took no step in {PATIENCE:.0f} s; what it said is above")
        time.sleep(0.1)
    return rows


def rate(folder: Path, process: subprocess.Popen, seconds: float) -> float:
    """Clips a second of a running training over the next so many seconds, or one step where that takes longer."""
    before = rows_of(folder, process, 2)
    time.sleep(seconds)
    after = rows_of(folder, process, len(before) + 1)
    first, last = before.iloc[-1], after.iloc[-1]
    return float((last.clips - first.clips) / (last.time - first.time))


def measure(folder: Path, situation: str, profile: str, threads: int | str, seconds: float) -> dict[str, Any]:
    """Clips a second of a training in one situation, all of it in fresh processes."""
    processes = [started(folder / "measured", profile, threads)]
    if situation == BUSY:
        processes.append(subprocess.Popen(ENDLESS))
    elif situation == SECOND:
        processes.append(started(folder / "second", profile, threads))
    try:
        if situation == SECOND:
            rows_of(folder / "second", processes[1], 2)
        found = rate(folder / "measured", processes[0], seconds)
        if ended := [process.args for process in processes if process.poll() is not None]:
            raise RuntimeError(f"ended while it was measured: {ended}")
    finally:
        for process in processes:
            process.kill()
            process.wait()
    chosen = int((folder / "measured" / "threads").read_text())
    return {"situation": situation, "threads": threads, "chosen": chosen, "clips_per_second": found}


def crowded(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Rate of the training step in every situation, with every number of threads; the folder is for the trainings."""
    profile, seconds, tried = ("smoke", 1.0, THREADS[:1]) if quick else ("laptop", 20.0, THREADS)
    rows = []
    for situation, threads in tqdm(list(product((ALONE, BUSY, SECOND), tried)), desc="beside other work"):
        rows.append(measure(folder / f"{situation}, {threads}", situation, profile, threads, seconds))
    alone = {row["threads"]: row["clips_per_second"] for row in rows if row["situation"] == ALONE}
    return [row | {"ratio_to_alone": row["clips_per_second"] / alone[row["threads"]]} for row in rows]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop", description="Train until killed.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--threads", default="auto", help="a number, or auto: as the package chooses by itself")
    train(**vars(parser.parse_args()))
