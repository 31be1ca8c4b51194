"""Run the published training step and ours on the same clips, in one process, and write what was measured.

The door is ``make bench``. The record, benchmarks/cpu.json (gpu.json on a GPU), holds hardware, versions and git
state beside every number. Let nothing else run meanwhile. ``--quick`` measures less often, with a batch of
one: it shows that the tool works, and its numbers mean nothing.
"""

import argparse
import json
import math
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks import bench_data, bench_steps
from benchmarks.bench_data import GPU, seconds
from benchmarks.bench_steps import PUBLISHED_GFLOP, QUICK, Effort
from picojepa import config, store
from picojepa.machine import device, fast_bfloat16

STRAW_MAN = 0.08  # of the float32 matrix rate; a published step below that would be too easy to beat


# ---------------------------------------------------------------- the machine


def matmul_gflops(dtype: torch.dtype, quick: bool) -> float:
    """Best rate of square matrix products over several sizes, in GFLOP/s."""
    best = 0.0
    for size in (512, 1024) if quick else (512, 1024, 2048, 4096, *((8192, 16384) if GPU else ())):
        a, b = torch.randn(2, size, size, device=device()).to(dtype)
        for _ in range(3 if quick else 8):
            best = max(best, 2 * size**3 / seconds(lambda a=a, b=b: a @ b) / 1e9)
    return best


def processor() -> str:
    known = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*: (.+)$", known.read_text(), re.MULTILINE) if known.exists() else None
    return named[1] if named else platform.processor() or platform.machine()


def surroundings() -> dict[str, Any]:
    """Hardware, versions, and which code it was: `changed` means that package or tools differ from the commit."""

    def said(*command: str) -> str:
        found = shutil.which(command[0])
        return subprocess.run(command, cwd=store.ROOT, capture_output=True, text=True).stdout.strip() if found else ""

    ffmpeg = re.search(r"ffmpeg version (\S+)", said("ffmpeg", "-version"))
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {
            "processor": processor(),
            "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if GPU else "none",
            "memory_gb": psutil.virtual_memory().total / 1e9,
            "fast_bfloat16": fast_bfloat16(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "torchcodec", "numpy")},
            "ffmpeg": ffmpeg[1] if ffmpeg else "unknown",
        },
        "git": {
            "commit": said("git", "rev-parse", "HEAD") or "unknown",
            "changed": bool(said("git", "status", "--porcelain", "--", "picojepa", "tools")),
        },
    }


def record(effort: Effort) -> dict[str, Any]:
    """Measure everything."""
    paper = config.settings("paper", "vjepa")
    found = surroundings() | {"quick": effort.quick}
    found["geometry"] = {"frames": paper.clip.frames, "size": paper.clip.size, "tokens": math.prod(paper.grid)}
    found["geometry"] |= {"width": paper.model.width, "depth": paper.model.depth, "batch": effort.batch}
    found["matmul_float32_gflops"] = matmul_gflops(torch.float32, effort.quick)
    found["matmul_bfloat16_gflops"] = matmul_gflops(torch.bfloat16, effort.quick)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        bench_data.make_videos(folder, effort.videos)
        found |= bench_steps.training(folder, effort)
        found |= bench_data.opening(folder)
        found |= bench_data.waiting(folder, effort.laptop_steps, effort.paper_steps, effort.batch)
        if GPU:
            found |= bench_steps.large_batches(folder, found["vjepa_gflop_per_clip"], found["matmul_bfloat16_gflops"])
        else:
            found |= bench_data.one_file(folder, effort.files, effort.quick)
            found |= bench_data.memory(effort.memory_steps, effort.batch)
    return tidy(found | conclusions(found))


def conclusions(found: dict[str, Any]) -> dict[str, Any]:
    """What follows from the measurements by arithmetic."""
    published = found["published_gflop_per_clip"] * found["published_clips_per_second"]
    ours = found["vjepa_gflop_per_clip"] * found["tube75_clips_per_second"]
    paper, cores = config.settings("paper"), found["hardware"]["cores"]
    decoding = bench_data.PAPER_VIDEOS * found["paper_ms_per_video"] / 1000 / cores
    learning = paper.training.clips / found["tube75_clips_per_second"]
    return {
        "published_share_of_float32_rate": published / found["matmul_float32_gflops"],
        "share_of_bfloat16_rate": ours / found["matmul_bfloat16_gflops"],
        "cache_share_paper": decoding / (decoding + learning),
        "notes": bench_data.NOTES,
    }


def tidy(value: Any) -> Any:
    """The same with numbers of five digits."""
    if isinstance(value, dict):
        return {key: tidy(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(part) for part in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def table(found: dict[str, Any]) -> str:
    """What a reader wants to see first."""
    lines = [f"{'step':22}{'clips/s':>9}{'s/step':>9}{'GFLOP/clip':>12}{'speed-up':>10}"]
    for row in found["ladder"]:
        numbers = f"{row['clips_per_second']:9.3f}{row['seconds_per_step']:9.2f}{row['gflop_per_clip']:12.1f}"
        lines.append(f"{row['name']:22}{numbers}{row['speedup']:10.2f}  {row['what']}")
    plain = {key: value for key, value in found.items() if isinstance(value, float)}
    lines += ["", *(f"{key:36}{value:12.4g}" for key, value in plain.items())]
    return "\n".join(lines)


def check(found: dict[str, Any]) -> None:
    """Say loudly when the published step is not the one that was published, or runs too badly to compare with."""
    count, share = found["published_gflop_per_clip"], found["published_share_of_float32_rate"]
    if abs(count / PUBLISHED_GFLOP - 1) > 0.05:
        raise SystemExit(f"the published step counts {count:.1f} GFLOP a clip, not {PUBLISHED_GFLOP}")
    if share < STRAW_MAN:
        print(f"\nSTRAW MAN: the published step reaches {share:.1%} of the float32 rate (under {STRAW_MAN:.0%}).\n")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats and a batch of one")
    parser.add_argument("--out", type=Path, default=store.ROOT / "benchmarks", help="folder of the record")
    chosen = parser.parse_args(arguments)
    start = time.perf_counter()
    found = record(QUICK if chosen.quick else Effort())
    found["seconds"] = round(time.perf_counter() - start)
    print(table(found))
    check(found)
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / ("gpu.json" if GPU else "cpu.json")
    store.write_atomically(path, json.dumps(found, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
