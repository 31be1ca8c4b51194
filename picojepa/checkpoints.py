"""What a run leaves on disk: the metrics of its steps, and checkpoints to go on from.

Book: chapter 4.
"""

import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from picojepa import require, store
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.features import encode, load_weights, quick_probe, spread_and_rank
from picojepa.fitting import TrainingConfig
from picojepa.jepa import JEPA
from picojepa.machine import device, rank

WATCHED_CLIPS = 512  # training clips on which spread, rank and quick probe are watched

# Called with the folder of the run and the model after every look at the features.
OnLog = Callable[[Path, JEPA], None] | None


class Recorder:
    """The metrics file of a run, its progress bar, and how long training waited for data."""

    def __init__(
        self, folder: Path, first: int, last: int, clips: Clips, config: TrainingConfig, on_log: OnLog
    ) -> None:
        self.path, self.last, self.config, self.on_log = folder / "metrics.jsonl", last, config, on_log
        rows = np.linspace(0, len(clips.training) - 1, min(WATCHED_CLIPS, len(clips.training))).astype(int)
        self.watched, self.labels = clips.centre[rows], clips.videos.label.iloc[rows].tolist()
        if self.path.exists() and rank() == 0:  # without the rows of steps that will be done again
            kept = [row for row in store.read_json_lines(self.path) if row["step"] < first]
            store.write_atomically(self.path, store.as_json_lines(kept))
        done, total = first * config.batch, last * config.batch
        how = {"desc": "pre-training", "unit": "clip", "file": sys.stdout, "disable": rank() > 0}
        self.bar = tqdm(initial=done, total=total, **how)
        self.waited, self.start, self.since = 0.0, time.perf_counter(), first

    def record(self, step: int, model: JEPA, facts: dict[str, float]) -> None:
        """Append a row to the metrics file if it is time for one, from time to time with a look at the features."""
        config, last = self.config, step == self.last - 1
        self.waited += facts.pop("waited")
        self.bar.update(config.batch)
        if last:
            self.bar.close()
        if step % config.log_every and not last:
            return
        clips, seconds = (step + 1 - self.since) * config.batch, time.perf_counter() - self.start
        row: dict[str, Any] = {"step": step, "clips": (step + 1) * config.batch, **facts, "time": time.time()}
        row |= {"clips_per_second": clips / seconds, "waiting": self.waited / seconds}
        watches = step % config.watch_every == 0 or last
        if watches:
            features = encode(model.encoder, self.watched)
            row["spread"], row["effective_rank"] = spread_and_rank(features)
            row["quick_probe"] = quick_probe(features, self.labels)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(store.as_json_lines([row]))
        self.bar.set_postfix(loss=f"{facts['loss']:.3f}", refresh=False)
        if watches and self.on_log:
            self.on_log(self.path.parent, model)
        self.waited, self.start, self.since = 0.0, time.perf_counter(), step + 1


def read_metrics(folder: Path) -> pd.DataFrame:
    """The metrics of a run, one row per logged step."""
    return pd.DataFrame(store.read_json_lines(folder / "metrics.jsonl"))


def save_checkpoint(folder: Path, model: JEPA, optimizer: torch.optim.Optimizer, step: int, settings: Settings) -> None:
    """Replace the checkpoint in a folder in one move."""
    state = {"step": step, "settings": json.dumps(store.plain(settings.model))}
    state |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    buffer = io.BytesIO()  # torch.save does not say that a disk is full
    torch.save(state, buffer)
    store.write_atomically(folder / "checkpoint.pt", buffer.getvalue())


def load_checkpoint(folder: Path, model: JEPA, optimizer: torch.optim.Optimizer, settings: Settings) -> int:
    """Load a checkpoint, if there is one, and return the step to go on with.

    Raises:
        ValueError: the checkpoint was made for another geometry.
    """
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location=device())
    made_for, wanted = json.loads(state["settings"]), store.plain(settings.model)
    require(made_for == wanted, f"{path}: made for another geometry, {made_for}; delete it or go back to its settings")
    load_weights(model, state["model"], path)
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]
