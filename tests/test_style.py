"""The house style, as far as a program can see it."""

import ast
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import APPENDICES, CHAPTERS, GUIDE, HELPERS, ROOT, notebook_path

NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
NOT_OURS = {
    ".git",
    ".venv",
    "_build",
    "lab",
    "cache",
    "kinetics",
    "__pycache__",
    ".ipynb_checkpoints",
    "picojepa.egg-info",
}
LARGE = {"book/third_party/mathjax/tex-chtml-full.js"}
MODULES = sorted((ROOT / "picojepa").glob("*.py"))
ROOMS = ("book", "picojepa", "footage", "standin", "evidence", "benchmarks", "data", "tests", "tools")
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def our_files() -> list[Path]:
    """Every file of the project, without what is built, cached or installed."""
    found = []
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if path.is_file() and not (NOT_OURS & set(parts) or any(part.endswith("_cache") for part in parts)):
            found.append(path)
    return found


def test_one_name_in_four_places():
    assert sorted(path.name for path in NOTEBOOKS) == sorted(
        notebook_path(name).name for name in (*CHAPTERS, *APPENDICES)
    )
    assert {path.stem for path in MODULES} - {"__init__"} == {*CHAPTERS, *HELPERS}
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    for name in CHAPTERS:
        assert (ROOT / "tests" / f"test_{name}.py").is_file(), f"tests/test_{name}.py is missing"
        places = (f"book/{notebook_path(name).name}", f"picojepa/{name}.py", f"tests/test_{name}.py")
        assert any(all(place in row for place in places) for row in rows), f"README: no row names {places}"


def test_every_room_has_a_line_in_the_readme():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {line.split("/")[0] for line in listed.splitlines() if "/" in line}
    assert {name for name in folders if not name.startswith(".")} == {*ROOMS}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("\n## Where things are\n")[1].split("\n## ")[0].splitlines()
    lines = {name: [line for line in section if re.match(rf"(\||-) \[`{name}/?`\]\({name}\)", line)] for name in ROOMS}
    assert {name: len(found) for name, found in lines.items()} == dict.fromkeys(ROOMS, 1)


# ---------------------------------------------------------------- a thin house


def lines_of(*paths: Path) -> dict[str, int]:
    """How many lines files have."""
    return {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}


def functions_of(path: Path) -> dict[str, int]:
    """How many lines, with decorators and docstring, each function of a file has."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    first = {node: min(part.lineno for part in (node, *node.decorator_list)) for node in functions}
    return {f"{path.stem}.{node.name}, line {node.lineno}": node.end_lineno - first[node] + 1 for node in functions}


def test_the_package_is_thin():
    lines = lines_of(*(path for path in our_files() if path.is_relative_to(ROOT / "picojepa")))
    assert sum(lines.values()) <= 3000
    assert {name: number for name, number in lines.items() if number > 320} == {}


def test_the_tools_are_thin():
    scripts = [path for path in our_files() if path.parent == ROOT / "tools" and path.suffix in {".py", ".sh"}]
    assert 0 < sum(lines_of(*scripts).values()) <= 2000


def test_functions_of_the_package_are_short():
    lengths = {name: lines for path in MODULES for name, lines in functions_of(path).items()}
    assert {name: lines for name, lines in lengths.items() if lines > 60} == {}
    long = {name: lines for name, lines in lengths.items() if lines > 50}
    assert len(long) <= 2, long


def test_lines_of_a_function_are_counted(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        '@first\n@second\ndef one():\n    """Word."""\n\n    async def two():\n        pass\n\n    return 1\n'
    )
    assert functions_of(path) == {"a.one, line 3": 9, "a.two, line 6": 2}


def test_the_package_imports_no_room_that_stands_on_it():
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {name.split(".")[0] for name in names}
    assert {"torch", "picojepa", "standin"} <= found, "a search that finds nothing would test nothing"
    assert not found & {"figures", "evidence", "benchmarks", "tools", "tests"}


# ---------------------------------------------------------------- notebooks and files


def test_the_table_of_contents_names_every_notebook():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    named = [page["file"] for chapter in chapters for page in (chapter, *chapter.get("sections", ()))]
    numbered = sorted(notebook_path(name).stem for name in (*CHAPTERS, GUIDE))
    notebooks = [*numbered, *(name for name in APPENDICES if name != GUIDE)]
    assert [name for name in named if name in {path.stem for path in NOTEBOOKS}] == notebooks
    assert (ROOT / "book" / "_toc.yml").read_text() == (ROOT / "_toc.yml").read_text()


def test_notebooks_are_stripped():
    command = [sys.executable, "-m", "nbstripout", "--keep-id", "--verify", "--extra-keys", "metadata.language_info"]
    run = subprocess.run([*command, *map(str, NOTEBOOKS)], capture_output=True, text=True)
    assert run.returncode == 0, "run nbstripout with the options of .pre-commit-config.yaml\n" + run.stdout + run.stderr


@by_name
def test_notebook_is_valid_and_its_cells_have_names(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    nbformat.validate(notebook)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids), "cell ids must be unique"


@by_name
def test_cells_are_short_and_prose_stands_between(path):
    cells = nbformat.read(path, as_version=4).cells
    for cell in cells:
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert cell.cell_type != "code" or len(lines) <= 25, f"{len(lines)} lines of code in cell {cell.id}"
    code = [cell.cell_type == "code" for cell in cells]
    for (one, two), three in zip(pairwise(code), code[2:], strict=False):
        assert not (one and two and three), "three code cells in a row without prose"


def test_no_file_is_large():
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in our_files()}
    large = {name for name, size in sizes.items() if size > 500_000}
    assert {name for name in large if not name.startswith("data/encoder/")} == LARGE
    assert len(large - LARGE) <= 1, "one encoder comes with the book"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_package_does_not_print(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    lines = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert not lines, f"print() in {path.name}, lines {lines}: use logging"
