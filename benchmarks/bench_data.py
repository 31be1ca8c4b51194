"""The part of `make bench` that has to do with files: opening videos, waiting for clips, one video, memory.

The videos are made here: 10 s of test pictures with noise, 340x256, 30 frames a second, a key frame every
250 frames. That is how the clips of Kinetics-700 are stored.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

import standin
from benchmarks.bench_children import published_clip
from picojepa import config, store
from picojepa.architecture import new_encoder
from picojepa.checkpoints import read_metrics
from picojepa.clips import ClipConfig, Clips, normalise
from picojepa.config import PAPER_PRETRAINING, Settings
from picojepa.data import read_clips
from picojepa.ensemble import HEADS, MEMBERS, classify_file
from picojepa.features import load_encoder
from picojepa.heads import LinearHead
from picojepa.pretraining import pretrain
from standin import CLASSES, LABELLED_CLASSES

PAPER_VIDEOS = sum(PAPER_PRETRAINING)
GPU = torch.cuda.is_available()
CLIPS_PER_VIDEO = (1, 2, 4, 8, 16)
NOTES = [
    "The published step is the recipe `published` of this package (all switches of picojepa.config.SWITCHES), not the "
    "authors' own files.",
    "A step: draw masks, set the schedules, training_step, follow. Medians; on a GPU after synchronising.",
    "gflop_per_clip: matrix products, forward and backward, counted by torch.utils.flop_counter with plain attention.",
    "opening: mean processor time of one core for data.read_clips with the paper's clips at random places; how long it "
    "takes depends on how far the last key frame is.",
    "opening_published_ms: open, decode 8 consecutive frames of full size at a random start, resize, normalise.",
    "paper_ms_per_training_clip = paper_ms_per_video / 4: a video's 4 training clips and its centre clip are decoded "
    "in one pass, and each of the 4 epochs uses another clip.",
    "laptop_ms_per_training_clip = laptop_ms_per_video / laptop_passes: the same videos read with the laptop profile's "
    "ClipConfig; passes = training.clips / training videos of the stand-in. Its videos are shorter than these.",
    "cache_share_paper = d / (d + t); d = 7203 * paper_ms_per_video / 1000 / cores seconds to decode every video once, "
    "with all cores, t = 28800 / tube75_clips_per_second to train.",
    "waiting_*: share of the time after the first logged step that pretrain waits for a batch; clips lie in memory.",
    "published_file_seconds: a process after the other for each of the five heads, each importing torch, building "
    "encoder and head, decoding the centre clip at full size and resizing it. file_cold_seconds: one process for all.",
    "memory_gb_*: resident memory of a process that trains in the paper's geometry: peak, after 2 steps, at the end.",
]


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes, until the device has finished."""
    if GPU:
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def make_videos(folder: Path, count: int) -> None:
    """Videos as large and as compressed as those of Kinetics-700, each other than the rest."""
    for number in tqdm(range(count), desc="videos", unit="video"):
        kind = "testsrc2=" if number % 2 == 0 else f"mandelbrot=start_scale={3 / (number + 1)}:"
        source = f"{kind}size=340x256:rate=30"
        noise = f"noise=all_strength=12:all_flags=t+u:all_seed={number + 1},format=yuv420p"
        keys = ["-g", "250", "-keyint_min", "250", "-sc_threshold", "0"]
        command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-t", "10", "-vf", noise, "-c:v", "libx264"]
        subprocess.run([*command, "-crf", "23", *keys, str(folder / f"{number:03}.mp4")], check=True)


def videos(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.mp4"))


def batch(paths: list[Path], clip: ClipConfig, count: int) -> Tensor:
    """Normalised centre clips, (count, 3, T, H, W); videos are used again if there are too few."""
    clips = [read_clips(path, clip, [0.5]) for path in paths[:count]]
    return normalise(torch.cat([clips[i % len(clips)] for i in range(count)]))


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


def opening(folder: Path) -> dict[str, Any]:
    """What opening a video and reading clips from it costs."""
    paper, laptop, rng = config.settings("paper"), config.settings("laptop"), np.random.default_rng(0)

    def cost(clip: ClipConfig, count: int) -> float:
        return milliseconds(videos(folder), lambda path: read_clips(path, clip, rng.random(count).tolist()))

    rows = [{"clips_per_video": k, "ms_per_video": cost(paper.clip, k)} for k in CLIPS_PER_VIDEO]
    for row in rows:
        row["ms_per_clip"] = row["ms_per_video"] / row["clips_per_video"]
    whole = {s.profile: cost(s.clip, s.clip.clips_per_video + 1) for s in (paper, laptop)}
    passes = laptop.training.clips / int((standin.plan(laptop.data).split == "pretrain").sum())
    return {
        "opening": rows,
        "opening_published_ms": milliseconds(videos(folder), lambda path: published_clip(path, rng.random())),
        "paper_ms_per_video": whole["paper"],
        "paper_ms_per_training_clip": whole["paper"] / paper.clip.clips_per_video,
        "laptop_ms_per_video": whole["laptop"],
        "laptop_passes": passes,
        "laptop_ms_per_training_clip": whole["laptop"] / passes,
    }


# ---------------------------------------------------------------- waiting


def decoded(paths: list[Path], settings: Settings, least: int) -> Clips:
    """Clips of the videos as `data.load_clips` gives them, the rows repeated until there are enough."""
    clip, rng = settings.clip, np.random.default_rng(0)
    read = [read_clips(path, clip, [0.5, *rng.random(clip.clips_per_video)]).numpy() for path in paths]
    rows = [i % len(paths) for i in range(max(least, len(paths)))]
    labels = [CLASSES[i % len(CLASSES)] for i in rows]
    table = pd.DataFrame({"path": [str(paths[i]) for i in rows], "label": labels, "split": "pretrain"})
    every = np.stack([read[i] for i in rows])
    return Clips(table, every[:, 1:].copy(), every[:, 0].copy(), pd.DataFrame(), "bench")


def waiting(folder: Path, laptop_steps: int, paper_steps: int, paper_batch: int) -> dict[str, float]:
    """Share of the time that a short real run waits for its batches."""
    shares = {}
    for profile, steps in (("laptop", laptop_steps), ("paper", paper_steps)):
        settings = config.settings(profile, "vjepa")
        size = settings.training.batch if profile == "laptop" else paper_batch
        texts = [f"training.batch={size}", f"training.clips={steps * size}", "training.checkpoint_every=1000000"]
        each = max(1, steps // 6)
        settings = config.override(settings, *texts, f"training.log_every={each}", "training.watch_every=1000000")
        run = folder / f"run-{profile}"
        run.mkdir()
        pretrain(settings, decoded(videos(folder), settings, 2 * size), run)
        rows = read_metrics(run)
        spent = (rows.clips.diff() / rows.clips_per_second)[1:]
        shares[f"waiting_{profile}"] = float((rows.waiting[1:] * spent).sum() / spent.sum())
    return shares


# ---------------------------------------------------------------- one video, and memory


def child(*arguments: Any) -> str:
    """What a fresh Python process of bench_children says."""
    command = [sys.executable, "-m", "benchmarks.bench_children", *map(str, arguments)]
    run = subprocess.run(command, cwd=store.ROOT, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{run.stderr}")
    return run.stdout.splitlines()[-1]


def one_file(folder: Path, files: int, quick: bool) -> dict[str, float]:
    """From a video file to the answers of five heads: as published, in one fresh process, and in one that is warm."""
    settings, encoder, weights = config.settings("paper", "vjepa"), folder / "encoder.safetensors", folder / HEADS
    save_file(new_encoder(settings.model, settings.grid, 0).state_dict(), encoder)
    heads = {member: LinearHead(settings.model.width, len(LABELLED_CLASSES)).eval() for member in MEMBERS}
    save_file({f"{m}.{name}": t for m, head in heads.items() for name, t in head.state_dict().items()}, weights)
    path, loaded = videos(folder)[0], load_encoder(encoder, settings)
    asked = MEMBERS[:1] if quick else MEMBERS
    if not quick:
        child("cold", encoder, weights, path)  # files come into the system's cache
    published = seconds(lambda: [child("published", encoder, weights, path, member) for member in asked])
    cold = statistics.median(seconds(lambda: child("cold", encoder, weights, path)) for _ in range(1 if quick else 3))

    def classify(file: Path) -> None:
        classify_file(file, settings, loaded, heads, LABELLED_CLASSES)

    classify(path)
    warm = statistics.median(seconds(lambda p=p: classify(p)) for p in videos(folder)[:files])
    return {
        "published_file_seconds": published,
        "file_seconds": warm,
        "file_cold_seconds": cold,
        "file_speedup": published / warm,
        "file_cold_speedup": published / cold,
    }


def memory(steps: int, size: int) -> dict[str, float]:
    """Resident memory, in GB, of a fresh process that trains in the paper's geometry."""
    return json.loads(child("memory", steps, size))
