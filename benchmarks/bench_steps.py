"""The part of `make bench` that times and counts training steps."""

import math
import statistics
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks import bench_data
from benchmarks.bench_data import GPU, seconds
from picojepa import architecture, config
from picojepa.config import SWITCHES, Settings
from picojepa.fitting import cosine, gradient_limit, make_optimizer, set_schedules, step_seed
from picojepa.machine import device
from picojepa.masking import Mask
from picojepa.pretraining import RECIPES, training_step

PUBLISHED_GFLOP = 41  # a clip, as counted in the published code itself
SIZES, RATIOS = (112, 160, 224), (0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int = 2  # in each, every rung takes its steps, so that a slow minute hits all of them
    steps: int = 20 if GPU else 4  # of a fast rung in a round
    batch: int = 10
    videos: int = 10
    laptop_steps: int = 150
    paper_steps: int = 7
    memory_steps: int = 8
    files: int = 5
    quick: bool = False


QUICK = Effort(1, 1, 1, 2, 6, 3, 3, 1, True)


@dataclass(frozen=True)
class Rung:
    """One way to train."""

    name: str
    what: str
    settings: Settings
    fused: bool = False  # PyTorch's fused attention in place of ours
    slow: bool = False  # takes one step in a round on a CPU


# ---------------------------------------------------------------- training steps


def fused_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)


class Trainer:
    """What `pretraining.pretrain` does in a step, on the same clips again and again, half-way through the run."""

    def __init__(self, rung: Rung, clips: Tensor) -> None:
        self.rung, self.clips, self.config = rung, clips, rung.settings.training
        self.model = RECIPES[rung.settings.recipe](rung.settings, 0).to(device()).train()
        self.optimizer = make_optimizer(self.model.parameter_groups(), self.config)
        self.number = self.config.steps // 2
        if self.config.compile:
            self.model.compile()

    def step(self) -> None:
        """Train once."""
        generator = torch.Generator().manual_seed(step_seed(self.number, self.config))
        masks = self.model.draw_masks(len(self.clips), generator)
        masks = [Mask(mask.context.to(device()), mask.target.to(device())) for mask in masks]
        set_schedules(self.optimizer, self.number, self.config)
        limit = gradient_limit(self.number, self.config)
        training_step(self.model, self.optimizer, self.clips, masks, limit, self.config.precision)
        self.model.follow(cosine(self.number / self.config.steps, *self.config.ema))
        self.number += 1

    def timed_step(self) -> float:
        """Seconds of a step."""
        ours = mock.patch.object(architecture, "attend", fused_attention) if self.rung.fused else nullcontext()
        with ours:
            return seconds(self.step)


def measure(rungs: Iterable[Rung], clips: dict[int, Tensor], effort: Effort, bar: tqdm) -> list[dict[str, Any]]:
    """Median time of a step of each rung, after a step in which matrix products are counted, forward and backward."""
    trainers = [Trainer(rung, clips[rung.settings.clip.size]) for rung in rungs]
    counts, times = [], [[] for _ in trainers]
    for trainer in trainers:
        # The counter knows matrix products, but not the CPU's fused attention kernel.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            trainer.timed_step()
        counts.append(counter.get_total_flops() / len(trainer.clips) / 1e9)
        bar.update()
    for _ in range(effort.rounds):
        for trainer, own in zip(trainers, times, strict=True):
            own += [trainer.timed_step() for _ in range(1 if trainer.rung.slow and not GPU else effort.steps)]
            bar.update()
    return [described(*facts) for facts in zip(trainers, counts, times, strict=True)]


def described(trainer: Trainer, count: float, times: list[float]) -> dict[str, Any]:
    median = statistics.median(times)
    rate = len(trainer.clips) / median
    facts = {"name": trainer.rung.name, "what": trainer.rung.what, "clips_per_second": rate}
    return facts | {"seconds_per_step": median, "steps_timed": len(times), "gflop_per_clip": count}


def ladder() -> list[Rung]:
    """From the published step to ours, then what stands beside."""
    ours, published = config.settings("paper", "vjepa"), config.settings("paper", "published")
    visible = config.as_published(ours, *(name for name in SWITCHES if name != "encode_hidden"))
    exact = config.override(ours, "training.precision=float32")
    tube90 = config.override(ours, "training.mask.ratio=0.9")
    blocks = config.override(ours, "training.mask.strategy=multiblock")
    return [
        Rung("published", "the published step: all switches, float32", published, slow=True),
        Rung("visible", "and only visible tokens are encoded: all switches but encode_hidden", visible, slow=True),
        Rung("vjepa float32 fused", "and V-JEPA: no dropout, narrow predictor, L1, tubes; fused", exact, fused=True),
        Rung("vjepa bfloat16 fused", "and matrix products in bfloat16; PyTorch's fused attention", ours, fused=True),
        Rung("vjepa", "and our attention: the recipe vjepa as it is", ours),
        Rung("vjepa float32", "beside the ladder: vjepa in float32 with our attention", exact),
        Rung("tube90", "vjepa, tubes that hide 90 %", tube90),
        Rung("multiblock", "vjepa, multi-block: two masks on each clip", blocks),
    ]


def training(folder: Path, effort: Effort) -> dict[str, Any]:
    """The ladder, other masks, and what a step costs by frame size and masked share."""
    paper, videos = config.settings("paper", "vjepa"), bench_data.videos(folder)
    clips = {}
    for size in SIZES:
        clips[size] = bench_data.batch(videos, replace(paper.clip, size=size), effort.batch).to(device())
    grid = list(product(SIZES, RATIOS))
    changed = [config.override(paper, f"clip.size={size}", f"training.mask.ratio={ratio}") for size, ratio in grid]
    rungs, cells = ladder(), [Rung("", "", settings) for settings in changed]
    with tqdm(desc="training steps", total=(len(rungs) + len(cells)) * (1 + effort.rounds)) as bar:
        rows = measure(rungs, clips, effort, bar)
        table = measure(cells, clips, replace(effort, steps=min(2, effort.steps)), bar)
    for row in rows:
        row["speedup"] = row["clips_per_second"] / rows[0]["clips_per_second"]
    rate = {row["name"]: row["clips_per_second"] for row in rows}
    cost = [
        {"size": size, "tokens": math.prod(settings.grid), "ratio": ratio}
        | {key: row[key] for key in ("clips_per_second", "gflop_per_clip")}
        for (size, ratio), settings, row in zip(grid, changed, table, strict=True)
    ]
    hours = {name: paper.training.clips / rate[name] / 3600 for name in rate}
    return {
        "ladder": rows[:6],
        "published_gflop_per_clip": rows[0]["gflop_per_clip"],
        "published_gflop_expected": PUBLISHED_GFLOP,
        "vjepa_gflop_per_clip": rows[4]["gflop_per_clip"],
        "published_clips_per_second": rate["published"],
        "tube75_clips_per_second": rate["vjepa"],
        "train_step_speedup_tube75": rate["vjepa"] / rate["published"],
        "tube90_clips_per_second": rate["tube90"],
        "multiblock_clips_per_second": rate["multiblock"],
        "published_pretraining_hours": hours["published"],
        "pretraining_hours": hours["vjepa"],
        "cost": cost,
    }


def large_batches(folder: Path, count: float, rate: float) -> dict[str, Any]:
    """On a GPU: larger batches, compiled and not, as a share of the bfloat16 matrix rate.

    Args:
        folder: with the videos.
        count: GFLOP per clip.
        rate: GFLOP per second.
    """
    rows, videos = [], bench_data.videos(folder)
    for size, compiled in product((10, 64, 256), (False, True)):
        settings = config.override(config.settings("paper", "vjepa"), f"training.compile={compiled}")
        row: dict[str, Any] = {"batch": size, "compile": compiled}
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            trainer = Trainer(Rung("", "", settings), bench_data.batch(videos, settings.clip, size).to(device()))
            times = [trainer.timed_step() for _ in range(15)][5:]
        except torch.cuda.OutOfMemoryError:
            rows.append(row | {"clips_per_second": None})
            continue
        del trainer  # its memory is not the next one's
        row["clips_per_second"] = size / statistics.median(times)
        row["share_of_bfloat16_rate"] = count * row["clips_per_second"] / rate
        rows.append(row | {"memory_gb": torch.cuda.max_memory_allocated() / 1e9})
    return {"large_batches": rows}
