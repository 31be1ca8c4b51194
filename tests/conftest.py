"""Fixtures for running chapters; the seconds they took are printed at the end of the session."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ("data", "masking", "architecture", "pretraining", "probing", "ensemble", "tsne", "results")
HELPERS = ("config", "store", "standin", "plots")  # modules without a chapter
SECONDS: dict[str, float] = {}


def notebook_path(name: str) -> Path:
    """Where the chapter of a module is."""
    return ROOT / "book" / f"{CHAPTERS.index(name) + 1:02}_{name}.ipynb"


@pytest.fixture(scope="session")
def run_chapter() -> Callable[[str, Path], nbformat.NotebookNode]:
    """Function that executes one chapter in profile smoke, by itself, with its results kept in the given folder."""

    def run(name: str, cache: Path) -> nbformat.NotebookNode:
        path = notebook_path(name)
        assert path.is_file(), f"the chapter {path.relative_to(ROOT)} is missing"
        notebook = nbformat.read(path, as_version=4)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PICOJEPA_")}
        environment |= {"PICOJEPA_PROFILE": "smoke", "PICOJEPA_CACHE": str(cache)}
        start = time.perf_counter()
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}})
        client.execute(env=environment)
        SECONDS[f"{path.stem} ({cache.name})"] = time.perf_counter() - start
        return notebook

    return run


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of results for all chapters of the session, so that what is costly is computed once."""
    return tmp_path_factory.mktemp("shared")


def pytest_terminal_summary(terminalreporter) -> None:
    if SECONDS:
        terminalreporter.write_sep("-", "seconds per chapter, profile smoke")
        for name, seconds in SECONDS.items():
            terminalreporter.write_line(f"{seconds:7.1f}  {name}")
