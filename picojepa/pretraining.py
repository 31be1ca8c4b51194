"""Self-supervised pre-training: learn to predict hidden features.

`training_step` is the whole method: encode everything with the target encoder and the visible tokens
with the context encoder, predict, compare, step the optimiser, let the target encoder follow. What stands
around it is what a long run needs: prefetching, records, checkpoints, several processes.

From the shell: ``python -m picojepa.pretraining``, or ``torchrun --nproc-per-node=2 -m picojepa.pretraining``.

Book: chapter 4.
"""

import argparse
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from picojepa import config as configuration
from picojepa import data, fitting, machine, store
from picojepa.checkpoints import OnLog, Recorder, load_checkpoint, save_checkpoint
from picojepa.clips import Clips, crop, crop_boxes, normalise
from picojepa.config import Settings
from picojepa.fitting import TrainingConfig, batch_numbers, cosine, gradient_limit, step_seed
from picojepa.jepa import JEPA
from picojepa.machine import autocast, device, processes, rank
from picojepa.masking import Mask
from picojepa.published import PublishedJEPA

Objective = type[JEPA] | None  # in place of that of the recipe
RUN = store.Stage("pretraining.run", version=1)
OBJECTIVES: dict[str, type[JEPA]] = {"adapted": JEPA, "vjepa": JEPA, "published": PublishedJEPA}  # `config.RECIPES`
WORTH_MEASURING = 50  # steps from which on the number of threads is measured: a bad one can cost a hundredfold
log = logging.getLogger(__name__)


def training_batch(step: int, clips: np.ndarray, config: TrainingConfig, share: slice = slice(None)) -> Tensor:
    """The normalised clips of a step, or a share of them, float32 (B, 3, T, H, W).

    ``clips`` are those of all training videos, uint8 (n, clips_per_video, T, 3, H, W).
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
    count = torch.get_num_threads()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(torch.set_num_threads, 1).result()
        pool.submit(torch.get_num_threads).result()  # makes the number its own
        torch.set_num_threads(count)  # for this thread and later ones
        asked = (pool.submit(make, step) for step in steps)
        coming = deque(islice(asked, 1))
        while coming:
            ready = coming.popleft().result()
            coming.extend(islice(asked, 1))
            yield ready


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, clips: Tensor, masks: list[Mask], limit: float, precision: str
) -> dict[str, float]:
    """One step of gradient descent on the context encoder and the predictor.

    Args:
        model: a JEPA, or what wraps it.
        optimizer: over `JEPA.parameter_groups`, schedules set.
        clips: (B, 3, T, H, W), normalised.
        masks: see `JEPA.forward`.
        limit: largest norm of the whole gradient.
        precision: see `machine.autocast`.

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
    found = machine.mean_over_processes(torch.stack([loss.detach(), similarity, norm])).tolist()
    return dict(zip(("loss", "similarity", "gradient_norm"), found, strict=True))


def training_steps(
    model: JEPA, optimizer: torch.optim.Optimizer, clips: Clips, config: TrainingConfig, steps: range
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train, one step for each number; yields the number and what is known of the step, `training_step` raises."""
    where, share = device(), machine.share_of(config.batch)
    replica: nn.Module = DistributedDataParallel(model) if distributed.is_initialized() else model

    def prepare(step: int) -> tuple[Tensor, list[Mask]]:
        masks = model.draw_masks(config.batch, torch.Generator().manual_seed(step_seed(step, config)))
        batch = training_batch(step, clips.training, config, share)
        batch = batch.pin_memory() if where.type == "cuda" else batch
        return batch, [Mask(mask.context[share], mask.target[share]) for mask in masks]

    batches = prefetch(prepare, steps)
    for step in steps:
        start = time.perf_counter()
        batch, masks = next(batches)
        waited = time.perf_counter() - start
        batch = batch.to(where, non_blocking=True)
        masks = [Mask(mask.context.to(where), mask.target.to(where)) for mask in masks]
        fitting.set_schedules(optimizer, step, config)
        torch.manual_seed(step_seed(step, config) + rank())  # of dropout, where there is any
        try:
            facts = training_step(replica, optimizer, batch, masks, gradient_limit(step, config), config.precision)
        except FloatingPointError as error:
            videos = clips.videos.path.iloc[batch_numbers(step, len(clips.training), config)[0][share]]
            raise FloatingPointError(f"step {step}: {error}; videos of this step: {', '.join(videos)}") from error
        momentum = cosine(step / config.steps, *config.momenta)
        model.follow(momentum)
        yield step, facts | {"learning_rate": optimizer.param_groups[0]["lr"], "ema": momentum, "waited": waited}


def new_model(settings: Settings, objective: Objective = None) -> tuple[JEPA, torch.optim.Optimizer]:
    """An untrained model of the recipe, or with another objective, ready to be trained, and its optimiser."""
    kind = objective or OBJECTIVES[settings.recipe]
    model = kind(settings, settings.training.seed).to(device()).train()
    return model, fitting.make_optimizer(model.parameter_groups(), settings.training)


def pretrain(
    settings: Settings, clips: Clips, folder: Path, on_log: OnLog = None, stop: int = 0, objective: Objective = None
) -> JEPA:
    """Pre-train a JEPA and leave ``metrics.jsonl`` and a checkpoint in a folder; continues from a checkpoint there.

    Args:
        settings: model and training configuration.
        clips: decoded clips; only those of training videos are used.
        folder: where the run is kept; a killed run goes on from its last checkpoint.
        on_log: called with the folder and the model after every look at the features.
        stop: number of steps after which to stop, with the schedules of the whole run; 0: after all of them.
        objective: in place of that of the recipe.

    Raises:
        FloatingPointError: loss or gradient is not finite; the message names step, videos and checkpoint.
    """
    config = settings.training
    model, optimizer = new_model(settings, objective)
    first, last = load_checkpoint(folder, model, optimizer, settings), min(stop or config.steps, config.steps)
    if config.compile:
        model.compile()
    recorder = Recorder(folder, first, last, clips, config, on_log)
    try:
        for step, facts in training_steps(model, optimizer, clips, config, range(first, last)):
            if rank() == 0:
                recorder.record(step, model, facts)
                if (step + 1) % config.checkpoint_every == 0:
                    save_checkpoint(folder, model, optimizer, step + 1, settings)
    except KeyboardInterrupt as stopped:
        raise KeyboardInterrupt("stopped; run this again, and it goes on from its last checkpoint") from stopped
    except FloatingPointError as error:
        remedy = "lower training.learning_rate, or look at the videos of this step"
        raise FloatingPointError(f"{error}; the last good checkpoint is in {folder}; {remedy}") from error
    return model


def run(settings: Settings, clips: Clips, on_log: OnLog = None, stop: int = 0, objective: Objective = None) -> Path:
    """Pre-train as `pretrain` does, or find the finished run; processes that train together all call this.

    Returns:
        Folder with ``encoder.safetensors`` (the context encoder, which the probes use; its slow average is
        not kept), ``predictor.safetensors``, ``metrics.jsonl`` and ``card.json``.
    """
    if rank() > 0:
        missing, folder = machine.agree(None)
        if missing:
            pretrain(settings, clips, folder, None, stop, objective)
        return machine.agree(None)
    with store.result(RUN, training_inputs(settings, clips, stop, objective)) as result:
        machine.agree((result.missing, result.folder))
        if result.missing:
            count, rates = chosen_threads(settings, clips, stop, objective)
            with machine.threads(count):
                model = pretrain(settings, clips, result.folder, on_log, stop, objective)
                result.facts |= machine.hardware()
            save_file(model.encoder.state_dict(), result.folder / "encoder.safetensors")
            save_file(model.predictor.state_dict(), result.folder / "predictor.safetensors")
            steps, batch = stop or settings.training.steps, settings.training.batch
            result.facts |= {"steps": steps, "clips": steps * batch, "seed": settings.training.seed}
            result.facts |= {"processes": processes(), "threads": count, "clips_per_second_by_threads": rates}
    (result.folder / "checkpoint.pt").unlink(missing_ok=True)  # the result is in its place
    return machine.agree(result.folder)


def chosen_threads(
    settings: Settings, clips: Clips, stop: int = 0, objective: Objective = None
) -> tuple[int, dict[str, float]]:
    """The number of threads with which these steps go fastest here and now, and the clips a second of each number."""
    config = settings.training
    if (stop or config.steps) < WORTH_MEASURING or processes() > 1:
        return torch.get_num_threads(), {}

    def rate() -> float:
        steps = training_steps(*new_model(settings, objective), clips, config, range(config.steps))
        return config.batch * machine.pace(steps)

    return machine.best_threads(rate)


def training_inputs(settings: Settings, clips: Clips, stop: int = 0, objective: Objective = None) -> dict[str, Any]:
    """What shapes a pre-trained encoder, for keys; an objective of one's own is known by its name and ``version``."""
    parts = {name: store.plain(getattr(settings, name)) for name in ("clip", "model", "training")}
    inputs = {"recipe": settings.recipe, "published": list(settings.published), "data": clips.digest, **parts}
    more = {"stop": stop or None, "objective": objective and [objective.__name__, objective.version]}
    return inputs | {name: value for name, value in more.items() if value is not None}


def main() -> None:
    """Pre-train from the shell, alone or as one of the processes that ``torchrun`` starts."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile")
    parser.add_argument("--recipe")
    chosen, words = parser.parse_known_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    program = "python -m picojepa.pretraining [--profile smoke|laptop|paper] [--recipe adapted|vjepa|published]"
    settings = configuration.override(configuration.settings(chosen.profile, chosen.recipe), *words, prog=program)
    clips = data.load_clips(settings)
    if "RANK" in os.environ:  # torchrun sets it
        if gpu := torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl" if gpu else "gloo")
    folder = run(settings, clips)
    if rank() == 0:
        log.info("finished: %s", folder)
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
