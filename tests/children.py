"""What tests run in processes of their own: light to import, so that a process starts in a tenth of a second."""

import multiprocessing
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import distributed

import standin
from evidence import baselines
from picojepa import ensemble, pretraining, probing
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.data import classes
from standin import StandInConfig, files

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["picojepa.ensemble"])


@contextmanager
def quiet() -> Iterator[None]:
    """Progress bars of a process of its own are not shown."""
    torch.set_num_threads(1)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield


def generate(config: StandInConfig, folder: Path, workers: int) -> None:
    """Generate the stand-in."""
    with quiet():
        standin.generate(config, folder, workers=workers)


def generate_and_note(config: StandInConfig, folder: Path, notes: Path) -> None:
    """Generate the stand-in without further processes; a line of the notes, with this process's id, for each video."""
    write = files.write_video

    def noting(row: Mapping[str, Any], config: StandInConfig, folder: Path) -> str:
        with notes.open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        return write(row, config, folder)

    files.write_video = noting
    generate(config, folder, 1)


def answer(settings: Settings, clips: Clips, run: Path, cache: Path) -> None:
    """Ask the probes, the baselines and the ensemble, results kept in a cache."""
    os.environ["PICOJEPA_CACHE"] = str(cache)
    with quiet():
        task = probing.make_task(clips, classes(clips.videos))
        probing.probe_run(settings, clips, run, task)
        baselines.probe_baselines(settings, clips, task)
        ensemble.predictions(settings, clips, run)


def train(settings: Settings, clips: Clips, folder: Path) -> None:
    """Pre-train in a folder and leave the last state there."""
    with quiet():
        model = pretraining.pretrain(settings, clips, folder)
    torch.save(model.state_dict(), folder / "final.pt")


def train_as(rank: int, meeting: Path, settings: Settings, clips: Clips, cache: Path) -> None:
    """Pre-train as one of two processes, results kept in a cache; what went wrong is left beside the meeting."""
    os.environ["PICOJEPA_CACHE"] = str(cache)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    try:
        with quiet():
            folder = pretraining.run(settings, clips)
        meeting.with_name(f"{meeting.name}.{rank}").write_text(str(folder))
    except ValueError as error:
        meeting.with_name(f"{meeting.name}.{rank}").write_text(f"refused: {error}")
    distributed.destroy_process_group()


def start(function, *arguments) -> multiprocessing.Process:
    """A process of its own."""
    child = FORKSERVER.Process(target=function, args=arguments)
    child.start()
    return child
