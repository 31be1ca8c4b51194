"""The whole book on folders of one's own videos: uneven, few, of phones; and of twelve classes."""

import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import CHAPTERS, REAL, notebook_path
from nbclient import NotebookClient
from test_chapters import assert_quiet, glued, outputs, quotable
from test_own_videos import write_videos

NAMES = ("跑步", "走路", "جري", "🤸", "Übung", "Ba$$in", "a_b^c", "<b>", "{x}", "50 %", 'it\'s "so"', "class L")


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Videos of three classes, uneven, one of them alone: real ones of phones where they are, else made."""
    folder = tmp_path_factory.mktemp("own") / "my videos"
    if not (REAL / "skateboard").is_dir():
        return write_videos(folder, {"down": 5, "along": 4, "lone": 1})
    for kind, turned, count in (("Kickflip", "Kickflip90.mov", 4), ("Ollie", "Ollie33.mov", 3)):
        small = sorted((REAL / "skateboard" / kind).iterdir(), key=lambda p: p.stat().st_size)
        (folder / kind).mkdir(parents=True)
        for path in (*small[:count], REAL / "skateboard" / kind / turned):
            shutil.copy(path, folder / kind)
    (folder / "lone").mkdir()
    shutil.copy(small[count], folder / "lone")
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Three videos of each of twelve classes, with names in many scripts and of signs that mean something elsewhere."""
    return write_videos(tmp_path_factory.mktemp("own") / "twelve", dict.fromkeys(NAMES, 3))


@pytest.fixture(scope="module")
def run_with_data(tmp_path_factory):
    """Function that executes a chapter on a folder, in one kernel for all; the libraries are imported once.

    Names are not kept. That each chapter runs in a kernel of its own is another test's matter.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PICOJEPA_")}
    environment |= {"PICOJEPA_PROFILE": "smoke", "PICOJEPA_CACHE": str(tmp_path_factory.mktemp("cache"))}
    environment["OMP_NUM_THREADS"] = "1"  # tiny networks; on a busy machine teams wait for each other
    book = notebook_path("data").parent
    client = NotebookClient(nbformat.v4.new_notebook(), timeout=600, resources={"metadata": {"path": str(book)}})

    def run(name: str, folder: Path) -> nbformat.NotebookNode:
        start = [nbformat.v4.new_code_cell(line) for line in ("%reset -f", f"%env PICOJEPA_DATA={folder}")]
        notebook = nbformat.read(notebook_path(name), as_version=4)
        client.nb.cells = [*start, *notebook.cells]
        for number, cell in enumerate(client.nb.cells):
            client.execute_cell(cell, number)
        return notebook

    with client.setup_kernel(env=environment):
        yield run


def read(notebook) -> str:
    """All that a notebook shows as text."""
    found = outputs(notebook)
    return "\n".join(str(o.get("text", "")) + "".join(map(str, o.get("data", {}).values())) for o in found)


RUNS = [("uneven", name) for name in CHAPTERS]
RUNS += [("many", name) for name in ("data", "probing", "ensemble", "tsne", "results")]  # those that show names


@pytest.mark.parametrize(("which", "name"), RUNS)
def test_a_chapter_runs_on_ones_own_videos(which, name, run_with_data, request):
    folder = request.getfixturevalue(which)
    notebook = run_with_data(name, folder)
    assert_quiet(notebook)
    for key, record in glued(notebook).items():
        assert quotable(record), f"{key} is glued as {record}"
        assert not re.search(r"\bnan\b|\binf\b", record.get("text/plain", "")), f"{key} is glued as {record}"
    assert f"not the stand-in but {folder.name!r}" in read(notebook).replace("\\'", "'")
    told = {"probing-told", "ensemble-told", "results-p1-verdict", "results-live-verdict"}  # of two videos, or twelve
    for key in told & set(glued(notebook)):
        assert glued(notebook)[key]["text/plain"].startswith("'cannot be told here"), key
