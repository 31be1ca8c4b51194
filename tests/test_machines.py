"""What happens to machines: processes are killed, run twice, or work together; and the command line."""

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from children import start, train, train_as
from conftest import ROOT
from safetensors.torch import load_file
from test_jepa import with_training

from picojepa import checkpoints, pretraining, store
from picojepa.config import PROFILES, RECIPES, as_published

STEPS, CHECKPOINT_EVERY = 200, 5
PATIENCE = 300  # seconds; on a busy machine everything takes long


def until(happened, child) -> None:
    """Wait for something that a process does."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert child.is_alive(), f"the process ended by itself: {child.exitcode}"
        assert time.monotonic() < deadline, f"waited for {PATIENCE} seconds"
        time.sleep(0.002)


def finish(*children) -> None:
    """Wait for processes that should end well."""
    for child in children:
        child.join(PATIENCE)
    assert [child.exitcode for child in children] == [0] * len(children)


def last_row(folder: Path) -> dict:
    """The last whole row of a run that may be going on."""
    rows = store.read_json_lines(folder / "metrics.jsonl")
    return rows[-1] if rows else {"step": -1, "time": 0.0}


def kill_at(step: int, folder: Path, delay: float, *children) -> None:
    """kill -9 as soon as these processes, and no earlier ones, have reached a step, and a little later."""
    started = time.time()
    until(lambda: last_row(folder)["step"] >= step and last_row(folder)["time"] > started, children[0])
    time.sleep(delay)
    for child in children:
        child.kill()  # all, before one sees that the other is gone
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [-9] * len(children)


def moments(kills: int, source: random.Random) -> list[int]:
    """Steps spread over the run; every second one is a step after which a checkpoint is being written."""
    steps = sorted(source.sample(range(2, 150), kills))
    return [step // CHECKPOINT_EVERY * CHECKPOINT_EVERY + 4 if i % 2 else step for i, step in enumerate(steps)]


@pytest.mark.parametrize(("recipe", "kills"), [("vjepa", 20), ("published", 6)])
def test_kill_9_loses_no_work(tiny, noise, tmp_path, recipe, kills, provoked):
    """However often a run is killed, its last weights and its records are those of a run that was not."""
    settings = with_training(
        as_published(tiny) if recipe == "published" else tiny,
        clips=16 * STEPS,
        checkpoint_every=CHECKPOINT_EVERY,
        watch_every=50,
    )
    whole, killed, source = tmp_path / "whole", tmp_path / "killed", random.Random(0)
    whole.mkdir()
    killed.mkdir()
    finish(start(train, settings, noise, whole))
    resumed_at = []
    for step in moments(kills, source):
        child = start(train, settings, noise, killed)
        kill_at(step, killed, source.uniform(0, 0.01), child)
        assert not (killed / "final.pt").exists()
        resumed_at.append(torch.load(killed / "checkpoint.pt")["step"] if (killed / "checkpoint.pt").exists() else 0)
    assert len(resumed_at) == kills
    assert resumed_at == sorted(resumed_at)
    assert len(set(resumed_at)) > kills // 2, "the kills were spread over the run"
    finish(start(train, settings, noise, killed))

    states = [torch.load(folder / "final.pt") for folder in (whole, killed)]
    extra = [state.pop("_extra_state", None) or {} for state in states]
    assert states[0].keys() == states[1].keys()
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []
    assert extra[0].get("momentum") == extra[1].get("momentum")
    if recipe == "published":
        assert torch.equal(extra[0]["gradient"], extra[1]["gradient"])
        assert extra[0]["gradient"].abs().max() > 0
    rows = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (whole, killed)]
    assert [row["step"] for row in rows[1]] == list(range(STEPS)), "every step once, no torn line"
    columns = ("loss", "similarity", "gradient_norm", "learning_rate", "ema", "spread", "quick_probe")
    assert [[row.get(c) for c in columns] for row in rows[0]] == [[row.get(c) for c in columns] for row in rows[1]]
    provoked("kill -9", "training", len(resumed_at))


# ---------------------------------------------------------------- several processes


class Pair:
    """Two processes that train together, with their results in a cache."""

    def __init__(self, folder, settings, clips):
        self.folder = folder
        (folder / "meeting").unlink(missing_ok=True)
        self.processes = [start(train_as, rank, folder / "meeting", settings, clips, folder) for rank in range(2)]

    def answer(self) -> str:
        """What both say at the end."""
        finish(*self.processes)
        (said,) = {(self.folder / f"meeting.{rank}").read_text() for rank in range(2)}
        return said


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Encoder and predictor, without the biases of the keys: attention does not depend on them."""
    found = {}
    for part in ("encoder", "predictor"):
        for name, value in load_file(folder / f"{part}.safetensors").items():
            third = len(value) // 3
            found[f"{part}.{name}"] = value[[*range(third), *range(2 * third, 3 * third)]] if "qkv.b" in name else value
    return found


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_are_killed_and_go_on(tiny, noise, tmp_path_factory, recipe, provoked):
    settings = with_training(as_published(tiny) if recipe == "published" else tiny, clips=16 * 40)
    whole, killed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("killed")
    wanted = Path(Pair(whole, settings, noise).answer())
    assert store.card(wanted)["processes"] == 2
    kill_at(17, killed / "results" / f"{wanted.name}.partial", 0.0, *Pair(killed, settings, noise).processes)
    found = Path(Pair(killed, settings, noise).answer())
    for part in ("encoder.safetensors", "predictor.safetensors"):
        assert (found / part).read_bytes() == (wanted / part).read_bytes()
    assert checkpoints.read_metrics(found).step.tolist() == list(range(40))
    card = (found / "card.json").read_bytes()
    assert Pair(killed, settings, noise).answer() == str(found), "a second call finds the result"
    assert (found / "card.json").read_bytes() == card
    provoked("kill -9 of two processes that train together", "training")


def test_a_batch_that_does_not_divide_among_processes_is_refused(tiny, noise, tmp_path):
    said = Pair(tmp_path, with_training(tiny, batch=15), noise).answer()
    assert said == "refused: a batch of 15 clips does not divide among 2 processes; change training.batch"


def arguments(settings) -> list[str]:
    """What to write on the command line to get settings from the profile smoke."""
    words: list[str] = []
    for section in ("data", "clip", "model", "training", "probe"):
        here, base = asdict(getattr(settings, section)), asdict(getattr(PROFILES["smoke"], section))
        for name, value in here.items():
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{section}.{name}", *map(str, values)] if value != base[name] else []
    return words


def shell(*command: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python in a clean environment."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PICOJEPA_")} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], env=clean | environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )


def test_torchrun_with_two_processes_gives_the_weights_of_one(pipelines, tmp_path):
    """From the shell, on the videos and clips of the pipeline."""
    pipeline, results = pipelines[1], tmp_path / "results"
    results.mkdir()
    (tmp_path / "videos").symlink_to(pipeline.cache / "videos")
    for found in (pipeline.cache / "results").glob("data.clips-*/"):
        (results / found.name).symlink_to(found)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "picojepa.pretraining"]
    done = shell(
        *command, "--profile=smoke", "--recipe=vjepa", *arguments(pipeline.settings), PICOJEPA_CACHE=str(tmp_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = results / pipeline.run.name
    assert f"finished: {folder}" in done.stderr
    assert store.card(folder)["processes"] == 2
    ours, alone = weights(folder), weights(pipeline.run)
    for name, value in alone.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    metrics, wanted = (checkpoints.read_metrics(f) for f in (folder, pipeline.run))
    assert list(metrics) == list(wanted)
    told = ["step", "clips", "loss", "similarity", "gradient_norm", "learning_rate", "ema", "spread", "effective_rank"]
    np.testing.assert_allclose(metrics[told], wanted[told], rtol=1e-3)


# ---------------------------------------------------------------- the command line


def test_help_names_what_can_be_changed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pretraining", "--help"])
    with pytest.raises(SystemExit) as end:
        pretraining.main()
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for word in ("--profile smoke|laptop|paper", "--recipe", "--training.batch INT", "clips per step (default: 32)"):
        assert word in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe=other"], "unknown recipe 'other' (PICOJEPA_RECIPE); known: adapted, vjepa, published"),
        (["--profile=huge"], "unknown profile 'huge' (PICOJEPA_PROFILE); known: smoke, laptop, paper"),
    ],
)
def test_an_unknown_profile_or_recipe_is_refused(monkeypatch, words, message):
    monkeypatch.setattr(sys, "argv", ["pretraining", *words])
    monkeypatch.setattr(pretraining.data, "load_clips", None)  # whoever gets that far fails
    with pytest.raises(ValueError, match="unknown") as error:
        pretraining.main()
    assert message in str(error.value)


@pytest.mark.parametrize("word", ["training.btach=64", "--training.btach=64"])
def test_an_unknown_setting_ends_the_process_with_an_error_and_a_hint(tmp_path, word):
    done = shell("-m", "picojepa.pretraining", "--profile=smoke", word, PICOJEPA_CACHE=str(tmp_path))
    assert done.returncode == 2
    for said in ("Unrecognized options: --training.btach", "Perhaps you meant", "--training.batch INT"):
        assert said in done.stderr
    assert not list(tmp_path.iterdir())
