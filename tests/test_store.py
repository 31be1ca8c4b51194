"""Results are made once and found again, whatever interrupts; modules import what stands below them."""

import ast
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, fill, remount

from picojepa import store
from picojepa.store import Stage

STAGE = Stage("masking.test", 3)
FULL = "No space left on device; make room, or name another folder in PICOJEPA_CACHE; what is done is kept: '{}'"
READ_ONLY = "Read-only file system; name a folder that can be written in PICOJEPA_CACHE: '{}'"

# Layers point one way: what a module may import, from below to above.
LAYERS = {
    "machine": set(),
    "stats": set(),
    "masking": set(),
    "clips": set(),
    "store": {"machine"},
    "architecture": {"machine", "masking"},
    "spreading": set(),
    "fitting": {"machine", "masking", "spreading"},
    "config": {"architecture", "clips", "fitting", "masking"},
    "data": {"clips", "config", "store"},
    "features": {"architecture", "clips", "config", "machine"},
    "jepa": {"architecture", "config", "fitting", "machine", "masking", "spreading"},
    "published": {"architecture", "config", "jepa", "machine", "masking"},
    "checkpoints": {"clips", "config", "features", "fitting", "jepa", "machine", "store"},
    "pretraining": {"checkpoints", "clips", "config", "data", "fitting", "jepa", "machine", "masking", "published"}
    | {"store"},
    "probing": {"architecture", "clips", "config", "features", "fitting", "machine", "store"},
    "ensemble": {"architecture", "clips", "config", "data", "features", "fitting", "machine", "probing"} | {"store"},
    "tsne": {"clips", "data"},
    "results": {"clips", "config", "ensemble", "probing", "stats", "store"},
    "classify": {"architecture", "config", "data", "ensemble", "features", "machine", "pretraining", "probing", "stats"}
    | {"store"},
}
OTHER_ROOMS = {"config": {"standin"}, "data": {"footage", "standin"}, "results": {"footage"}, "classify": {"footage"}}
MODULES = sorted(path.stem for path in (ROOT / "picojepa").glob("*.py") if path.stem != "__init__")


# ---------------------------------------------------------------- layers


def imports(module: str) -> list[tuple[int, str, str]]:
    """What a module imports, as (dots of a relative import, ``picojepa.masking`` for instance, name)."""
    found = []
    for node in ast.walk(ast.parse((ROOT / "picojepa" / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.level, node.module or "", alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize("module", MODULES)
def test_layers_point_one_way(module):
    used, rooms = set(), set()
    for dots, source, name in imports(module):
        assert dots == 0, "no relative imports"
        room, _, rest = source.partition(".")
        if room == "picojepa":
            used |= {rest.partition(".")[0] or name} & set(MODULES)
        elif (ROOT / room).is_dir() or (ROOT / "book" / room).is_dir():
            rooms.add(room)
    assert used <= LAYERS[module]
    assert rooms <= OTHER_ROOMS.get(module, set())


def test_layers_have_no_circle():
    assert set(LAYERS) == set(MODULES)
    below: set[str] = set()
    for module, used in LAYERS.items():
        assert used <= below, f"{module} imports what stands above it: {used - below}"
        below.add(module)


# ---------------------------------------------------------------- results


def made(stage: Stage = STAGE, inputs: dict | None = None, log: list | None = None) -> Path:
    """A result with one file, made or found; a list gets an entry for each time that it is made."""
    with store.result(stage, inputs or {}) as result:
        if result.missing:
            (result.folder / "value.txt").write_text("42")
            result.facts["fact"] = 1
            (log if log is not None else []).append(result.folder)
    return result.folder


def test_a_result_is_made_once_and_has_a_card(cache):
    log = []
    (folder,) = {made(inputs={"x": 1}, log=log) for _ in range(3)}
    assert len(log) == 1
    assert folder == store.found(STAGE, {"x": 1}) == cache / "results" / store.name_of(STAGE, {"x": 1})
    assert {path.name for path in folder.iterdir()} == {"value.txt", store.CARD}
    card = store.card(folder)
    assert (card["stage"], card["version"], card["inputs"], card["fact"]) == ("masking.test", 3, {"x": 1}, 1)
    assert 0 <= card["seconds"] < 60
    assert {"date", "machine", "accelerator", "python", "torch"} <= card.keys()


def test_other_inputs_another_stage_or_version_give_other_folders(cache):
    stages = (STAGE, Stage("masking.other", 3), Stage("masking.test", 4))
    assert store.found(STAGE, {}) is None
    folders = {made(stage, inputs) for stage in stages for inputs in ({}, {"x": 1}, {"x": 2})}
    assert len(folders) == 9


def test_a_result_that_comes_with_the_book_is_found(cache, tmp_path, monkeypatch):
    ours = made(inputs={"x": 1})
    monkeypatch.setattr(store, "BUNDLED", tmp_path / "book")
    bundled = shutil.copytree(ours, tmp_path / "book" / ours.name)
    assert made(inputs={"x": 1}) == ours, "what was made here comes first"
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path / "empty"))
    log = []
    assert made(inputs={"x": 1}, log=log) == bundled
    assert log == []
    assert not (tmp_path / "empty").exists()
    assert made(inputs={"x": 2}).is_relative_to(tmp_path / "empty")
    (bundled / store.CARD).unlink()
    assert made(inputs={"x": 1}).is_relative_to(tmp_path / "empty"), "without a card it is not finished"


# ---------------------------------------------------------------- interruptions


def test_an_interrupted_block_goes_on_in_the_same_folder(cache, provoked):
    seen = []
    for _ in range(3):
        try:
            with store.result(STAGE, {}) as result:
                seen.append((result.folder, sorted(path.name for path in result.folder.glob("part*"))))
                (result.folder / f"part{len(seen)}").touch()
                if len(seen) < 3:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert store.found(STAGE, {}) is None, "half a result must not look finished"
            assert not list(cache.rglob(store.CARD))
    assert len({folder for folder, _ in seen}) == 1
    assert [names for _, names in seen] == [[], ["part1"], ["part1", "part2"]]
    assert {path.name for path in result.folder.iterdir()} == {"part1", "part2", "part3", store.CARD}
    provoked("Ctrl-C", "storing results", 2)


def test_seconds_of_interrupted_blocks_add_up(cache):
    for seconds in (100, 30, None):
        try:
            with store.result(STAGE, {}) as result:
                if seconds:  # the last sign of life, by the clock of the files
                    last = json.loads((result.folder / store.CLOCK).read_text())["start"] + seconds
                    (result.folder / "part").touch()
                    os.utime(result.folder / "part", (last, last))
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
    assert store.card(result.folder)["seconds"] == pytest.approx(130, abs=5), "and the moment that the last one took"


KILLED = """
import sys, time
from picojepa import store

with store.result(store.Stage("masking.test", 3), {}) as result:
    time.sleep(0.4)
    (result.folder / "part1").touch()
    print("here", flush=True)
    time.sleep(600)
"""


def test_after_kill_9_the_next_block_goes_on_and_its_seconds_count(cache, provoked):
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    with store.result(STAGE, {}) as result:
        assert result.missing
        assert (result.folder / "part1").exists()
    assert 0.3 < store.card(result.folder)["seconds"] < 30
    assert not (result.folder / store.CLOCK).exists()
    provoked("kill -9", "storing results")


PROCESS = """
import os, sys, time
from pathlib import Path
from picojepa import store

meeting = Path(sys.argv[1])
(meeting / f"here-{os.getpid()}").touch()
while len(list(meeting.glob("here-*"))) < 2:
    time.sleep(0.01)
with store.result(store.Stage("masking.test", 3), {}) as result:
    if result.missing:
        (meeting / f"made-{os.getpid()}").touch()
        time.sleep(0.5)
print(result.folder)
"""


def test_of_two_processes_at_once_one_makes_the_result_and_one_waits(cache, tmp_path, provoked):
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        answers = [process.communicate(timeout=120)[0].strip() for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0]
    assert answers == [str(store.found(STAGE, {}))] * 2
    assert len(list(tmp_path.glob("made-*"))) == 1
    provoked("two runs at once", "storing results")


# ---------------------------------------------------------------- disks and files


@pytest.mark.parametrize("number", store.REMEDIES)
def test_errors_of_the_disk_are_explained_once_with_the_path(cache, number):
    with pytest.raises(OSError, match="PICOJEPA_CACHE") as caught, store.explained(), store.result(STAGE, {}):
        raise OSError(number, os.strerror(number), "/some/file")
    assert caught.value.errno == number
    assert str(caught.value).endswith(f"{os.strerror(number)}; {store.REMEDIES[number]}: '/some/file'")
    with pytest.raises(OSError, match=str(cache)), store.explained():
        raise OSError(number, os.strerror(number))


def test_other_errors_pass_as_they_are(cache):
    for error in (FileNotFoundError(errno.ENOENT, "No such file", "/some/file"), OSError("no number"), ValueError("x")):
        with pytest.raises(type(error)) as caught, store.result(STAGE, {}):
            raise error
        assert caught.value is error


def write_too_much() -> None:
    with store.result(STAGE, {}) as result:
        (result.folder / "part").write_text("done")
        store.write_atomically(result.folder / "large", bytes(4_000_000))


def test_a_full_disk_is_explained_and_what_is_done_is_kept(small_disk, monkeypatch, provoked):
    monkeypatch.setenv("PICOJEPA_CACHE", str(small_disk))
    with pytest.raises(OSError, match="No space left") as caught:
        write_too_much()
    folder = small_disk / "results" / f"{store.name_of(STAGE, {})}.partial"
    assert str(caught.value).endswith(FULL.format(folder / "large"))
    assert {path.name for path in folder.iterdir()} == {"part", store.CLOCK}
    fill(small_disk / "others")
    with pytest.raises(OSError, match="No space left"):
        made(inputs={"x": 1})
    (small_disk / "others").unlink()
    assert (made() / "part").read_text() == "done"
    provoked("a full disk", "storing results", 2)


def test_a_disk_that_cannot_be_written_is_explained(small_disk, monkeypatch, provoked):
    monkeypatch.setenv("PICOJEPA_CACHE", str(small_disk))
    made()
    remount(small_disk, "ro")
    assert made().is_relative_to(small_disk), "what is there can be read"
    with pytest.raises(OSError, match="Read-only") as caught:
        made(inputs={"x": 1})
    assert str(caught.value).endswith(
        READ_ONLY.format(small_disk / "results" / f"{store.name_of(STAGE, {'x': 1})}.lock")
    )
    provoked("a disk that cannot be written", "storing results")


def test_atomic_writing_names_the_path_and_leaves_no_part(small_disk, provoked):
    path = small_disk / "card.json"
    store.write_json(path, {"b": 1, "a": [2, 3]})
    before = path.read_bytes()
    assert json.loads(before) == {"a": [2, 3], "b": 1}
    with pytest.raises(OSError, match="No space left on device") as caught:
        store.write_atomically(path, bytes(4_000_000))
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert [file.name for file in small_disk.iterdir()] == ["card.json"]
    provoked("a full disk", "storing results")


def test_atomic_writing_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch, provoked):
    path = tmp_path / "card.json"
    store.write_atomically(path, "old")

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store.os, "replace", refuse)
    with pytest.raises(OSError, match=f"Input/output error: '{path}'"):
        store.write_atomically(path, "another")
    assert [file.name for file in tmp_path.iterdir()] == ["card.json"]
    assert path.read_text() == "old"
    provoked("an error while a file is replaced", "storing results")


def test_a_line_that_was_cut_off_does_not_count(tmp_path, provoked):
    path, rows = tmp_path / "metrics.jsonl", [{"step": 0, "word": "Grüße\u2028"}, {"step": 1, "loss": 0.5}, [3]]
    text = store.as_json_lines(rows)
    path.write_text(text, encoding="utf-8")
    assert store.read_json_lines(path) == rows
    starts = [0, *(place + 1 for place, letter in enumerate(text) if letter == "\n")]
    for length in range(len(text)):
        path.write_text(text[:length], encoding="utf-8")
        assert store.read_json_lines(path) == rows[: sum(start <= length for start in starts) - 1]
    assert store.read_json_lines(tmp_path / "none.jsonl") == []
    provoked("a line cut off at any place", "storing results", len(text))


def test_files_that_come_with_the_repository_are_found_or_named():
    assert store.data_file("paper/table1.csv").is_file()
    with pytest.raises(FileNotFoundError, match=r"paper/table9\.csv is missing; it comes with the book's repository"):
        store.data_file("paper/table9.csv")
