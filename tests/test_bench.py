"""`make bench` on a batch of one: what it counts and writes; how fast anything is, is not tested."""

import json
import re
import subprocess
import sys
from itertools import pairwise

import psutil
import pytest
from conftest import ROOT

from benchmarks import __main__ as bench
from benchmarks import data, loop, steps
from picojepa import config

COMMITTED = ROOT / "benchmarks" / "cpu.json"
FACTS = {
    "hardware": {"processor", "cores", "threads", "accelerator", "memory_gb", "fast_bfloat16"},
    "versions": {"python", "torch", "torchcodec", "ffmpeg", "numpy"},
    "git": {"commit", "changed"},
    "geometry": {"frames", "size", "tokens", "width", "depth", "batch"},
}
TABLES = {
    "ladder": {"name", "what", "clips_per_second", "seconds_per_step", "gflop_per_clip", "speedup"},
    "cost": {"size", "tokens", "ratio", "clips_per_second"},
    "opening": {"clips_per_video", "ms_per_video", "ms_per_clip"},
}
NUMBERS = """
    matmul_float32_gflops matmul_bfloat16_gflops published_gflop_per_clip published_gflop_expected
    vjepa_gflop_per_clip published_share_of_float32_rate share_of_bfloat16_rate published_clips_per_second
    tube75_clips_per_second train_step_speedup_tube75 tube90_clips_per_second multiblock_clips_per_second
    opening_published_ms paper_ms_per_training_clip laptop_ms_per_training_clip waiting_laptop waiting_paper
    cache_share_paper published_file_seconds file_seconds file_cold_seconds file_speedup file_cold_speedup
    memory_gb_peak memory_gb_first memory_gb_last published_pretraining_hours pretraining_hours seconds
""".split()
near = pytest.approx


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--out", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "published" in run.stdout
    return json.loads((folder / ("gpu.json" if bench.GPU else "cpu.json")).read_text())


def check_record(found, committed=False):
    """A committed record knows its machine and its commit; elsewhere a tree without git may be tried."""
    for key, wanted in FACTS.items():
        assert found[key].keys() == wanted
        assert all(value not in ("", None) for value in found[key].values()), key
        assert not committed or "unknown" not in found[key].values(), key
    for key, wanted in TABLES.items():
        assert found[key]
        assert all(row.keys() >= wanted for row in found[key]), key
    for key in NUMBERS:
        assert found[key] >= 0, key
    assert found["date"].endswith("+00:00")
    assert re.fullmatch("[0-9a-f]{40}" if committed else "[0-9a-f]{40}|unknown", found["git"]["commit"])
    assert len(found["notes"]) == len(set(found["notes"])) > 5
    check_arithmetic(found)


def check_arithmetic(found):
    """Every ratio is that of the numbers beside it."""
    published, ours = found["published_clips_per_second"], found["tube75_clips_per_second"]
    assert found["train_step_speedup_tube75"] == near(ours / published, rel=1e-3)
    assert (found["ladder"][0]["clips_per_second"], found["ladder"][4]["clips_per_second"]) == (published, ours)
    for row in found["ladder"]:
        assert row["speedup"] == near(row["clips_per_second"] / published, rel=1e-3)
        assert row["clips_per_second"] * row["seconds_per_step"] == near(found["geometry"]["batch"], rel=1e-3)
    share = published * found["published_gflop_per_clip"] / found["matmul_float32_gflops"]
    assert found["published_share_of_float32_rate"] == near(share, rel=1e-3)
    share = ours * found["vjepa_gflop_per_clip"] / found["matmul_bfloat16_gflops"]
    assert found["share_of_bfloat16_rate"] == near(share, rel=1e-3)
    for kind in ("file", "file_cold"):
        ratio = found["published_file_seconds"] / found[f"{kind}_seconds"]
        assert found[f"{kind}_speedup"] == near(ratio, rel=1e-3)
    assert found["published_pretraining_hours"] == near(28_800 / published / 3600, rel=1e-3)
    assert found["pretraining_hours"] == near(28_800 / ours / 3600, rel=1e-3)
    for row in found["opening"]:
        assert row["ms_per_clip"] * row["clips_per_video"] == near(row["ms_per_video"], rel=1e-3)
    check_counts(found)


def check_counts(found):
    assert found["published_gflop_per_clip"] == near(found["published_gflop_expected"], rel=0.05)
    published, visible, *vjepa = (row["gflop_per_clip"] for row in found["ladder"])
    assert published > 2 * visible
    assert visible > vjepa[0]
    assert set(vjepa) == {found["vjepa_gflop_per_clip"]}, "precision and kernels change no count"
    by_ratio = [row["gflop_per_clip"] for row in found["cost"] if row["size"] == 224]
    assert all(more > less for more, less in pairwise(by_ratio))


@pytest.mark.skipif(bench.GPU, reason="files and memory are measured on CPUs only")
def test_the_record_of_a_quick_run_is_complete(quick):
    check_record(quick)
    assert quick["quick"]
    assert quick["geometry"] == {"frames": 8, "size": 224, "tokens": 784, "width": 192, "depth": 8, "batch": 1}
    assert quick["memory_gb_peak"] > 0.99 * quick["memory_gb_first"] > 0.1  # the kernel's counters lag a little


def test_the_ladder_changes_one_thing_after_the_other():
    published, visible, exact, fused, ours, plain = steps.ladder()
    assert {*published.settings.published} - {*visible.settings.published} == {"encode_hidden"}
    assert visible.settings.training == published.settings.training
    assert visible.settings.model == published.settings.model
    assert (exact.settings.recipe, exact.settings.training.precision, exact.fused) == ("vjepa", "float32", True)
    assert (fused.settings, fused.fused, ours.fused) == (ours.settings, True, False)
    assert (plain.settings, plain.fused) == (exact.settings, False)


def test_the_fused_rung_takes_its_steps_with_the_fused_kernel(monkeypatch):
    calls = []
    fused = steps.fused_attention
    monkeypatch.setattr(steps, "fused_attention", lambda *tensors: calls.append(1) or fused(*tensors))
    rung = next(rung for rung in steps.ladder() if rung.fused)
    small = config.override(rung.settings, "clip.size=32", "model.depth=1")
    for kind, count in ((True, 4), (False, 4)):  # both encoders and two blocks of the predictor; then no more
        steps.Trainer(small, 1, fused=kind).timed_step()
        assert len(calls) == count


def test_a_step_that_is_not_the_published_one_is_refused(capsys):
    found = {"published_gflop_per_clip": 16.0, "published_share_of_float32_rate": 0.3}
    with pytest.raises(SystemExit, match="counts 16.0 GFLOP a clip, not 41"):
        bench.check(found)
    bench.check(found | {"published_gflop_per_clip": 40.0})
    assert capsys.readouterr().out == ""
    bench.check({"published_gflop_per_clip": 40.0, "published_share_of_float32_rate": 0.05})
    assert "STRAW MAN: the published step reaches 5.0%" in capsys.readouterr().out


def test_a_broken_child_is_told(capfd):
    with pytest.raises(subprocess.CalledProcessError, match="nowhere.mp4"):
        data.child("published", "nowhere", "nowhere", "nowhere.mp4", "General")
    assert "No such file or directory: nowhere" in capfd.readouterr().err


@pytest.mark.skipif(bench.GPU, reason="threads matter on CPUs only")
def test_every_situation_is_measured(quick):
    rows = quick["crowded"]
    assert [row["situation"] for row in rows] == ["alone", "beside a busy process", "beside a second training"]
    for row in rows:
        assert row.keys() == {"situation", "threads", "chosen", "clips_per_second", "ratio_to_alone"}
        assert row["ratio_to_alone"] == near(row["clips_per_second"] / rows[0]["clips_per_second"], rel=1e-3)
        assert (row["threads"], row["chosen"] > 0) == ("auto", True)


@pytest.mark.parametrize(("situation", "other"), [(loop.BUSY, "while True"), (loop.SECOND, "benchmarks.loop")])
def test_the_other_process_works_while_a_training_is_measured(situation, other, tmp_path, monkeypatch):
    used, rate = [], loop.rate

    def working():
        return [child for child in psutil.Process().children() if other in " ".join(child.cmdline())]

    def watched(folder, process, seconds):
        (beside,) = [child for child in working() if child.pid != process.pid]
        before = beside.cpu_times().user
        found = rate(folder, process, seconds)
        used.append(beside.cpu_times().user - before)
        return found

    monkeypatch.setattr(loop, "rate", watched)
    row = loop.measure(tmp_path / "one", situation, "smoke", 1, 1.0)
    assert (row["situation"], row["threads"], row["chosen"]) == (situation, 1, 1)
    assert row["clips_per_second"] > 0
    assert used[0] > 0.1, "of a second"
    assert not working()


def test_a_busy_process_that_ends_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "ENDLESS", [sys.executable, "-c", "pass"])
    with pytest.raises(RuntimeError, match="ended while it was measured"):
        loop.measure(tmp_path / "one", loop.BUSY, "smoke", 1, 0.5)


@pytest.mark.skipif(not COMMITTED.exists(), reason="no record is committed")
def test_the_committed_record_is_complete():
    found = json.loads(COMMITTED.read_text(encoding="utf-8"))
    check_record(found, committed=True)
    assert not found["quick"]
    assert found["geometry"]["batch"] == 10
    assert found["published_share_of_float32_rate"] >= bench.STRAW_MAN
