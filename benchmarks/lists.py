"""Long lists: does time per video, or memory, grow with the list?

The stand-in's videos are listed under many names (hard links), so that each length of list has the same mixture. Each
list is checked and decoded by a process of its own, into an empty cache. The record is benchmarks/lists.json.

Usage: python -m benchmarks.lists [LENGTH ...]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from figures import duplicates
from tqdm import tqdm

import standin
from picojepa import config, data, store
from tools import records

LENGTHS = (100, 300, 1000, 3000, 10_000)
SCALE = 0.04  # of the stand-in that is generated, and listed again and again
PAUSE = 0.1  # seconds between two looks at the memory
NOTES = [
    "seconds: reading the list, decoding two clips of every video and hashing the pixels, with the start of the "
    "processes. ms_per_further_video: between this list and the next shorter one.",
    "peak_main_mb, peak_workers_mb: private memory (resident, less what is shared with files or other processes) of "
    "the process that keeps the list, and of its workers together. peak_files_mb: pages of files that the first holds, "
    "decoded clips among them; the system takes these back when it needs room.",
    "alike_seconds: looking for near-duplicates, which grows with training times validation videos.",
]


def write_list(length: int, originals: Sequence[Path], folder: Path) -> Path:
    """A CSV of so many videos, every fifth for validation."""
    rows = ["path,label,split"]
    for number in range(length):
        path = folder / f"{number:05}.mp4"
        os.link(originals[number % len(originals)], path)
        label, split = standin.CLASSES[number % 10], "validation" if number % 50 < 10 else "pretrain"
        rows.append(f"{path.name},{label},{split}")
    (folder / "list.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "list.csv"


def decode(path: str) -> None:
    """What a process of its own does."""
    settings = config.settings("laptop")
    settings = replace(settings, clip=replace(settings.clip, clips_per_video=1))
    start = time.perf_counter()
    clips = data.load_clips(settings, data.read_manifest(Path(path)))
    decoded = time.perf_counter()
    np.asarray(duplicates.near_duplicates(clips))
    print(json.dumps({"seconds": decoded - start, "alike_seconds": time.perf_counter() - decoded}))


def memory(process: psutil.Process) -> tuple[float, float]:
    """Private and shared resident memory of a process in MB; nothing once it has ended."""
    try:
        found = process.memory_info()
        return (found.rss - found.shared) / 1e6, found.shared / 1e6
    except psutil.NoSuchProcess:
        return 0.0, 0.0


def measure(length: int, originals: Sequence[Path]) -> dict[str, Any]:
    """Time and memory of one list."""
    with tempfile.TemporaryDirectory(prefix="lists-", dir=originals[0].parent) as name:
        listed = write_list(length, originals, Path(name))
        command = [sys.executable, "-m", "benchmarks.lists", "decode", str(listed)]
        environment = os.environ | {"PICOJEPA_CACHE": f"{name}/cache"}
        child = psutil.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=store.ROOT)
        peaks = np.zeros(3)
        while child.poll() is None:
            private, files = memory(child)
            workers = sum(memory(worker)[0] for worker in child.children(recursive=True)) if child.is_running() else 0.0
            peaks = np.maximum(peaks, (private, workers, files))
            time.sleep(PAUSE)
        said = child.stdout.read()
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}; its message is above")
    row = {"videos": length} | json.loads(said.splitlines()[-1])
    return row | dict(zip(("peak_main_mb", "peak_workers_mb", "peak_files_mb"), peaks.tolist(), strict=True))


def main(lengths: Sequence[int]) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-lists-") as name:
        plan = replace(config.settings("laptop").data, scale=SCALE)
        standin.generate(plan, Path(name))
        originals = sorted(Path(name).rglob("*.mp4"))
        rows = [measure(length, originals) for length in tqdm(lengths, desc="lists")]
    for shorter, row in pairwise(rows):
        more = row["videos"] - shorter["videos"]
        row["ms_per_further_video"] = 1000 * (row["seconds"] - shorter["seconds"]) / more
    found = {"different_videos": len(originals), "rows": rows, "notes": NOTES}
    records.write(store.ROOT / "benchmarks" / "lists.json", records.surroundings() | found)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    if sys.argv[1:2] == ["decode"]:
        decode(sys.argv[2])
    else:
        main([int(word) for word in sys.argv[1:]] or LENGTHS)
