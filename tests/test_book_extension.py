"""What a page's cached run depends on, and when pages are read anew."""

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbformat import v4

from tools import book_extension
from tools.book_extension import FOLDERS, checksums, end, forget, inputs, outdated, own_videos

INPUTS = (
    "picojepa/data.py",
    "standin/__init__.py",
    "evidence/studies.py",
    "book/figures/core.js",
    "data/clips.csv",
    "data/cards/a.json",
    "data/encoder/1/weights.bin",
    "benchmarks/gpu.json",
    "requirements.lock",
)
NO_INPUTS = ("data/cache/a.json", "data/kinetics/a.mp4", "picojepa/__pycache__/data.pyc", "benchmarks/bench.py")
NOTEBOOKS = ("01_data", "02_masking", "committees")


def write(path: Path, text: str) -> None:
    """A file, and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A project of three notebooks and of files of every kind. The environment names nothing."""
    for name in ("PICOJEPA_PROFILE", "PICOJEPA_CACHE", "PICOJEPA_DATA"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "project"
    for name in (*INPUTS, *NO_INPUTS):
        write(root / name, "as it was\n")
    for name in NOTEBOOKS:
        cells = [{"cell_type": "code", "source": ["1 + 1"]}, {"cell_type": "markdown", "source": ["prose"]}]
        write(root / f"book/{name}.ipynb", json.dumps({"cells": cells}))
    write(root / "tools/book_pages.py", "MEND = 1\n")
    return root


@pytest.fixture
def executed(tree):
    """A cache that holds a run of each notebook."""
    folder = tree / "_build/.jupyter_cache"
    forget(folder, set(checksums(tree)))
    for name in NOTEBOOKS:
        notebook = v4.new_notebook(cells=[v4.new_code_cell(f"'{name}'")])
        bundle = CacheBundleIn(notebook, str(tree / f"book/{name}.ipynb"))
        get_cache(folder).cache_notebook_bundle(bundle, check_validity=False)
    return folder


def kept(tree: Path, executed: Path) -> list[str]:
    """Notebooks whose runs another build finds."""
    forget(executed, set(checksums(tree)))
    return sorted(Path(record.uri).stem for record in get_cache(executed).list_cache_records())


@pytest.mark.parametrize("path", [*INPUTS, "evidence/added.py", "data/added/b.txt", "benchmarks/added.json"])
def test_every_page_is_run_again_when_an_input_changes(tree, executed, path):
    assert kept(tree, executed) == list(NOTEBOOKS)
    write(tree / path, "changed\n")
    assert kept(tree, executed) == []


def test_every_page_is_run_again_when_an_input_is_gone(tree, executed):
    (tree / "data/cards/a.json").unlink()
    assert kept(tree, executed) == []


@pytest.mark.parametrize("path", NO_INPUTS)
def test_what_is_made_on_the_way_runs_nothing_again(tree, executed, path):
    write(tree / path, "changed\n")
    assert kept(tree, executed) == list(NOTEBOOKS)


@pytest.mark.parametrize("name", ["PICOJEPA_PROFILE", "PICOJEPA_CACHE", "PICOJEPA_ANYTHING"])
def test_every_page_is_run_again_when_the_environment_changes(tree, executed, monkeypatch, name):
    monkeypatch.setenv(name, "another")
    assert kept(tree, executed) == []


def test_every_page_is_run_again_under_another_python(tree, executed, monkeypatch):
    monkeypatch.setattr(sys, "version", "3.99")
    assert kept(tree, executed) == []


@pytest.mark.parametrize(
    ("old", "new", "left"), [("1 + 1", "1 + 2", ["01_data", "02_masking"]), ("prose", "other prose", list(NOTEBOOKS))]
)
def test_code_of_a_notebook_counts_for_those_after_it(tree, executed, old, new, left):
    path = tree / "book/02_masking.ipynb"
    path.write_text(path.read_text().replace(old, new))
    assert kept(tree, executed) == left


def test_a_notebook_that_is_gone_counts_for_those_after_it(tree, executed):
    (tree / "book/01_data.ipynb").unlink()
    assert kept(tree, executed) == ["01_data"]


@pytest.mark.parametrize("noted", ["", "(inputs) half of a li"])
def test_a_cache_without_whole_checksums_is_not_trusted(tree, executed, noted):
    (executed / book_extension.MARK).write_text(noted)
    assert kept(tree, executed) == []


def test_all_that_notebooks_import_from_the_project_is_an_input():
    found = set()
    for path in (ROOT / "book").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        found |= set(re.findall(r"^\s*(?:from|import) (\w+)", code, re.MULTILINE))
    assert {name for name in found if (ROOT / name).is_dir()} <= set(FOLDERS)
    assert "picojepa" in found


def test_the_inputs_of_this_book_are_found():
    found = {path.relative_to(ROOT).as_posix() for path in inputs(ROOT)}
    assert {"picojepa/__init__.py", "evidence/studies.py", "standin/__init__.py", "benchmarks/cpu.json"} <= found
    assert {"book/figures/core.css", "data/claims.csv", "data/paper/table1.csv", "requirements.lock"} <= found


def own(folder: Path) -> None:
    """Videos on which every chapter could run, and their list."""
    rows = [(f"{label}/{number}.mp4", label) for label in ("a", "b") for number in range(10)]
    for name, _ in rows:
        write(folder / name, "a video")
    write(folder / "list.csv", "path,label\n" + "\n".join(map(",".join, rows)))


@pytest.mark.parametrize("named", ["", "list.csv"])
def test_every_page_is_run_again_with_ones_own_videos_and_when_they_change(
    tree, executed, tmp_path, monkeypatch, named
):
    own(tmp_path / "own")
    monkeypatch.setenv("PICOJEPA_DATA", str(tmp_path / "own" / named))
    lines = [set(checksums(tree)), set(checksums(tree))]
    os.utime(tmp_path / "own/a/3.mp4", (0, 0))
    lines.append(set(checksums(tree)))
    assert lines[0] == lines[1] != lines[2]
    assert kept(tree, executed) == []


@pytest.mark.parametrize(
    ("named", "message"), [("nowhere", "nowhere: nothing there"), ("", "no videos in sub-folders; make one")]
)
def test_a_build_is_refused_in_one_line(tmp_path, monkeypatch, named, message):
    monkeypatch.setenv("PICOJEPA_DATA", str(tmp_path / named))
    with pytest.raises(SystemExit, match=f"^PICOJEPA_DATA: .*{message}"):
        own_videos()
    monkeypatch.delenv("PICOJEPA_DATA")
    assert own_videos() == []


@pytest.fixture
def app(tree, executed, monkeypatch):
    """A build of two pages, one of them a notebook that took 2.6 seconds."""
    monkeypatch.setattr(book_extension, "checksums", lambda: checksums(tree))
    runs = {"01_data": {"runtime": 2.6}, "index": None}
    monkeypatch.setattr(book_extension.NbMetadataCollector, "get_exec_data", lambda env, page: runs[page])
    config = SimpleNamespace(execution_cache_path=str(executed))
    env = SimpleNamespace(found_docs={"01_data", "index"}, mystnb_config=config)
    (tree / "_build/.doctrees").mkdir()
    return SimpleNamespace(
        env=env, doctreedir=str(tree / "_build/.doctrees"), outdir=str(tree / "_build/html"), _warncount=0
    )


def read_anew(app) -> int:
    """How many pages a build reads although they did not change."""
    return len(outdated(app, app.env, set(), set(), set()))


def test_pages_are_read_anew_after_a_build_that_did_not_end_well(app):
    assert read_anew(app) == 2
    end(app, None)
    assert read_anew(app) == 0  # and is interrupted
    assert read_anew(app) == 2
    app._warncount = 1
    end(app, None)
    assert read_anew(app) == 2
    app._warncount = 0
    end(app, ValueError("a notebook failed"))
    assert read_anew(app) == 2


@pytest.mark.parametrize("path", ["picojepa/data.py", "book/01_data.ipynb", "tools/book_pages.py"])
def test_pages_are_read_anew_when_anything_changes_even_during_a_build(tree, app, path):
    read_anew(app)
    (tree / path).write_text((tree / path).read_text().replace("1", "2").replace("as it was", "changed"))
    end(app, None)
    assert read_anew(app) == 2


def test_the_extension_itself_runs_no_notebook_again(tree, executed):
    (tree / "tools/book_pages.py").write_text("MEND = 2\n")
    assert kept(tree, executed) == list(NOTEBOOKS)


def test_a_build_that_ended_well_says_what_pages_cost(app, monkeypatch):
    said = []
    monkeypatch.setattr(book_extension.logger, "info", lambda text, *values: said.append(text % values))
    read_anew(app)
    end(app, ValueError())
    assert said == []
    end(app, None)
    assert re.findall(r"^(\S.*?)  +(\d+) s$", said[0], re.MULTILINE) == [("01_data", "3"), ("all pages", "3")]
