"""Work that may hang or die is done in processes of its own.

Book: chapter 1 uses it for decoding.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from threading import Thread
from types import ModuleType
from typing import Any, TypeVar

import torch
from pebble import ProcessExpired, ProcessPool

Job = TypeVar("Job")
MOST_WORKERS = 16
TASKS = 16  # batches after which a worker is replaced: decoders do not give all their memory back
BASE = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")


class Worker(BASE.Process):  # type: ignore[name-defined]
    """A process that does not run the caller's script a second time: it only imports what it works with."""

    def start(self) -> None:
        """Start, with an empty main module to be handed over."""
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = script


class WorkerContext(type(BASE)):  # type: ignore[misc]
    """How worker processes are started."""

    Process = Worker


def context(module: str) -> WorkerContext:
    """How worker processes are started; where they are copies of a first one, that has loaded a module beforehand."""
    if os.name == "posix":
        BASE.set_forkserver_preload([module])
    return WorkerContext()


def end_with_parent() -> None:
    """In a worker: compute in one thread, and end as soon as the process that gives the work does, even if killed."""
    torch.set_num_threads(1)
    Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def run(
    function: Callable[..., Sequence[Any]], jobs: Sequence[Job], *arguments: Any, batch: int, timeout: float
) -> Generator[tuple[Job, Any], None, None]:
    """Give jobs to worker processes; what they answer comes as it is ready.

    A worker that dies or takes too long is replaced. The jobs that it had are tried once more, each by itself.

    Args:
        function: of a module, called with a list of jobs and the arguments; returns one result for each job.
        jobs: what can be pickled.
        arguments: likewise, the same for all.
        batch: number of jobs that a worker is given at a time.
        timeout: seconds that it may take for them.

    Yields:
        A job and its result; in place of the result the reason, a text, if there is none.

    Raises:
        RuntimeError: no worker can be started, or none answers.
    """
    waiting = [jobs[start : start + batch] for start in range(0, len(jobs), batch)][::-1]
    running: dict[Future, Sequence[Job]] = {}
    workers = max(1, min(len(waiting), os.cpu_count() or 1, MOST_WORKERS))
    pool = ProcessPool(workers, max_tasks=TASKS, initializer=end_with_parent, context=context(function.__module__))
    try:
        while waiting or running:
            while waiting and len(running) < 2 * workers:
                part = waiting.pop()
                running[pool.schedule(function, (part, *arguments), timeout=timeout)] = part
            finished, _ = wait(running, timeout=3 * timeout, return_when=FIRST_COMPLETED)
            if not finished:
                raise RuntimeError("the worker processes do not answer; what is done is kept, start again")
            for future in finished:
                part = running.pop(future)
                reason = _failure(future, timeout)
                if reason and len(part) > 1:
                    waiting += [[job] for job in part]
                elif reason:
                    yield part[0], reason
                else:
                    yield from zip(part, future.result(), strict=True)
    finally:
        pool.stop()
        pool.join()


def _failure(future: Future, timeout: float) -> str:
    """Why a worker gave no answer; empty if it did."""
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise RuntimeError("no worker process can be started; what is done is kept, start again") from error
    if isinstance(error, TimeoutError):
        return f"decoding took longer than {timeout:g} s; remove it from the list or encode it again"
    if isinstance(error, ProcessExpired):
        return f"the decoder died (exit code {error.exitcode}); remove it from the list or encode it again"
    return f"decoding failed ({type(error).__name__}: {error}); remove it from the list" if error else ""
