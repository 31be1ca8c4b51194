"""Where things are kept, and results that are computed once, stored under a key and found again.

The key of a result is made of its stage, the stage's version and its inputs, all plain values: the same on every
Python and machine. The version is a number beside the stage's code. It is raised when the stage gives other numbers
than before; tests/test_golden.py fails where that was forgotten.

Book: chapter 8 prints the cards of all results.
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
BUNDLED = DATA / "encoder"  # results that come with the book
ADDED: dict[str, Any] = {"added": True}  # marks a setting that `plain` leaves out while it has its default
CARD, CLOCK = "card.json", "clock.json"

ROOM = "make room, or name another folder in PICOJEPA_CACHE; what is done is kept"
PLACE = "name a folder that can be written in PICOJEPA_CACHE"
REMEDIES = {errno.ENOSPC: ROOM, errno.EDQUOT: ROOM, errno.EROFS: PLACE, errno.EACCES: PLACE, errno.EPERM: PLACE}


def cache_folder() -> Path:
    """Where videos, decoded clips and results are kept: ``PICOJEPA_CACHE``, else ``data/cache`` of the repository.

    A package that was installed without the repository has the user's cache folder.
    """
    installed = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "picojepa")
    named = os.environ.get("PICOJEPA_CACHE") or (DATA / "cache" if DATA.is_dir() else installed)
    return Path(named).expanduser().resolve()


def cache_limit() -> float:
    """Most gigabytes of disk that the decoded clips of one list may take (``PICOJEPA_CACHE_GB``, default 60)."""
    return float(os.environ.get("PICOJEPA_CACHE_GB") or 60)


def data_file(name: str) -> Path:
    """A file of the repository's folder ``data``; FileNotFoundError in a package installed without the repository."""
    if not (DATA / name).exists():
        raise FileNotFoundError(f"{DATA / name} is missing; it comes with the book's repository: work in a clone of it")
    return DATA / name


@contextmanager
def explained() -> Iterator[None]:
    """A block, or a decorated function, whose OSError of a full or protected disk holds the path and the remedy."""
    try:
        yield
    except OSError as error:
        remedy, said = REMEDIES.get(error.errno or 0), error.strerror or ""
        if not remedy or remedy in said:
            raise
        raise OSError(error.errno, f"{said}; {remedy}", error.filename or str(cache_folder())) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old or the new content, never a part; an OSError holds the path."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, one entry a line, with sorted keys."""
    write_atomically(path, json.dumps(value, indent=1, sort_keys=True))


def read_json_lines(path: Path) -> list[Any]:
    """The values of a file with one JSON value a line; a line that was cut off by a kill does not count."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def as_json_lines(values: list[Any]) -> str:
    """Text for `read_json_lines`."""
    return "".join(json.dumps(value) + "\n" for value in values)


@dataclass(frozen=True)
class Stage:
    """A kind of result."""

    name: str  # module.what
    version: int  # of the code that makes it; another version gives other numbers


@dataclass
class Result:
    """A result inside the block of `result`."""

    folder: Path  # where it is, or while it is missing, where to write it
    missing: bool  # whether the block has to make it
    facts: dict[str, Any] = field(default_factory=dict)  # for its card, beside stage, inputs, seconds and hardware


def digest(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def plain(config: Any) -> dict[str, Any]:
    """A settings dataclass as plain values for keys.

    A field that is added later, marked by ``field(default=..., metadata=ADDED)``, is left out while it has
    its default: so what was stored before it keeps its key.
    """
    held = {f.name: getattr(config, f.name) for f in fields(config)}
    kept = {f.name for f in fields(config) if not (f.metadata.get("added") and held[f.name] == f.default)}
    return {name: plain(value) if is_dataclass(value) else value for name, value in held.items() if name in kept}


def name_of(stage: Stage, inputs: Mapping[str, Any]) -> str:
    """Name of a result's folder: the stage and the key."""
    return f"{stage.name}-{digest({'stage': stage.name, 'version': stage.version, 'inputs': dict(inputs)})}"


def found(stage: Stage, inputs: Mapping[str, Any]) -> Path | None:
    """The folder of a finished result, in the cache or among those that come with the book; None: there is none."""
    name = name_of(stage, inputs)
    places = (cache_folder() / "results" / name, BUNDLED / name)
    return next((folder for folder in places if (folder / CARD).is_file()), None)


@contextmanager
def result(stage: Stage, inputs: Mapping[str, Any]) -> Iterator[Result]:
    """Find a result, or have it made in the block from its inputs, all that shapes it, as plain values.

    ::

        with store.result(STAGE, inputs) as result:
            if result.missing:
                ...  # write files into result.folder
        read(result.folder)  # the finished one, with its card

    After an interruption the next block is given the same folder and may go on from what lies there. Of several
    processes one makes the result while the others wait. OSError: the disk is full or cannot be written.
    """
    if folder := found(stage, inputs):
        yield Result(folder, missing=False)
        return
    folder = cache_folder() / "results" / name_of(stage, inputs)
    with explained():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if folder.exists():  # another process made it while this one waited
                yield Result(folder, missing=False)
                return
            made = Result(folder.with_name(folder.name + ".partial"), missing=True)
            made.folder.mkdir(exist_ok=True)
            before, start = _start_clock(made.folder), time.perf_counter()
            yield made
            seconds = round(before + time.perf_counter() - start, 2)
            write_json(made.folder / CARD, _card(stage, inputs, seconds) | made.facts)
            (made.folder / CLOCK).unlink()
            made.folder = made.folder.rename(folder)


def _start_clock(folder: Path) -> float:
    """Seconds that interrupted calls have worked in a folder: each until it wrote there for the last time."""
    clock, seconds = folder / CLOCK, 0.0
    if clock.exists():
        last = json.loads(clock.read_text(encoding="utf-8"))
        end = max(path.stat().st_mtime for path in folder.iterdir())
        seconds = last["seconds"] + max(0.0, end - last["start"])
    write_json(clock, {"seconds": seconds, "start": time.time()})
    return seconds


def _card(stage: Stage, inputs: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    from picojepa.machine import hardware  # here, so that keys need no PyTorch

    made = {"stage": stage.name, "version": stage.version, "inputs": dict(inputs), "seconds": seconds}
    return made | {"date": datetime.now(UTC).isoformat(timespec="seconds")} | hardware()


def card(folder: Path) -> dict[str, Any]:
    """The run card of a stored result."""
    return json.loads((folder / CARD).read_text(encoding="utf-8"))
