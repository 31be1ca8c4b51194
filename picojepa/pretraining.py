"""Self-supervised pre-training: learn to predict hidden features.

`training_step` is the whole method: encode everything with the target encoder and the visible tokens
with the context encoder, predict, compare, step the optimiser, let the target encoder follow. The loop
in `pretrain` adds what a long run needs: schedules, prefetching, records, checkpoints, several processes.

From the shell: ``python -m picojepa.pretraining``, or ``torchrun --nproc-per-node=2 -m picojepa.pretraining``.

Book: chapter 4.
"""

import argparse
import json
import logging
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from picojepa import config as configuration
from picojepa import data, store
from picojepa.clips import Clips, crop, crop_boxes, normalise
from picojepa.config import Settings, TrainingConfig
from picojepa.features import autocast, check_geometry, device, encode, quick_probe, shapes, spread_and_rank
from picojepa.jepa import JEPA
from picojepa.masking import Mask
from picojepa.published import PublishedJEPA

RECIPES: dict[str, type[JEPA]] = {"vjepa": JEPA, "published": PublishedJEPA}
WATCHED_CLIPS = 512  # training clips on which spread, rank and quick probe are watched
log = logging.getLogger(__name__)


# ---------------------------------------------------------------- schedules


def cosine(progress: float, first: float, last: float) -> float:
    """Half a cosine wave from ``first`` at progress 0 to ``last`` at progress 1."""
    return last + (first - last) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def warmup_steps(config: TrainingConfig) -> int:
    """Steps in which the learning rate rises."""
    return max(1, round(config.warmup * config.steps))


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up over a share of the steps, then a cosine down to the final rate."""
    warmup = warmup_steps(config)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return cosine((step - warmup) / max(1, config.steps - warmup), config.learning_rate, config.final_learning_rate)


def gradient_limit(step: int, config: TrainingConfig) -> float:
    """The norm to which the gradient of all parameters together is cut in a step."""
    return config.gradient_clip if config.clip_warmup or step >= warmup_steps(config) else math.inf


def make_optimizer(groups: list[dict[str, Any]], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW, all parameters in one fused kernel; see `JEPA.parameter_groups`."""
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.0, fused=True)


def set_schedules(optimizer: torch.optim.Optimizer, step: int, config: TrainingConfig) -> None:
    """Set this step's learning rate and weight decay."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config) * group["rate"]
        if group["decays"]:
            group["weight_decay"] = cosine(step / config.steps, *config.weight_decay)


# ---------------------------------------------------------------- batches


def step_seed(step: int, config: TrainingConfig) -> int:
    """Seed of everything random in a step: any step can be done again without the ones before it."""
    return config.seed * 1_000_003 + step


def batch_numbers(step: int, videos: int, config: TrainingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Which video and which of its epochs each clip of a step comes from, two int arrays (B,).

    Videos are shuffled anew every epoch by ``(seed, epoch)`` alone, so that any step can be drawn
    again after an interruption.
    """
    place = step * config.batch + np.arange(config.batch)
    epochs = place // videos
    orders = {epoch: np.random.default_rng([config.seed, epoch]).permutation(videos) for epoch in set(epochs.tolist())}
    return np.array([orders[e][i] for e, i in zip(epochs.tolist(), (place % videos).tolist(), strict=True)]), epochs


def training_batch(step: int, clips: np.ndarray, config: TrainingConfig, share: slice = slice(None)) -> Tensor:
    """The normalised clips of a step, float32 (B, 3, T, H, W), from uint8 (n, clips_per_video, T, 3, H, W).

    Args:
        step: number of the step.
        clips: training clips of all videos.
        config: batch, seed and cropping.
        share: which of the step's clips to load.
    """
    videos, epochs = batch_numbers(step, len(clips), config)
    batch = normalise(torch.from_numpy(clips[videos[share], epochs[share] % clips.shape[1]]))
    if config.crop is None:
        return batch
    stream = torch.Generator().manual_seed(~step_seed(step, config))  # not that of the step's masks
    boxes = crop_boxes(config.batch, config.crop, stream)
    return crop(batch, boxes[share])


def prefetch(make: Callable[[int], Any], steps: range) -> Iterator[Any]:
    """``make(step)`` for every step, prepared in a thread while the step before is being trained on.

    The thread computes alone: helpers of its own would fight with those of the training for the cores.
    """
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(torch.set_num_threads, 1).result()
        pool.submit(torch.get_num_threads).result()  # makes the number its own
        torch.set_num_threads(threads)  # for this thread and later ones
        asked = (pool.submit(make, step) for step in steps)
        coming = deque(islice(asked, 1))
        while coming:
            ready = coming.popleft().result()
            coming.extend(islice(asked, 1))
            yield ready


# ---------------------------------------------------------------- several processes


def rank() -> int:
    """Number of this process among those that train together, 0 if it is alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def share_of(batch: int) -> slice:
    """The part of a step's clips that this process works on.

    Raises:
        ValueError: the batch does not divide among the processes.
    """
    processes = distributed.get_world_size() if distributed.is_initialized() else 1
    if batch % processes:
        raise ValueError(f"a batch of {batch} clips does not divide among {processes} processes; change training.batch")
    return slice(rank() * batch // processes, (rank() + 1) * batch // processes)


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
        values = values / distributed.get_world_size()
    return values


# ---------------------------------------------------------------- training


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, clips: Tensor, masks: list[Mask], limit: float, precision: str
) -> dict[str, float]:
    """One step of gradient descent on the context encoder and the predictor.

    Args:
        model: a JEPA, or what wraps it.
        optimizer: over `JEPA.parameter_groups`, schedules set.
        clips: (B, 3, T, H, W), normalised.
        masks: see `JEPA.forward`.
        limit: largest global gradient norm.
        precision: see `features.autocast`.

    Returns:
        Loss, similarity of prediction and target, and the norm of the gradient before it was cut.

    Raises:
        FloatingPointError: loss or gradient is not finite; no weight has been touched.
    """
    with autocast(precision):
        loss, similarity = model(clips, masks)
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), limit)
    if not torch.isfinite(loss + norm):
        raise FloatingPointError(f"loss {loss.item()}, gradient norm {norm.item()}")
    optimizer.step()
    found = mean_over_processes(torch.stack([loss.detach(), similarity, norm])).tolist()
    return dict(zip(("loss", "similarity", "gradient_norm"), found, strict=True))


def pretrain(settings: Settings, clips: Clips, folder: Path, on_log: Callable[[Path], None] | None = None) -> JEPA:
    """Pre-train a JEPA and leave ``metrics.jsonl`` and a checkpoint in a folder; continues from a checkpoint there.

    Args:
        settings: model and training configuration.
        clips: decoded clips; only those of training videos are used.
        folder: where the run is kept; a killed run goes on from its last checkpoint.
        on_log: called with the folder after every look at the features.

    Raises:
        FloatingPointError: loss or gradient is not finite; the message names step, videos and checkpoint.
    """
    config, where = settings.training, device()
    model = RECIPES[settings.recipe](settings, config.seed).to(where).train()
    optimizer = make_optimizer(model.parameter_groups(), config)
    first, share = load_checkpoint(folder, model, optimizer, settings), share_of(config.batch)
    if config.compile:
        model.compile()
    replica: nn.Module = DistributedDataParallel(model) if distributed.is_initialized() else model
    recorder = Recorder(folder, first, clips, config, on_log)

    def prepare(step: int) -> tuple[Tensor, list[Mask]]:
        masks = model.draw_masks(config.batch, torch.Generator().manual_seed(step_seed(step, config)))
        batch = training_batch(step, clips.training, config, share)
        batch = batch.pin_memory() if where.type == "cuda" else batch
        return batch, [Mask(mask.context[share], mask.target[share]) for mask in masks]

    steps = recorder.watching(prefetch(prepare, range(first, config.steps)))
    for step, (batch, masks) in enumerate(steps, start=first):
        batch = batch.to(where, non_blocking=True)
        masks = [Mask(mask.context.to(where), mask.target.to(where)) for mask in masks]
        set_schedules(optimizer, step, config)
        torch.manual_seed(step_seed(step, config) + rank())  # of dropout, where there is any
        try:
            facts = training_step(replica, optimizer, batch, masks, gradient_limit(step, config), config.precision)
        except FloatingPointError as error:
            videos = clips.videos.path.iloc[batch_numbers(step, len(clips.training), config)[0][share]]
            raise FloatingPointError(
                f"step {step}: {error}; the last good checkpoint is in {folder}; lower training.learning_rate, "
                f"or look at the videos of this step: {', '.join(videos)}"
            ) from error
        momentum = cosine(step / config.steps, *config.ema)
        model.follow(momentum)
        if rank() == 0:
            facts |= {"learning_rate": optimizer.param_groups[0]["lr"], "ema": momentum}
            recorder.record(step, model, facts)
            if (step + 1) % config.checkpoint_every == 0:
                save_checkpoint(folder, model, optimizer, step + 1, settings)
    return model


class Recorder:
    """The metrics file of a run, its progress bar, and how long training waited for data."""

    def __init__(
        self, folder: Path, first: int, clips: Clips, config: TrainingConfig, on_log: Callable[[Path], None] | None
    ) -> None:
        self.path, self.config, self.on_log = folder / "metrics.jsonl", config, on_log
        rows = np.linspace(0, len(clips.training) - 1, min(WATCHED_CLIPS, len(clips.training))).astype(int)
        self.watched, self.labels = clips.centre[rows], clips.videos.label.iloc[rows].tolist()
        self.waited, self.start, self.since = 0.0, time.perf_counter(), first
        if self.path.exists() and rank() == 0:  # without the rows of steps that will be done again
            kept = [line for line in whole_lines(self.path) if json.loads(line)["step"] < first]
            store.write_atomically(self.path, "".join(kept))
        self.bar = tqdm(
            desc="pre-training",
            unit="clip",
            file=sys.stdout,
            initial=first * config.batch,
            total=config.steps * config.batch,
            disable=rank() > 0,
        )

    def watching(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches; the time until each is ready counts as waiting."""
        with self.bar:
            while True:
                start = time.perf_counter()
                batch = next(batches, None)
                self.waited += time.perf_counter() - start
                if batch is None:
                    return
                yield batch
                self.bar.update(self.config.batch)

    def record(self, step: int, model: JEPA, facts: dict[str, float]) -> None:
        """Append a row to the metrics file if it is time for one, from time to time with a look at the features."""
        config, last = self.config, step == self.config.steps - 1
        if step % config.log_every and not last:
            return
        now = time.perf_counter()
        clips, seconds = (step + 1 - self.since) * config.batch, now - self.start
        row: dict[str, Any] = {"step": step, "clips": (step + 1) * config.batch, **facts, "time": time.time()}
        row |= {"clips_per_second": clips / seconds, "waiting": self.waited / seconds}
        watches = step % config.watch_every == 0 or last
        if watches:
            features = encode(model.encoder, self.watched)
            row["spread"], row["effective_rank"] = spread_and_rank(features)
            row["quick_probe"] = quick_probe(features, self.labels)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.bar.set_postfix(loss=f"{facts['loss']:.3f}", refresh=False)
        if watches and self.on_log:
            self.on_log(self.path.parent)
        self.waited, self.start, self.since = 0.0, time.perf_counter(), step + 1


def whole_lines(path: Path) -> list[str]:
    """The lines of a text file; one that was cut off by a kill is left out."""
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def read_metrics(folder: Path) -> pd.DataFrame:
    """The metrics of a run, one row per logged step."""
    return pd.DataFrame([json.loads(line) for line in whole_lines(folder / "metrics.jsonl")])


# ---------------------------------------------------------------- checkpoints


def save_checkpoint(folder: Path, model: JEPA, optimizer: torch.optim.Optimizer, step: int, settings: Settings) -> None:
    """Replace the checkpoint in a folder in one move."""
    state = {
        "step": step,
        "settings": json.dumps(asdict(settings.model)),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    temporary = folder / "checkpoint.pt.tmp"
    torch.save(state, temporary)
    os.replace(temporary, folder / "checkpoint.pt")


def load_checkpoint(folder: Path, model: JEPA, optimizer: torch.optim.Optimizer, settings: Settings) -> int:
    """Load a checkpoint, if there is one, and return the step to go on with.

    Raises:
        ValueError: the checkpoint was made for another geometry.
    """
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location=device())
    check_geometry(path, json.loads(state["settings"]), asdict(settings.model))
    check_geometry(path, shapes(state["model"]), shapes(model.state_dict()))
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


# ---------------------------------------------------------------- whole runs


def run(settings: Settings, clips: Clips, on_log: Callable[[Path], None] | None = None) -> Path:
    """Pre-train with these settings, or find the finished run; processes that train together all call this.

    Returns:
        Folder with ``encoder.safetensors`` (the context encoder, which the probes use; its slow average is
        not kept), ``predictor.safetensors``, ``metrics.jsonl`` and ``card.json``.
    """
    if rank() > 0:
        if (folder := agree(None)) is not None:
            pretrain(settings, clips, folder)
        return agree(None)
    told = []

    def make(folder: Path) -> dict[str, Any]:
        told.append(agree(folder))
        model = pretrain(settings, clips, folder, on_log)
        save_file(model.encoder.state_dict(), folder / "encoder.safetensors")
        save_file(model.predictor.state_dict(), folder / "predictor.safetensors")
        return {
            "steps": settings.training.steps,
            "clips": settings.training.steps * settings.training.batch,
            "seed": settings.training.seed,
            "processes": distributed.get_world_size() if distributed.is_initialized() else 1,
        }

    folder = store.result("pretraining.run", training_inputs(settings, clips), make)
    (folder / "checkpoint.pt").unlink(missing_ok=True)  # the result is in its place: a kill costs nothing any more
    if not told:
        agree(None)
    return agree(folder)


def training_inputs(settings: Settings, clips: Clips) -> dict[str, Any]:
    """What shapes a pre-trained encoder, for keys."""
    return {
        "recipe": settings.recipe,
        "published": list(settings.published),
        "clip": asdict(settings.clip),
        "model": asdict(settings.model),
        "training": asdict(settings.training),
        "data": clips.digest,
    }


def main() -> None:
    """Pre-train from the shell, alone or as one of the processes that ``torchrun`` starts."""
    parser = argparse.ArgumentParser(prog="python -m picojepa.pretraining", description=main.__doc__)
    parser.add_argument("--profile", help="smoke, laptop or paper; default: PICOJEPA_PROFILE, else laptop")
    parser.add_argument("--recipe", help="vjepa or published; default: PICOJEPA_RECIPE, else vjepa")
    parser.add_argument("changes", nargs="*", metavar="section.field=value", help="such as training.batch=64")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = configuration.settings(arguments.profile, arguments.recipe)
    settings = configuration.change(settings, *arguments.changes)
    clips = data.load_clips(settings)
    if "RANK" in os.environ:  # torchrun sets it
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    folder = run(settings, clips)
    if rank() == 0:
        log.info("finished: %s", folder)
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
