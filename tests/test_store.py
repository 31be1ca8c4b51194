"""Results are computed once, under a key of inputs and code; code means the parsed source."""

import ast
import json
import shutil
import subprocess
import sys

import pytest

from picojepa import store

MODULES = sorted(path.stem for path in store.PACKAGE.glob("*.py") if path.stem != "__init__")
# Layers point one way: what a module may import.
BASE = {"config", "store"}
LAYERS = {
    "config": set(),
    "store": {"config"},
    "disk": {"config"},
    "workers": set(),
    "videos": BASE | {"clips", "workers"},
    "lists": {"clips", "config"},
    "clips": {"config"},
    "masking": {"config"},
    "data": BASE | {"clips", "disk", "lists", "standin", "videos"},
    "architecture": {"config", "masking"},
    "features": BASE | {"architecture", "clips"},
    "jepa": {"architecture", "config", "masking"},
    "published": {"architecture", "config", "jepa", "masking"},
    "pretraining": BASE | {"clips", "data", "features", "jepa", "masking", "published"},
    "probing": BASE | {"architecture", "clips", "disk", "features", "jepa", "pretraining"},
    "ensemble": BASE | {"architecture", "clips", "data", "disk", "features", "probing"},
    "tsne": BASE | {"clips", "data"},
    "weights": BASE | {"clips", "pretraining"},
    "results": BASE | {"clips", "data", "ensemble", "probing", "weights"},
}


@pytest.fixture
def package(tmp_path):
    """A copy of the sources, to be edited."""
    return shutil.copytree(store.PACKAGE, tmp_path / "picojepa", ignore=shutil.ignore_patterns("__pycache__"))


def edit(path, old, new):
    """Replace text that must occur exactly once."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {path.name}"
    path.write_text(text.replace(old, new))


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("masking", '"""Hide the same random cells of the frame in every time slice.', '"""Other words.'),
        ("masking", "# V-JEPA's two masks for every clip", "# Another comment"),
        ("masking", '"""Which tokens are hidden: tube, multi-block and causal masks.', '"""Other words.'),
        ("architecture", '"""Multi-head self-attention over all tokens of a clip', '"""Other words'),
        (
            "config",
            "def require(condition: bool, message: str) -> None:",
            "\n\n\ndef require(condition: bool, message: str) -> None:",
        ),
    ],
)
def test_editing_words_keeps_the_key(package, module, old, new):
    before = store.code_digest("pretraining", package)
    edit(package / f"{module}.py", old, new)
    assert store.code_digest("pretraining", package) == before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("pretraining", "optimizer.zero_grad()", "optimizer.zero_grad(False)"),
        ("masking", "hidden = round(ratio * cells)", "hidden = int(ratio * cells)"),  # imported
        ("jepa", "F.l1_loss", "F.mse_loss"),
        ("clips", "STD = (0.229, ", "STD = (0.23, "),  # imported by an imported module
        ("config", "patch: int = 16", "patch: int = 8"),
        ("architecture", "std=0.02", "std=0.03"),
    ],
)
def test_editing_a_formula_drops_the_key(package, module, old, new):
    before = store.code_digest("pretraining", package)
    edit(package / f"{module}.py", old, new)
    assert store.code_digest("pretraining", package) != before


def test_code_that_a_stage_does_not_use_leaves_its_key(package):
    before = store.code_digest("pretraining", package)
    edit(package / "probing.py", "0.01, 0.1, 1, 10, 100", "0.01, 0.1, 1, 10")
    assert store.code_digest("pretraining", package) == before
    assert store.code_digest("ensemble", package) != store.code_digest("ensemble")


def test_code_that_makes_the_data_is_keyed_by_what_it_made(package):
    stages = ("pretraining", "probing", "ensemble", "data")
    before = {stage: store.code_digest(stage, package) for stage in stages}
    edit(package / "standin.py", 'VERSION = "1"', 'VERSION = "1b"')
    changed = {stage for stage in stages if store.code_digest(stage, package) != before[stage]}
    assert changed == {"data"}


def test_the_copy_has_the_key_of_the_original(package):
    assert {m: store.code_digest(m, package) for m in MODULES} == {m: store.code_digest(m) for m in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_layers_point_one_way(module):
    assert store.imported_modules((store.PACKAGE / f"{module}.py").read_text()) <= LAYERS[module]


def test_layers_have_no_circle():
    assert set(LAYERS) == set(MODULES)
    below: set[str] = set()
    while len(below) < len(LAYERS):
        ready = {m for m, imports in LAYERS.items() if imports <= below} - below
        assert ready, f"a circle among {set(LAYERS) - below}"
        below |= ready


@pytest.mark.parametrize("module", MODULES)
def test_every_import_of_the_package_is_one_that_the_key_follows(module):
    for node in ast.walk(ast.parse((store.PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            assert not [a.name for a in node.names if a.name.split(".")[0] == "picojepa"], "write from picojepa import"
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "no relative imports: store.imported_modules does not see them"


def test_digest_depends_on_values_not_on_order():
    assert store.digest({"a": 1, "b": (2, 3)}) == store.digest({"b": [2, 3], "a": 1})
    assert store.digest({"a": 1}) != store.digest({"a": 2})


# ---------------------------------------------------------------- results


class Maker:
    """Writes a file and counts its calls."""

    def __init__(self):
        self.folders = []

    def __call__(self, folder):
        self.folders.append(folder)
        (folder / "value.txt").write_text("42")
        return {"fact": 1}


def test_a_result_is_computed_once_and_has_a_card(cache):
    make = Maker()
    folders = {store.result("masking.test", {"x": 1}, make) for _ in range(3)}
    (folder,) = folders
    assert len(make.folders) == 1
    assert folder.is_relative_to(cache)
    assert (folder / "value.txt").read_text() == "42"
    card = store.card(folder)
    assert (card["stage"], card["inputs"], card["fact"]) == ("masking.test", {"x": 1}, 1)
    assert card["code"] == store.code_digest("masking")
    assert {"date", "seconds", "machine", "torch"} <= card.keys()


def test_other_inputs_other_stage_or_other_code_give_other_folders(cache, monkeypatch):
    make = Maker()
    folders = [store.result("masking.test", {"x": 1}, make), store.result("masking.test", {"x": 2}, make)]
    folders += [store.result("masking.other", {"x": 1}, make)]
    monkeypatch.setattr(store, "code_digest", lambda module: "other code")
    folders += [store.result("masking.test", {"x": 1}, make)]
    assert len(set(folders)) == len(make.folders) == 4


def test_an_interrupted_make_goes_on_in_the_same_folder(cache, provoked):
    seen = []

    def make(folder):
        seen.append((folder, sorted(path.name for path in folder.iterdir())))
        (folder / f"part{len(seen)}").touch()
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.result("masking.test", {}, make)
    assert not [path for path in cache.rglob(store.CARD)], "half a result must not look finished"
    folder = store.result("masking.test", {}, make)
    assert seen[0][0] == seen[1][0]
    assert [names for _, names in seen] == [[], ["part1"]]
    assert {path.name for path in folder.iterdir()} == {"part1", "part2", store.CARD}
    provoked("Ctrl-C", "storing results")


PROCESS = """
import os, sys, time
from pathlib import Path
from picojepa import store

meeting = Path(sys.argv[1])
def make(folder):
    (meeting / f"made-{os.getpid()}").touch()
    time.sleep(0.5)
(meeting / f"here-{os.getpid()}").touch()
while len(list(meeting.glob("here-*"))) < 2:
    time.sleep(0.01)
print(store.result("masking.test", {}, make))
"""


def test_two_processes_at_once_compute_once(cache, tmp_path, provoked):
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        answers = [process.communicate(timeout=60)[0].strip() for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0]
    assert answers[0] == answers[1] != ""
    assert len(list(tmp_path.glob("made-*"))) == 1
    provoked("two runs at once", "storing results")


def test_atomic_writing_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch, provoked):
    path = tmp_path / "card.json"
    store.write_atomically(path, json.dumps({"a": 1}))

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(store.os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        store.write_atomically(path, json.dumps({"a": 2}))
    assert json.loads(path.read_text()) == {"a": 1}
    provoked("an error while a file is replaced", "storing results")
