"""What this computer does best: its device, its precision, the number of threads, and processes that train together.

Book: chapters 3 and 4, and the page on larger machines.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, distributed

from picojepa import require

ENOUGH = 0.7  # share of the best speed with which fewer threads are preferred: beside other work many lose far more


def device() -> torch.device:
    """The GPU where there is one, else the CPU; with several processes on a machine, this process's own GPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_bfloat16() -> bool:
    """Whether the device has instructions for matrix products in bfloat16; without them float32 is faster."""
    if device().type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast(precision: str) -> AbstractContextManager:
    """Inside this block matrix products are done in a precision, ``float32`` or ``bfloat16`` where that is fast."""
    return torch.autocast(device().type, torch.bfloat16, enabled=precision == "bfloat16" and fast_bfloat16())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block and give back the outer random state, of the CPU and of this process's GPU."""
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(gpus):
        torch.manual_seed(seed)
        yield


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Inside this block PyTorch computes with a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def best_threads(rate: Callable[[], float]) -> tuple[int, dict[str, float]]:
    """The number of threads with which something runs fastest here and now, and the rates that were measured.

    ``rate`` does a bit of the real work and returns its speed. Each number is tried twice and judged by the better try.
    ``OMP_NUM_THREADS`` decides instead, where it is set; on a GPU the number does not matter.
    """
    if "OMP_NUM_THREADS" in os.environ or device().type == "cuda":
        return torch.get_num_threads(), {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = [count for count in (1, 2, 4, 8, 16) if count <= cores]
    rates = dict.fromkeys(counts, 0.0)
    for count in (*counts, *counts):
        with threads(count):
            rates[count] = max(rates[count], rate())
    chosen = min(count for count in counts if rates[count] >= ENOUGH * max(rates.values()))
    return chosen, {str(count): round(value, 1) for count, value in rates.items()}


def pace(work: Iterator[Any], seconds: float = 0.25) -> float:
    """How many items a second come from an iterator, after the first one, which warms up."""
    next(work, None)
    start, count = time.perf_counter(), 0
    for _ in work:
        count += 1
        if time.perf_counter() - start > seconds:
            break
    return count / max(1e-9, time.perf_counter() - start)


def hardware() -> dict[str, Any]:
    """Processor, accelerator, thread count and versions, for run cards."""
    return {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def rank() -> int:
    """Number of this process among those that train together, 0 if it is alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share_of(batch: int) -> slice:
    """The part of a step's clips that this process works on; ValueError if they do not divide among the processes."""
    said = f"a batch of {batch} clips does not divide among {processes()} processes"
    require(batch % processes() == 0, f"{said}; change training.batch")
    return slice(rank() * batch // processes(), (rank() + 1) * batch // processes())


def agree(value: Any) -> Any:
    """What the first process says, in every process."""
    said = [value]
    if distributed.is_initialized():
        distributed.broadcast_object_list(said)
    return said[0]


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of what every process found, in every process."""
    if distributed.is_initialized():
        distributed.all_reduce(values)
    return values / processes()
