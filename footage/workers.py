"""Work that may hang or die is done in processes of its own. Book: chapter 1, for decoding."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from threading import Thread
from types import ModuleType
from typing import Any, TypeVar

import torch
from pebble import ProcessExpired, ProcessPool

Job = TypeVar("Job")
MOST_WORKERS = 16
TASKS = 16  # batches after which a worker is replaced: decoders do not give all their memory back
BASE = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")


class _Worker(BASE.Process):  # type: ignore[name-defined]
    """A process that does not run the caller's script a second time: it is handed an empty main module."""

    def start(self) -> None:
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = script


def context(module: str) -> Any:
    """How worker processes are started: where that is possible as copies of a first one that has loaded a module."""
    if os.name == "posix":
        BASE.set_forkserver_preload([module])
    return type("WorkerContext", (type(BASE),), {"Process": _Worker})()


def end_with_parent() -> None:
    """In a worker: compute in one thread, and end as soon as the process that gives the work does, even if killed."""
    torch.set_num_threads(1)
    Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def run(
    function: Callable[..., Sequence[Any]], jobs: Sequence[Job], *arguments: Any, batch: int, timeout: float
) -> Generator[tuple[Job, Any], None, None]:
    """Have worker processes call ``function(some_jobs, *arguments)``, which gives one result for each job.

    A worker that dies, or takes longer than ``timeout`` seconds for a ``batch`` of jobs, is replaced, and those jobs
    are tried once more, each by itself.

    Yields:
        A job and its result, as they are ready; in place of the result the reason, a text, if there is none.

    Raises:
        RuntimeError: the workers do not answer.
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
            if not finished or not pool.active:
                raise RuntimeError("the worker processes do not answer; what is done is kept, start again")
            for future in finished:
                part, error = running.pop(future), future.exception()
                if error and len(part) > 1:
                    waiting += [[job] for job in part]
                elif error:
                    yield part[0], _reason(error, timeout)
                else:
                    yield from zip(part, future.result(), strict=True)
    finally:
        pool.stop()
        pool.join()


def _reason(error: BaseException, timeout: float) -> str:
    what = f"decoding failed ({type(error).__name__}: {error})"
    if isinstance(error, TimeoutError):
        what = f"decoding took longer than {timeout:g} s"
    if isinstance(error, ProcessExpired):
        what = f"the decoder died (exit code {error.exitcode})"
    return f"{what}; remove it from the list or encode it again"
