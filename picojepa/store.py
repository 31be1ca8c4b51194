"""Results that are computed once, stored under a key of configuration, data and code, and found again.

The key of a result changes when anything that shaped it changes: the inputs (settings and a digest
of the data) or the code. Code means the parsed source, without comments and docstrings, of the
stage's module and of every picojepa module that it imports, directly or not. The modules that make the
data are left out below other stages: what they made is in the key already, as a digest of every pixel.

Book: chapter 8 prints the cards of all results.
"""

import ast
import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from picojepa.config import cache_folder

PACKAGE = Path(__file__).resolve().parent
CARD = "card.json"
DATA_MODULES = {"data", "standin"}
log = logging.getLogger(__name__)


def digest(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def parsed_source(source: str) -> str:
    """Python source as its syntax tree in text form, without comments, docstrings and positions."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def imported_modules(source: str) -> set[str]:
    """Names of the picojepa modules that a source imports, such as ``{"config", "data"}``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "picojepa":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("picojepa."):
            found.add((node.module or "").split(".")[1])
    return found


def code_digest(module: str, package: Path = PACKAGE) -> str:
    """Digest of a module's parsed source and of all picojepa modules below it.

    Args:
        module: name without package, such as ``"pretraining"``.
        package: folder with the sources.
    """
    waiting, sources = {module}, {}
    while waiting:
        name = waiting.pop()
        source = (package / f"{name}.py").read_text(encoding="utf-8")
        sources[name] = parsed_source(source)
        below = imported_modules(source) - sources.keys()
        waiting |= below if module in DATA_MODULES else below - DATA_MODULES
    return digest(sources)


def hardware() -> dict[str, Any]:
    """Processor, accelerator, thread count and versions, for run cards."""
    return {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new content, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def result(stage: str, inputs: Mapping[str, Any], make: Callable[[Path], dict[str, Any] | None]) -> Path:
    """Return the folder of a result; make the result first if it is not stored yet.

    Args:
        stage: ``"module.what"``; the code of ``module`` and of all it imports enters the key.
        inputs: everything else that shapes the result, as plain values.
        make: fills the folder it is given and may return facts for the run card. After an
            interruption it is called again with the same folder and may go on from what lies there.

    Returns:
        A finished folder; it holds ``card.json`` with the inputs, date, seconds and hardware.
    """
    key = {"stage": stage, "inputs": dict(inputs), "code": code_digest(stage.split(".")[0])}
    folder = cache_folder() / "results" / f"{stage}-{digest(key)}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.exists():  # another process made it while this one waited
            return folder
        partial = folder.with_name(folder.name + ".partial")
        partial.mkdir(exist_ok=True)
        log.info("making %s", folder.name)
        start = time.perf_counter()
        facts = make(partial) or {}
        card = {
            **key,
            "seconds": round(time.perf_counter() - start, 2),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **hardware(),
            **facts,
        }
        write_atomically(partial / CARD, json.dumps(card, indent=1, sort_keys=True))
        os.replace(partial, folder)
    return folder


def card(folder: Path) -> dict[str, Any]:
    """The run card of a stored result."""
    return json.loads((folder / CARD).read_text(encoding="utf-8"))
