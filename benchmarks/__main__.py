"""Measure the published training step and ours, files, and the real loop beside other work; write what was found.

The door is ``make bench``. The record, benchmarks/cpu.json (gpu.json on a GPU), holds hardware, versions and git
state beside every number. Let nothing else run meanwhile. ``--quick`` measures less often, with a batch of
one: it shows that the tool works, and its numbers mean nothing.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks import data, loop, steps
from benchmarks.steps import GPU, PUBLISHED_GFLOP
from picojepa import config, results, store
from tools import records

STRAW_MAN = 0.08  # of the float32 matrix rate; a published step below that would be too easy to beat
PAPER_VIDEOS = results.paper_total("pretraining")


def record(quick: bool) -> dict[str, Any]:
    """Measure everything."""
    paper, batch = config.settings("paper", "vjepa"), 1 if quick else 10
    found = records.surroundings() | {"quick": quick}
    found["geometry"] = {"frames": paper.clip.frames, "size": paper.clip.size, "tokens": math.prod(paper.grid)}
    found["geometry"] |= {"width": paper.model.width, "depth": paper.model.depth, "batch": batch}
    found["matmul_float32_gflops"] = steps.matmul_gflops(torch.float32, quick)
    found["matmul_bfloat16_gflops"] = steps.matmul_gflops(torch.bfloat16, quick)
    found |= steps.training(batch, quick)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        videos = data.make_videos(folder, 2 if quick else 10)
        found |= data.opening(videos)
        found |= loop.waiting(folder, batch, quick)
        if GPU:
            found |= steps.large_batches(found["vjepa_gflop_per_clip"], found["matmul_bfloat16_gflops"])
        else:
            found |= data.one_file(videos, folder, quick)
            found |= steps.memory(3 if quick else 8, batch)
            found["crowded"] = loop.crowded(folder, quick)
    return found | conclusions(found)


def conclusions(found: dict[str, Any]) -> dict[str, Any]:
    """What follows from the measurements by arithmetic."""
    published = found["published_gflop_per_clip"] * found["published_clips_per_second"]
    ours = found["vjepa_gflop_per_clip"] * found["tube75_clips_per_second"]
    decoding = PAPER_VIDEOS * found["paper_ms_per_video"] / 1000 / found["hardware"]["cores"]
    learning = config.settings("paper").training.clips / found["tube75_clips_per_second"]
    return {
        "published_share_of_float32_rate": published / found["matmul_float32_gflops"],
        "share_of_bfloat16_rate": ours / found["matmul_bfloat16_gflops"],
        "cache_share_paper": decoding / (decoding + learning),
        "notes": [*steps.NOTES, *data.NOTES, *loop.NOTES],
    }


def show(found: dict[str, Any]) -> None:
    """Print what a reader wants to see first."""
    digits = "{:.4g}".format
    for name in [key for key in ("ladder", "large_batches", "crowded") if key in found]:
        print(pd.DataFrame(found[name]).to_string(index=False, float_format=digits), "\n")
    plain = {key: value for key, value in found.items() if isinstance(value, float)}
    print(pd.Series(plain).to_string(float_format=digits))


def check(found: dict[str, Any]) -> None:
    """Say loudly when the published step is not the one that was published, or runs too badly to compare with."""
    count, share = found["published_gflop_per_clip"], found["published_share_of_float32_rate"]
    if abs(count / PUBLISHED_GFLOP - 1) > 0.05:
        raise SystemExit(f"the published step counts {count:.1f} GFLOP a clip, not {PUBLISHED_GFLOP}")
    if share < STRAW_MAN:
        print(f"\nSTRAW MAN: the published step reaches {share:.1%} of the float32 rate (under {STRAW_MAN:.0%}).\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few repeats and a batch of one")
    parser.add_argument("--out", type=Path, default=store.ROOT / "benchmarks", help="folder of the record")
    chosen = parser.parse_args()
    start = time.perf_counter()
    found = record(chosen.quick)
    found["seconds"] = round(time.perf_counter() - start)
    show(found)
    check(found)
    path = chosen.out / ("gpu.json" if GPU else "cpu.json")
    records.write(path, found)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
