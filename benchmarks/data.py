"""From video files to clips and answers: what opening a file costs, and one file through encoder and heads.

The videos are made here: 10 s of test pictures with noise, 340x256, 30 frames a second, a key frame every
250 frames. That is how the clips of Kinetics-700 are stored.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm

import standin
from benchmarks.processes import published_clip
from benchmarks.steps import seconds
from picojepa import config, store
from picojepa.architecture import new_encoder
from picojepa.classify import classify_file
from picojepa.clips import ClipConfig
from picojepa.data import read_clips
from picojepa.ensemble import HEADS, MEMBERS
from picojepa.features import load_encoder
from picojepa.probing import LinearHead
from standin import LABELLED_CLASSES

CLIPS_PER_VIDEO = (1, 2, 4, 8, 16)
NOTES = [
    "opening: mean processor time of one core for data.read_clips with the paper's clips at random places; how long it "
    "takes depends on how far the last key frame is.",
    "opening_published_ms: open, decode 8 consecutive frames of full size at a random start, resize, normalise.",
    "paper_ms_per_training_clip = paper_ms_per_video / 4: a video's 4 training clips and its centre clip are decoded "
    "in one pass, and each of the 4 epochs uses another clip.",
    "laptop_ms_per_training_clip = laptop_ms_per_video / laptop_passes: the same videos read with the laptop profile's "
    "ClipConfig; passes = training.clips / training videos of the stand-in. Its videos are shorter than these.",
    "cache_share_paper = d / (d + t); d = 7203 * paper_ms_per_video / 1000 / cores seconds to decode every video once, "
    "with all cores, t = 28800 / tube75_clips_per_second to train.",
    "published_file_seconds: a process after the other for each of the five heads, each importing torch, building "
    "encoder and head, decoding the centre clip at full size and resizing it. file_cold_seconds: one process for all.",
]


def make_videos(folder: Path, count: int) -> list[Path]:
    """Videos as large and as compressed as those of Kinetics-700, each other than the rest."""
    paths = [folder / f"{number:03}.mp4" for number in range(count)]
    for number, path in enumerate(tqdm(paths, desc="videos", unit="video")):
        kind = "testsrc2=" if number % 2 == 0 else f"mandelbrot=start_scale={3 / (number + 1)}:"
        source = f"{kind}size=340x256:rate=30"
        noise = f"noise=all_strength=12:all_flags=t+u:all_seed={number + 1},format=yuv420p"
        keys = ["-g", "250", "-keyint_min", "250", "-sc_threshold", "0"]
        command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-t", "10", "-vf", noise, "-c:v", "libx264"]
        subprocess.run([*command, "-crf", "23", *keys, path], check=True)
    return paths


# ---------------------------------------------------------------- opening


def milliseconds(paths: list[Path], read: Callable[[Path], Any]) -> float:
    """Mean processor time that reading takes, twice for every video, after one reading that is not counted."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    read(paths[0])
    times = []
    for path in (*paths, *paths):
        start = time.process_time()
        read(path)
        times.append(1000 * (time.process_time() - start))
    torch.set_num_threads(threads)
    return statistics.fmean(times)


def opening(videos: list[Path]) -> dict[str, Any]:
    """What opening a video and reading clips from it costs."""
    paper, laptop, rng = config.settings("paper"), config.settings("laptop"), np.random.default_rng(0)

    def cost(clip: ClipConfig, count: int) -> float:
        return milliseconds(videos, lambda path: read_clips(path, clip, rng.random(count).tolist()))

    rows = [{"clips_per_video": k, "ms_per_video": cost(paper.clip, k)} for k in CLIPS_PER_VIDEO]
    for row in rows:
        row["ms_per_clip"] = row["ms_per_video"] / row["clips_per_video"]
    whole = {s.profile: cost(s.clip, s.clip.clips_per_video + 1) for s in (paper, laptop)}
    passes = laptop.training.clips / int((standin.plan(laptop.data).split == "pretrain").sum())
    return {
        "opening": rows,
        "opening_published_ms": milliseconds(videos, lambda path: published_clip(path, rng.random())),
        "paper_ms_per_video": whole["paper"],
        "paper_ms_per_training_clip": whole["paper"] / paper.clip.clips_per_video,
        "laptop_ms_per_video": whole["laptop"],
        "laptop_passes": passes,
        "laptop_ms_per_training_clip": whole["laptop"] / passes,
    }


# ---------------------------------------------------------------- one video


def child(*arguments: Any) -> None:
    """Run a part of benchmarks.processes in a fresh Python process."""
    command = [sys.executable, "-m", "benchmarks.processes", *map(str, arguments)]
    subprocess.run(command, cwd=store.ROOT, check=True, stdout=subprocess.DEVNULL)


def one_file(videos: list[Path], folder: Path, quick: bool) -> dict[str, float]:
    """From a video file to the answers of five heads: as published, in one fresh process, and in one that is warm."""
    settings, encoder, weights = config.settings("paper", "vjepa"), folder / "encoder.safetensors", folder / HEADS
    save_file(new_encoder(settings.model, settings.grid, 0).state_dict(), encoder)
    heads = {member: LinearHead(settings.model.width, len(LABELLED_CLASSES)).eval() for member in MEMBERS}
    save_file({f"{m}.{name}": t for m, head in heads.items() for name, t in head.state_dict().items()}, weights)
    path, loaded = videos[0], load_encoder(encoder, settings)
    asked = MEMBERS[:1] if quick else MEMBERS
    if not quick:
        child("cold", encoder, weights, path)  # files come into the system's cache
    published = seconds(lambda: [child("published", encoder, weights, path, member) for member in asked])
    cold = statistics.median(seconds(lambda: child("cold", encoder, weights, path)) for _ in range(1 if quick else 3))

    def classify(file: Path) -> None:
        classify_file(file, settings, loaded, heads, LABELLED_CLASSES)

    classify(path)
    warm = statistics.median(seconds(lambda p=p: classify(p)) for p in videos[:5])
    return {
        "published_file_seconds": published,
        "file_seconds": warm,
        "file_cold_seconds": cold,
        "file_speedup": published / warm,
        "file_cold_speedup": published / cold,
    }
