"""What tests run in processes of their own: light to import, so that a process starts in a tenth of a second."""

import multiprocessing
import os
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import distributed

from picojepa import pretraining
from picojepa.clips import Clips
from picojepa.config import Settings

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["picojepa.pretraining"])


def train(settings: Settings, clips: Clips, folder: Path) -> None:
    """Pre-train in a folder and leave the last state there."""
    torch.set_num_threads(1)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        model = pretraining.pretrain(settings, clips, folder)
    torch.save(model.state_dict(), folder / "final.pt")


def train_as(rank: int, meeting: Path, settings: Settings, clips: Clips, cache: Path) -> None:
    """Pre-train as one of two processes, results kept in a cache; what went wrong is left beside the meeting."""
    torch.set_num_threads(1)
    os.environ["PICOJEPA_CACHE"] = str(cache)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
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
