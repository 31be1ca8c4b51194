"""Training steps, timed and counted: the published one, ours, and what lies between; and the memory they take."""

import math
import multiprocessing
import re
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from picojepa import architecture, config, fitting, pretraining
from picojepa.config import SWITCHES, Settings
from picojepa.machine import device
from picojepa.masking import Mask

GPU = torch.cuda.is_available()
PUBLISHED_GFLOP = 41  # a clip, as counted in the published code itself
SIZES, RATIOS = (112, 160, 224), (0.5, 0.75, 0.9)
NOTES = [
    "The published step is the recipe `published` of this package (all switches of picojepa.config.SWITCHES), not the "
    "authors' own files.",
    "A step: draw masks, set the schedules, training_step, follow, on clips of random numbers. Medians; on a GPU after "
    "synchronising.",
    "gflop_per_clip: matrix products, forward and backward, counted by torch.utils.flop_counter with plain attention.",
    "memory_gb_*: resident memory of a process that trains in the paper's geometry: peak, after 2 steps, at the end.",
]


@dataclass(frozen=True)
class Rung:
    """One way to train."""

    name: str
    what: str
    settings: Settings
    fused: bool = False  # PyTorch's fused attention in place of ours
    slow: bool = False  # takes one step in a round on a CPU


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes, until the device has finished."""
    if GPU:
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matmul_gflops(dtype: torch.dtype, quick: bool) -> float:
    """Best rate of square matrix products over several sizes, in GFLOP/s."""
    best = 0.0
    for size in (512, 1024) if quick else (512, 1024, 2048, 4096, *((8192, 16384) if GPU else ())):
        a, b = torch.randn(2, size, size, device=device()).to(dtype)
        for _ in range(3 if quick else 8):
            best = max(best, 2 * size**3 / seconds(lambda a=a, b=b: a @ b) / 1e9)
    return best


# ---------------------------------------------------------------- training steps


def fused_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)


class Trainer:
    """What `pretraining.pretrain` does in a step, on the same random clips again and again, half-way through the run.

    Args:
        settings: model and training.
        batch: number of clips.
        fused: PyTorch's fused attention in place of ours.
    """

    def __init__(self, settings: Settings, batch: int, fused: bool = False) -> None:
        self.config, self.fused, size = settings.training, fused, settings.clip.size
        self.clips = torch.randn(batch, 3, settings.clip.frames, size, size, device=device())
        self.model = pretraining.OBJECTIVES[settings.recipe](settings, 0).to(device()).train()
        self.optimizer = fitting.make_optimizer(self.model.parameter_groups(), self.config)
        self.number = self.config.steps // 2
        if self.config.compile:
            self.model.compile()

    def step(self) -> None:
        """Train once."""
        generator = torch.Generator().manual_seed(fitting.step_seed(self.number, self.config))
        masks = self.model.draw_masks(len(self.clips), generator)
        masks = [Mask(mask.context.to(device()), mask.target.to(device())) for mask in masks]
        fitting.set_schedules(self.optimizer, self.number, self.config)
        limit = fitting.gradient_limit(self.number, self.config)
        pretraining.training_step(self.model, self.optimizer, self.clips, masks, limit, self.config.precision)
        self.model.follow(fitting.cosine(self.number / self.config.steps, *self.config.momenta))
        self.number += 1

    def timed_step(self) -> float:
        """Seconds of a step."""
        with mock.patch.object(architecture, "attend", fused_attention) if self.fused else nullcontext():
            return seconds(self.step)

    def gflop(self) -> float:
        """Matrix products of a step, forward and backward, for each clip."""
        # The counter knows matrix products, but not the CPU's fused attention kernel.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self.timed_step()
        return counter.get_total_flops() / len(self.clips) / 1e9


def measure(rungs: list[Rung], batch: int, rounds: int, steps: int) -> dict[str, dict[str, Any]]:
    """Median time of a step of each rung, by name; one step, in which matrix products are counted, goes before.

    Args:
        rungs: what is measured.
        batch: clips in a step.
        rounds: in each, every rung takes its steps, so that a slow minute hits all of them.
        steps: of a rung in a round.
    """
    trainers = [Trainer(rung.settings, batch, rung.fused) for rung in rungs]
    counts = [trainer.gflop() for trainer in tqdm(trainers, desc="counting products")]
    times: list[list[float]] = [[] for _ in rungs]
    for rung, trainer, own in tqdm([*zip(rungs, trainers, times, strict=True)] * rounds, desc="timing steps"):
        own += [trainer.timed_step() for _ in range(1 if rung.slow and not GPU else steps)]
    medians = [statistics.median(own) for own in times]
    return {
        rung.name: {
            "name": rung.name,
            "what": rung.what,
            "clips_per_second": batch / median,
            "seconds_per_step": median,
            "steps_timed": len(own),
            "gflop_per_clip": count,
            "speedup": medians[0] / median,
        }
        for rung, count, own, median in zip(rungs, counts, times, medians, strict=True)
    }


def ladder() -> list[Rung]:
    """From the published step to ours; the last stands beside."""
    ours, published = config.settings("paper", "vjepa"), config.settings("paper", "published")
    visible = config.as_published(ours, *(name for name in SWITCHES if name != "encode_hidden"))
    exact = config.override(ours, "training.precision=float32")
    return [
        Rung("published", "the published step: all switches, float32", published, slow=True),
        Rung("visible", "and only visible tokens are encoded: all switches but encode_hidden", visible, slow=True),
        Rung("vjepa float32 fused", "and V-JEPA: no dropout, narrow predictor, L1, tubes; fused", exact, fused=True),
        Rung("vjepa bfloat16 fused", "and matrix products in bfloat16; PyTorch's fused attention", ours, fused=True),
        Rung("vjepa", "and our attention: the recipe vjepa as it is", ours),
        Rung("vjepa float32", "beside the ladder: vjepa in float32 with our attention", exact),
    ]


def tubes() -> list[Rung]:
    """The recipe vjepa by frame size and masked share."""
    ours, found = config.settings("paper", "vjepa"), []
    for size, ratio in product(SIZES, RATIOS):
        changed = config.override(ours, f"clip.size={size}", f"training.mask.ratio={ratio}")
        found.append(Rung(f"tubes of {ratio} at {size}", "", changed))
    return found


def training(batch: int, quick: bool) -> dict[str, Any]:
    """The ladder, multi-block masks, and what a step costs by frame size and masked share."""
    paper, rungs, cells = config.settings("paper", "vjepa"), ladder(), tubes()
    blocks = Rung("multiblock", "", config.override(paper, "training.mask.strategy=multiblock"))
    rounds, steps = (1, 1) if quick else (2, 20 if GPU else 4)
    rows = measure([*rungs, blocks, *cells], batch, rounds, steps)
    rate = {name: row["clips_per_second"] for name, row in rows.items()}
    cost = [
        {"size": cell.settings.clip.size, "tokens": math.prod(cell.settings.grid)}
        | {"ratio": cell.settings.training.mask.ratio}
        | {key: rows[cell.name][key] for key in ("clips_per_second", "gflop_per_clip")}
        for cell in cells
    ]
    return {
        "ladder": [rows[rung.name] for rung in rungs],
        "published_gflop_per_clip": rows["published"]["gflop_per_clip"],
        "published_gflop_expected": PUBLISHED_GFLOP,
        "vjepa_gflop_per_clip": rows["vjepa"]["gflop_per_clip"],
        "published_clips_per_second": rate["published"],
        "tube75_clips_per_second": rate["vjepa"],
        "train_step_speedup_tube75": rate["vjepa"] / rate["published"],
        "tube90_clips_per_second": rate["tubes of 0.9 at 224"],
        "multiblock_clips_per_second": rate["multiblock"],
        "published_pretraining_hours": paper.training.clips / rate["published"] / 3600,
        "pretraining_hours": paper.training.clips / rate["vjepa"] / 3600,
        "cost": cost,
    }


def large_batches(count: float, rate: float) -> dict[str, Any]:
    """On a GPU: larger batches, compiled and not, as a share of the bfloat16 matrix rate.

    Args:
        count: GFLOP per clip.
        rate: GFLOP per second.
    """
    rows: list[dict[str, Any]] = []
    for size, compiled in product((10, 64, 256), (False, True)):
        settings = config.settings("paper", "vjepa")
        settings = replace(settings, training=replace(settings.training, compile=compiled))
        rows.append({"batch": size, "compile": compiled, "clips_per_second": None})
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            trainer = Trainer(settings, size)
            found = size / statistics.median([trainer.timed_step() for _ in range(15)][5:])
        except torch.cuda.OutOfMemoryError:
            continue
        del trainer  # its memory is not the next one's
        rows[-1] |= {"clips_per_second": found, "share_of_bfloat16_rate": count * found / rate}
        rows[-1] |= {"memory_gb": torch.cuda.max_memory_allocated() / 1e9}
    return {"large_batches": rows}


# ---------------------------------------------------------------- memory


def resident(steps: int, batch: int) -> dict[str, float]:
    """Train for some steps; resident memory in GB at the peak, after two steps and at the end."""
    trainer, found = Trainer(config.settings("paper", "vjepa"), batch), []
    for _ in range(steps):
        trainer.step()
        found.append(psutil.Process().memory_info().rss / 1e9)
    if (status := Path("/proc/self/status")).exists():  # getrusage would know the parent's memory too
        peak = int(re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE)[1]) * 1024 / 1e9
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # macOS counts in bytes
    return {"memory_gb_peak": peak, "memory_gb_first": found[1], "memory_gb_last": found[-1]}


def memory(steps: int, batch: int) -> dict[str, float]:
    """Resident memory, in GB, of a fresh process that trains in the paper's geometry."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(resident, steps, batch).result()
