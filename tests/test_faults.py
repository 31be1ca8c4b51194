"""Killed, twice at once, disk full, disk read-only: while generating, training, probing and voting nothing is lost.

Fetching is in test_kinetics.py, decoding in test_videos.py, a killed training in test_machines.py.
"""

import hashlib
import io
import random
import time
from functools import partial
from pathlib import Path

import pandas as pd
import psutil
import pytest
from children import answer, generate, generate_and_note, start
from conftest import TINY, fill, remount
from safetensors.torch import save_file
from test_jepa import with_training
from test_machines import finish, until
from test_own_videos import few

import standin
from evidence import baselines
from picojepa import data, ensemble, pretraining, probing, store
from picojepa.architecture import new_encoder
from standin import StandInConfig

VERY_SHORT = StandInConfig(scale=0.001, validation_scale=0.01, seconds=(0.1, 0.2))  # 120 videos
FULL = r"No space left on device; make room, or name another folder in PICOJEPA_CACHE; what is done is kept: '{}"
READ_ONLY = r"Read-only file system; name a folder that can be written in PICOJEPA_CACHE: '{}"


def files(folder: Path, pattern: str = "*.mp4") -> dict[str, tuple[int, int]]:
    """Which files there are, and by what one sees that a file is still the same: inode and time of its last change."""
    found = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob(pattern)}
    return {name: (facts.st_ino, facts.st_mtime_ns) for name, facts in found.items()}


def kill(child) -> bool:
    """kill -9; False if the process had ended by itself, well."""
    child.kill()
    child.join()
    assert child.exitcode in (-9, 0)
    return child.exitcode == -9


def survivors(helpers: list[psutil.Process]) -> list[psutil.Process]:
    """Processes that have not ended after a while."""
    deadline = time.monotonic() + 20
    while (left := [helper for helper in helpers if works(helper)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    for helper in left:
        helper.kill()
    return left


def works(helper: psutil.Process) -> bool:
    """Whether a process has not ended."""
    try:
        return helper.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# ---------------------------------------------------------------- generating


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> pd.DataFrame:
    """The manifest of videos that were generated without a fault, by path."""
    folder = tmp_path_factory.mktemp("whole") / "videos"
    return standin.generate(VERY_SHORT, folder, workers=1, stream=io.StringIO()).set_index("path")


def assert_whole(folder: Path, whole: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Each file that is there is the right one to the last byte; says which are there."""
    found = files(folder)
    for name in found:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == whole.sha256[name], name
    return found


def assert_complete(folder: Path, whole: pd.DataFrame, kept: dict[str, tuple[int, int]]) -> None:
    """All files are there and right, those that were there before are the same, and there is nothing else."""
    found = assert_whole(folder, whole)
    assert found.keys() == set(whole.index)
    assert {name: found[name] for name in kept} == kept
    pd.testing.assert_frame_equal(pd.read_csv(folder / "manifest.csv", index_col="path"), whole, check_dtype=False)
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {
        *(Path(name).name for name in found),
        "manifest.csv",
        "generator.json",
    }


@pytest.mark.parametrize(("workers", "kills"), [(1, 8), (2, 2)])
def test_kill_9_while_generating(whole, tmp_path, workers, kills, provoked):
    folder, source, kept = tmp_path / "videos", random.Random(workers), {}
    for _ in range(kills):
        child, wanted = start(generate, VERY_SHORT, folder, workers), len(kept) + source.randint(1, 8)
        until(lambda wanted=wanted: len(files(folder)) >= wanted, child)
        helpers = psutil.Process(child.pid).children(recursive=True)
        assert len(helpers) >= workers * (workers > 1)
        time.sleep(source.uniform(0, 0.01))
        assert kill(child)
        assert not survivors(helpers), "nobody works on"
        found = assert_whole(folder, whole)
        assert {name: found[name] for name in kept} == kept, "what is done is not done again"
        assert len(found) > len(kept)
        assert not (folder / "manifest.csv").exists(), "a list that is not complete must not look so"
        kept = found
        provoked("kill -9", "generating videos")
    finish(start(generate, VERY_SHORT, folder, workers))
    assert_complete(folder, whole, kept)


def test_two_generators_at_once(whole, tmp_path, provoked):
    folder, notes = tmp_path / "videos", tmp_path / "notes.txt"
    first = start(generate_and_note, VERY_SHORT, folder, notes)
    until(lambda: len(files(folder)) > 5, first)
    second, kept = start(generate_and_note, VERY_SHORT, folder, notes), files(folder)
    finish(first, second)
    assert notes.read_text().split() == [str(first.pid)] * len(whole), "the second waits, and finds all done"
    assert_complete(folder, whole, kept)
    provoked("two runs at once", "generating videos")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_disk_fills_up_while_generating(whole, small_disk, workers, provoked):
    folder, other = small_disk / "videos", small_disk / "other"
    other.write_bytes(bytes(2_900_000))
    with pytest.raises(OSError, match=FULL.format(folder)):
        standin.generate(VERY_SHORT, folder, workers=workers, stream=io.StringIO())
    kept = assert_whole(folder, whole)
    assert kept
    other.unlink()
    standin.generate(VERY_SHORT, folder, workers=1, stream=io.StringIO())
    assert_complete(folder, whole, kept)
    provoked("the disk is full", "generating videos")


def test_generating_on_a_read_only_disk(whole, small_disk, provoked):
    remount(small_disk, "ro")
    with pytest.raises(OSError, match=READ_ONLY.format(small_disk)):
        standin.generate(VERY_SHORT, small_disk / "videos", workers=1, stream=io.StringIO())
    remount(small_disk, "rw")
    standin.generate(VERY_SHORT, small_disk / "videos", workers=1, stream=io.StringIO())
    remount(small_disk, "ro")
    table = standin.generate(VERY_SHORT, small_disk / "videos", workers=1, stream=io.StringIO())
    assert table.sha256.tolist() == whole.sha256.tolist(), "what is finished can be used from there"
    provoked("the disk is read-only", "generating videos")


# ---------------------------------------------------------------- features, probes and votes

STAGES = ("probing.encoder", "probing.baselines", "ensemble.heads", "ensemble.predictions")


@pytest.fixture
def question(noise, tmp_path):
    """Settings, clips of two classes, and a run whose encoder was never trained."""
    run = tmp_path / "pretraining.run-0"
    run.mkdir()
    save_file(new_encoder(TINY.model, TINY.grid, 1).state_dict(), run / "encoder.safetensors")
    return TINY, few(noise, {"a": 16, "b": 16}), run


def answers(settings, clips, run) -> list[pd.DataFrame]:
    """What `children.answer` makes or finds."""
    task = probing.make_task(clips, data.classes(clips.videos))
    return [
        probing.probe_run(settings, clips, run, task),
        baselines.probe_baselines(settings, clips, task),
        ensemble.predictions(settings, clips, run),
    ]


def assert_same(found: list[pd.DataFrame], wanted: list[pd.DataFrame]) -> None:
    for one, other in zip(found, wanted, strict=True):
        pd.testing.assert_frame_equal(one, other)


def finished(cache: Path) -> dict[str, tuple[int, int]]:
    """Files of finished results; each has a card that can be read."""
    results = cache / "results"
    folders = [path for path in results.glob("*") if path.is_dir() and path.suffix != ".partial"]
    for folder in folders:
        assert {"stage", "inputs", "seconds"} <= store.card(folder).keys()
        assert len(list(folder.iterdir())) > 1
    return {f"{folder.name}/{name}": same for folder in folders for name, same in files(folder, "*").items()}


def test_kill_9_while_probing_and_voting(question, cache, tmp_path, monkeypatch, provoked):
    wanted, killed, source, kept = answers(*question), tmp_path / "killed", random.Random(0), {}
    for stage in [stage for stage in STAGES for _ in range(3)]:
        child = start(answer, *question, killed)
        until(lambda stage=stage: list((killed / "results").glob(f"{stage}-*")), child)
        time.sleep(source.uniform(0, 0.05))
        if kill(child):
            provoked("kill -9", "features, probes and votes")
        found = finished(killed)
        assert {name: found[name] for name in kept} == kept, "what is done is not done again"
        kept = found
    for torn in (killed / "results").glob("*.partial"):
        (torn / probing.PREDICTIONS).write_text("features,probe,vi")
    monkeypatch.setenv("PICOJEPA_CACHE", str(killed))
    assert_same(answers(*question), wanted)
    found = finished(killed)
    assert {name: found[name] for name in kept} == kept
    assert not list((killed / "results").glob("*.partial"))


def test_two_runs_of_probes_and_votes_at_once(question, cache, tmp_path, monkeypatch, provoked):
    wanted, shared = answers(*question), tmp_path / "shared"
    finish(*[start(answer, *question, shared) for _ in range(2)])
    before = finished(shared)
    assert {name.split("-")[0] for name in before} == set(STAGES)
    assert len({name.split("/")[0] for name in before}) == len(STAGES) + 1, "random weights are asked too"
    monkeypatch.setenv("PICOJEPA_CACHE", str(shared))
    assert_same(answers(*question), wanted)
    assert finished(shared) == before
    provoked("two runs at once", "features, probes and votes")


def one_by_one(settings, clips, run) -> list:
    """The calls of `answers`, to be made one by one."""
    task = probing.make_task(clips, data.classes(clips.videos))
    return [
        partial(probing.probed, settings, clips, task),
        partial(probing.probed, settings, clips, task, run),
        partial(baselines.probe_baselines, settings, clips, task),
        partial(ensemble.train_members, settings, clips, run),
        partial(ensemble.predictions, settings, clips, run),
    ]


def test_the_disk_fills_up_while_probing_and_voting(question, cache, small_disk, monkeypatch, provoked):
    wanted = answers(*question)
    monkeypatch.setenv("PICOJEPA_CACHE", str(small_disk))
    for number, call in enumerate(one_by_one(*question)):
        fill(small_disk / "other")
        with pytest.raises(OSError, match=FULL.format(small_disk)):
            call()
        assert len({name.split("/")[0] for name in finished(small_disk)}) == number
        (small_disk / "other").unlink()
        call()
        provoked("the disk is full", "features, probes and votes")
    assert_same(answers(*question), wanted)


def test_probes_and_votes_on_a_read_only_disk(question, cache, small_disk, monkeypatch, provoked):
    wanted = answers(*question)
    monkeypatch.setenv("PICOJEPA_CACHE", str(small_disk))
    remount(small_disk, "ro")
    for call in one_by_one(*question):
        with pytest.raises(OSError, match=READ_ONLY.format(small_disk)):
            call()
        provoked("the disk is read-only", "features, probes and votes")
    remount(small_disk, "rw")
    answers(*question)
    remount(small_disk, "ro")
    assert_same(answers(*question), wanted)


# ---------------------------------------------------------------- training


def test_the_disk_fills_up_while_training(noise, cache, small_disk, monkeypatch, provoked):
    """Before the first step, and while a checkpoint is written: what is told is the file and what to do."""
    settings = with_training(TINY, clips=16 * 30, log_every=5, checkpoint_every=6)
    wanted = pretraining.run(settings, noise)
    monkeypatch.setenv("PICOJEPA_CACHE", str(small_disk))
    other, folder = small_disk / "other", small_disk / "results" / f"{wanted.name}.partial"
    fill(other)
    with pytest.raises(OSError, match=FULL.format(small_disk)):
        pretraining.run(settings, noise)
    other.unlink()
    with pytest.raises(OSError, match=FULL.format(f"{folder}/checkpoint.pt'")):
        pretraining.run(settings, noise, lambda folder, model: (folder / "checkpoint.pt").exists() and fill(other))
    assert [row["step"] for row in store.read_json_lines(folder / "metrics.jsonl")] == [0, 5, 10]
    kept = files(folder, "checkpoint.pt")
    assert kept
    assert not list(folder.glob(".*")), "nothing of the checkpoint that found no room"
    other.unlink()
    begun = []
    found = pretraining.run(settings, noise, lambda folder, model: begun.append(files(folder, "checkpoint.pt")))
    assert begun[0] == kept, "it goes on from the checkpoint"
    for name in ("encoder.safetensors", "predictor.safetensors"):
        assert (found / name).read_bytes() == (wanted / name).read_bytes()
    provoked("the disk is full", "training", 2)


def test_training_on_a_read_only_disk(noise, small_disk, monkeypatch, provoked):
    monkeypatch.setenv("PICOJEPA_CACHE", str(small_disk))
    remount(small_disk, "ro")
    with pytest.raises(OSError, match=READ_ONLY.format(small_disk)):
        pretraining.run(TINY, noise)
    provoked("the disk is read-only", "training")
