"""Records for the book: measurements beside the machine, the versions and the code that they were made with."""

import json
import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from picojepa.machine import fast_bfloat16, hardware
from picojepa.store import ROOT, write_atomically


def processor() -> str:
    known = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*: (.+)$", known.read_text(), re.MULTILINE) if known.exists() else None
    return named[1] if named else platform.processor() or platform.machine()


def said(*command: str) -> str:
    """What a program prints; nothing where it is missing."""
    found = shutil.which(command[0])
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip() if found else ""


def surroundings() -> dict[str, Any]:
    """Hardware, versions, and which code it was: `changed` means that some Python file differs from the commit."""
    here, ffmpeg = hardware(), re.search(r"ffmpeg version (\S+)", said("ffmpeg", "-version"))
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {
            "processor": processor(),
            "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
            "threads": torch.get_num_threads(),
            "accelerator": here["accelerator"],
            "memory_gb": psutil.virtual_memory().total / 1e9,
            "fast_bfloat16": fast_bfloat16(),
        },
        "versions": {
            "python": here["python"],
            **{name: metadata.version(name) for name in ("torch", "torchcodec", "numpy")},
            "ffmpeg": ffmpeg[1] if ffmpeg else "unknown",
        },
        "git": {
            "commit": said("git", "rev-parse", "HEAD") or "unknown",
            "changed": bool(said("git", "status", "--porcelain", "--", "*.py")),
        },
    }


def write(path: Path, found: dict[str, Any]) -> None:
    """Write a record, numbers with five digits."""
    rounded = json.loads(json.dumps(found), parse_float=lambda text: float(f"{float(text):.5g}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(rounded, indent=1) + "\n")
