"""Say what is installed, decode one clip, and name what is wrong and how to mend it: ``make doctor``."""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("torch", "torchcodec", "numpy", "pandas", "scikit-learn", "matplotlib", "jupyter-book", "Sphinx", "jupyterlab")
INSTALL_FFMPEG = (
    "Debian: sudo apt-get install ffmpeg; conda: conda install -c conda-forge ffmpeg; macOS: brew install ffmpeg"
)


class Trouble(Exception):
    """What is wrong, and how to mend it."""


def python() -> str:
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        raise Trouble("Python must be 3.11, 3.12 or 3.13", "rm -rf .venv; make PYTHON=/path/to/python3.11 setup")
    return f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores"


def installed(name: str) -> str:
    """Version of a package; empty if it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def packages() -> str:
    locked = re.findall(r"^([^#\s=]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    found = {name: installed(name) for name, _ in locked}  # some are needed on another system or Python only
    wrong = [f"{name} {found[name]} (locked: {v})" for name, v in locked if found[name].split("+")[0] not in ("", v)]
    wrong += [f"{name} is missing" for name in ("picojepa", *SHOWN) if not installed(name)]
    if wrong:
        raise Trouble("; ".join(wrong), "rm -rf .venv; make setup")
    return ", ".join(f"{name} {installed(name)}" for name in SHOWN)


def ffmpeg() -> str:
    if not shutil.which("ffmpeg"):
        raise Trouble("the command ffmpeg is not found", INSTALL_FFMPEG)
    run = subprocess.run(["ffmpeg", "-encoders"], capture_output=True, text=True)
    if "libx264" not in run.stdout:
        raise Trouble("this FFmpeg has no encoder libx264, so no video for the pages can be made", INSTALL_FFMPEG)
    return run.stderr.split(" Copyright")[0]


def decoding() -> str:
    clips = sorted((ROOT / "data" / "clips").rglob("*.mp4"))
    if not clips:
        raise Trouble("there is no video in data/clips", "git checkout -- data/clips (or clone again)")
    path = clips[0].relative_to(ROOT)
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        first = str(error).strip().split("\n")[0]
        raise Trouble(f"torchcodec does not load FFmpeg's libraries: {first}", INSTALL_FFMPEG) from error
    try:
        frames = VideoDecoder(str(clips[0]))[:]
    except (RuntimeError, ValueError) as error:
        raise Trouble(f"{path} does not decode: {error}", f"git checkout -- {path}") from error
    return f"{path}: {tuple(frames.shape)} (frames, channels, height, width)"


def settings() -> str:
    from picojepa.config import cache_folder, settings

    try:
        chosen = settings()
    except ValueError as error:
        raise Trouble(str(error), "unset the variable, or give it one of these names") from error
    folder = cache_folder()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(there, os.W_OK):
        raise Trouble(f"{there} can not be written", "set PICOJEPA_CACHE to a folder of yours")
    free = shutil.disk_usage(there).free / 1e9
    if free < 2:
        raise Trouble(f"only {free:.1f} GB are free at {there}", "make room, or set PICOJEPA_CACHE to another disk")
    return f"profile {chosen.profile}, recipe {chosen.recipe}, cache {folder} ({free:.0f} GB free)"


def main() -> int:
    """Run all checks; return 1 if one of them found trouble."""
    checks, troubles = (python, packages, ffmpeg, decoding, settings), 0
    for check in checks:
        try:
            print(f"ok     {check.__name__}: {check()}")
            continue
        except Trouble as error:
            wrong, remedy = error.args
        except Exception as error:  # a doctor reports whatever happens and goes on
            wrong, remedy = f"{type(error).__name__}: {error}", "make setup"
        troubles += 1
        print(f"WRONG  {check.__name__}: {wrong}\n       to mend it: {remedy}")
    print(f"{troubles} of {len(checks)} checks found something wrong." if troubles else "All is well.")
    return int(troubles > 0)


if __name__ == "__main__":
    sys.exit(main())
