"""Fixtures for running chapters and a tiny pipeline; the chapters' seconds are printed at the end of the session."""

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from torchcodec.encoders import VideoEncoder

import standin
from evidence import baselines
from picojepa import data, ensemble, pretraining, probing
from picojepa.architecture import ModelConfig
from picojepa.clips import ClipConfig, Clips
from picojepa.config import Settings
from picojepa.fitting import ProbeConfig, TrainingConfig
from standin import CLASSES, LABELLED_CLASSES, StandInConfig

matplotlib.use("Agg")

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("PICOJEPA_REAL") or ROOT.parent / "shared" / "real")  # videos that nobody here made
BUNDLED = ROOT / "data" / "clips" / "manifest.csv"
LEVEL = 4  # difference in brightness between two frames of a ramp
CHAPTERS = ("data", "masking", "architecture", "pretraining", "probing", "ensemble", "tsne", "results")
GUIDE = "field_guide"  # chapter 4b
EVIDENCE = ("learns", "probes", "imagined", "committees", "experiments", "people")
APPENDICES = (GUIDE, *EVIDENCE, "scaling", "reliability", "execution")  # without a module
HELPERS = (
    *("config", "store", "machine", "clips", "fitting", "features"),
    *("jepa", "spreading", "published", "checkpoints", "classify", "stats"),
)  # modules without a chapter
SECONDS: dict[str, float] = {}


def notebook_path(name: str) -> Path:
    """Where the chapter of a module, or an appendix, is."""
    if name == GUIDE:
        return ROOT / "book" / f"04b_{name}.ipynb"
    if name in APPENDICES:
        return ROOT / "book" / f"{name}.ipynb"
    return ROOT / "book" / f"{CHAPTERS.index(name) + 1:02}_{name}.ipynb"


@pytest.fixture(scope="session")
def run_chapter() -> Callable[..., nbformat.NotebookNode]:
    """Function that executes one chapter in profile smoke, by itself, with its results kept in the given folder.

    A third argument holds more of the environment, such as ``{"PICOJEPA_DATA": "..."}``.
    """

    def run(name: str, cache: Path, extra: dict[str, str] | None = None) -> nbformat.NotebookNode:
        path = notebook_path(name)
        assert path.is_file(), f"the chapter {path.relative_to(ROOT)} is missing"
        notebook = nbformat.read(path, as_version=4)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PICOJEPA_")}
        environment |= {"PICOJEPA_PROFILE": "smoke", "PICOJEPA_CACHE": str(cache)} | (extra or {})
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


@pytest.fixture
def provoked(record_property: Callable[[str, object], None]) -> Iterator[Callable[..., None]]:
    """Function that notes a fault which a test provokes: what happens, in which stage, how many times.

    `make reliability` runs the tests that use it, and makes a table for the book of what they note.
    """
    counts: Counter[tuple[str, str]] = Counter()

    def note(fault: str, stage: str, times: int = 1) -> None:
        counts[fault, stage] += times

    yield note
    for (fault, stage), times in counts.items():
        record_property("fault", json.dumps({"fault": fault, "stage": stage, "times": times}))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write down the numbers of stages; see test_golden.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "provoked" in getattr(item, "fixturenames", ()):
            item.add_marker("fault")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", folder], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk is full, as another program may do."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass


def remount(folder: Path, options: str) -> None:
    """Change a mounted disk, to ``ro`` for instance."""
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def pytest_terminal_summary(terminalreporter) -> None:
    if SECONDS:
        terminalreporter.write_sep("-", "seconds per chapter, profile smoke")
        for name, seconds in SECONDS.items():
            terminalreporter.write_line(f"{seconds:7.1f}  {name}")


# The whole experiment in miniature: 4 x 4 x 4 tokens, 80 training and 50 validation videos of one second.
TINY = Settings(
    profile="tiny",
    data=StandInConfig(scale=0.001, validation_scale=0.1, seconds=(1.0, 1.2)),
    clip=ClipConfig(size=32, clips_per_video=2),
    model=ModelConfig(patch=8, width=24, depth=1, heads=2, predictor_width=18, predictor_depth=1, predictor_heads=2),
    training=TrainingConfig(clips=320, batch=16, precision="float32", log_every=1, watch_every=5, checkpoint_every=5),
    probe=ProbeConfig(epochs=5, attentive_epochs=2, supervised_epochs=1, neighbours=3),
)


@pytest.fixture
def tiny() -> Settings:
    """Settings of the tiny pipeline."""
    return TINY


def other_geometries(settings: Settings) -> list[Settings]:
    """Another width, and another number of tokens."""
    wider = replace(settings.model, width=36, heads=2)
    return [replace(settings, model=wider), replace(settings, clip=replace(settings.clip, size=64))]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of results, for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PICOJEPA_CACHE", str(folder))
    return folder


def as_clips(training: np.ndarray) -> Clips:
    """Training clips, uint8 (n, clips_per_video, T, 3, H, W), as if n videos of two classes had been decoded."""
    videos = pd.DataFrame({"path": [f"/videos/{number}.mp4" for number in range(len(training))], "split": "pretrain"})
    videos = videos.assign(label=[CLASSES[number % 2] for number in videos.index], labelled=True)
    return Clips(videos, training, training[:, 0], videos.iloc[:0].assign(reason=""), "noise")


@pytest.fixture
def noise() -> Clips:
    """Clips that nothing has to render: 10 videos, 2 clips of each, (8, 3, 32, 32), smooth random patterns."""
    coarse = np.random.default_rng(0).integers(0, 256, (10, 2, 8, 3, 4, 4), dtype=np.uint8)
    return as_clips(coarse.repeat(8, axis=-2).repeat(8, axis=-1))


@pytest.fixture
def double() -> Iterator[None]:
    """Everything that is made inside is float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def write_ramp(path: Path, frames: int, fps: float = 24.0, size: tuple[int, int] = (32, 32)) -> Path:
    """A video whose frame i has brightness 8 + LEVEL * i everywhere."""
    grey = torch.arange(frames, dtype=torch.uint8) * LEVEL + 8
    video = grey.view(-1, 1, 1, 1).expand(-1, 3, *size).contiguous()
    VideoEncoder(video, frame_rate=fps).to_file(
        str(path), codec="libx264", pixel_format="yuv420p", crf=4, extra_options={"g": 12}
    )
    return path


@pytest.fixture(scope="session")
def ramp(tmp_path_factory):
    """48 frames in two seconds."""
    return write_ramp(tmp_path_factory.mktemp("ramp") / "ramp.mp4", 48)


def a_set(folder: Path, ramp: Path, good: int, bad: int) -> Path:
    """A manifest of ``good`` copies of a ramp and ``bad`` files of text, the latter spread among the former."""
    names = [f"v{i:02}.mp4" for i in range(good + bad)]
    unreadable = names[1 :: (good + bad) // bad][:bad] if bad else []
    for name in names:
        if name in unreadable:
            (folder / name).write_text(f"no video {name}")
        else:
            shutil.copy(ramp, folder / name)
    path = folder / "manifest.csv"
    path.write_text("path,label,split\n" + "".join(f"{name},archery,pretrain\n" for name in names))
    return path


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, SimpleNamespace]]:
    """From generated videos to every stored table, on data seeds 1 and 2: {seed: namespace}."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PICOJEPA_CACHE", str(tmp_path_factory.mktemp("pipelines")))
        patch.setattr(standin, "generate", partial(standin.generate, workers=1))
        found = {}
        for seed in (1, 2):
            settings = replace(TINY, data=replace(TINY.data, seed=seed))
            clips = data.load_clips(settings)
            run = pretraining.run(settings, clips)
            ten, four = probing.make_task(clips, CLASSES), probing.make_task(clips, LABELLED_CLASSES, True)
            found[seed] = SimpleNamespace(
                settings=settings,
                clips=clips,
                run=run,
                tasks={"ten": ten, "four": four},
                probes=probing.probe_run(settings, clips, run, ten),
                probes_of_four=probing.probe_run(settings, clips, run, four),
                baselines=baselines.probe_baselines(settings, clips, ten),
                votes=ensemble.predictions(settings, clips, run),
                heads=ensemble.train_members(settings, clips, run),
                cache=Path(os.environ["PICOJEPA_CACHE"]),
            )
        yield found
