"""Short seeded runs of every stage give the numbers that are recorded beside its version, in golden.json.

The key of a result holds the stage's version, not its code. So whoever changes what a stage computes raises its
version, and these tests tell who forgot. ``python -m pytest tests/test_golden.py --record`` writes down the numbers
of stages that are not recorded or have another version than the record.
"""

import importlib
import json
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import figures
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from figures import training_film
from safetensors.torch import save_file
from torchcodec.encoders import VideoEncoder

import picojepa
from evidence import baselines
from footage import videos
from picojepa import data, ensemble, machine, pretraining, probing, store
from picojepa.architecture import new_encoder
from picojepa.checkpoints import read_metrics
from picojepa.clips import Clips
from picojepa.config import as_published
from picojepa.features import encode, load_encoder
from picojepa.fitting import ProbeConfig, TrainingConfig
from picojepa.jepa import JEPA
from picojepa.masking import MaskConfig
from picojepa.store import Stage

RECORD = Path(__file__).with_name("golden.json")
AGAIN = "`python -m pytest tests/test_golden.py --record`"
RELATIVE, ABSOLUTE = 5e-4, 1e-5  # other processors, which round otherwise, stay within a hundredth of this
CLASSES = ("bow", "crawl", "jump", "wave")

# Schedules, cropping and clipping are set so that a change of each shows after a few steps.
SHORT = replace(
    TINY,
    training=TrainingConfig(
        clips=240,
        batch=16,
        learning_rate=2e-3,
        weight_decay=(0.1, 2.0),
        ema=(0.8, 1.0),
        gradient_clip=0.2,
        mask=MaskConfig(ratio=0.6),
        crop=(0.4, 0.9),
        precision="float32",
        log_every=1,
        watch_every=5,
        seed=3,
    ),
    probe=ProbeConfig(epochs=8, batch=8, attentive_epochs=3, supervised_epochs=4, neighbours=3),
)
# Dropout is left out: where PyTorch computes with MKL it draws other numbers than elsewhere.
PUBLISHED = as_published(SHORT)
PUBLISHED = replace(PUBLISHED, model=replace(PUBLISHED.model, dropout=0.0))
RUNS = {
    "vjepa": SHORT,
    "published": PUBLISHED,
    "without stop-gradient": replace(SHORT, training=replace(SHORT.training, stop_gradient=False)),
    "two masks": replace(SHORT, training=replace(SHORT.training, mask=MaskConfig(strategy="multiblock"), crop=None)),
}

Numbers = dict[str, float]


def stages() -> dict[str, Stage]:
    """Every stage of the package and of the figures, by name."""
    found = {}
    rooms = [pkgutil.iter_modules(room.__path__, f"{room.__name__}.") for room in (picojepa, figures)]
    for name in (*(module.name for room in rooms for module in room), "evidence.baselines"):
        values = vars(importlib.import_module(name)).values()
        found |= {value.name: value for value in values if isinstance(value, Stage)}
    return found


STAGES = stages()


@pytest.fixture(autouse=True)
def _one_thread(cache):
    """Sums are taken in the same order everywhere."""
    with machine.threads(1):
        yield


# ---------------------------------------------------------------- the runs


def a_video(folder: Path) -> pd.DataFrame:
    """A list of one video without loss: a bright edge that moves, in other colours from frame to frame."""
    frame, row, column = torch.meshgrid(torch.arange(40), torch.arange(48), torch.arange(64), indexing="ij")
    edge = (column > frame + row / 4).to(torch.uint8) * 100
    channels = [edge + 20 + 2 * frame, 200 - edge - 3 * frame, 30 + 4 * frame + row]  # (T, H, W)
    path, pixels = folder / "edge.mp4", torch.stack(channels, 1).to(torch.uint8)
    VideoEncoder(pixels, frame_rate=20).to_file(str(path), codec="libx264", pixel_format="yuv420p", crf=0)
    return pd.DataFrame({"path": [str(path)], "label": "edge", "split": "pretrain", "labelled": True})


def some_clips() -> Clips:
    """24 training and 16 validation clips of four classes; a class is brighter in one place and moves at one speed."""
    rng, rows = np.random.default_rng(0), np.arange(40)
    coarse = rng.integers(0, 120, (40, 2, 8, 3, 4, 4))
    coarse[rows, :, :, 0, rows % 4] += 50
    coarse += (rows % 4)[:, None, None, None, None, None] * np.arange(8)[:, None, None, None] * 2
    clips = coarse.astype(np.uint8).repeat(8, axis=-2).repeat(8, axis=-1)  # (n, clips, T, 3, H, W)
    table = pd.DataFrame({"path": [f"/videos/{row:02}.mp4" for row in rows], "label": np.array(CLASSES)[rows % 4]})
    table = table.assign(split=np.where(rows < 24, "pretrain", "validation"), labelled=rows % 5 > 0)
    return Clips(table, clips[:24], clips[:, 0], table.iloc[:0].assign(reason=""), "golden")


def a_run(folder: Path) -> Path:
    """The folder of an encoder that nobody has trained."""
    (run := folder / "run").mkdir()
    save_file(new_encoder(SHORT.model, SHORT.grid, 7).state_dict(), run / "encoder.safetensors")
    return run


def of(name: str, values: np.ndarray | torch.Tensor) -> Numbers:
    """Mean size and standard deviation of some values."""
    values = np.asarray(values, dtype=np.float64)
    return {f"{name}: mean size": float(np.abs(values).mean()), f"{name}: std": float(values.std())}


def of_answers(table: pd.DataFrame, by: list[str]) -> Numbers:
    """Mean certainty, and mean probability of the right class, in each group of a table of predictions."""
    right = pd.Series([row[f"p_{row['label']}"] for row in table.to_dict("records")], index=table.index)
    means = table.assign(right=right).groupby(by)[["certainty", "right"]].mean()
    return {f"{' '.join(group)}: {column}": means.loc[group, column] for group in means.index for column in means}


def decoded(folder: Path) -> Numbers:
    clips = data.load_clips(SHORT, a_video(folder))
    return (
        of("training clips", clips.training)
        | of("centre clip", clips.centre)
        | of("change", np.diff(clips.centre, axis=1).astype(np.int8))
    )


def trained(folder: Path, names: tuple[str, ...] = tuple(RUNS)) -> Numbers:
    numbers, clips = {}, some_clips()
    for name in names:
        settings = RUNS[name]
        run = pretraining.run(settings, clips)
        rows = read_metrics(run).set_index("step")
        for step in (0, 5, rows.index[-1]):
            numbers |= {
                f"{name}, step {step}: {column}": rows.loc[step, column] for column in ("loss", "gradient_norm")
            }
        features = encode(load_encoder(run / "encoder.safetensors", settings), clips.centre, pool=False)
        numbers |= of(f"{name}, features", features)
        numbers[f"{name}, spread"] = rows.spread.iloc[-1]
    return numbers


def filmed(folder: Path) -> Numbers:
    watched = training_film.watch(SHORT, some_clips())
    return of("features", np.load(watched / "features.npy")) | {"loss": read_metrics(watched).loss.mean()}


def probed(folder: Path) -> Numbers:
    clips = some_clips()
    table = probing.probe_run(SHORT, clips, a_run(folder), probing.make_task(clips, CLASSES))
    return of_answers(table, ["features", "probe"])


def compared(folder: Path) -> Numbers:
    clips = some_clips()
    table = baselines.probe_baselines(SHORT, clips, probing.make_task(clips, CLASSES))
    return of_answers(table, ["features", "probe"])


def fitted(folder: Path) -> Numbers:
    heads, numbers = ensemble.train_members(SHORT, some_clips(), a_run(folder)), {}
    for member, head in heads.items():
        numbers |= of(f"{member}, weights", head.linear.weight.detach()) | of(
            f"{member}, biases", head.linear.bias.detach()
        )
    return numbers


def voted(folder: Path) -> Numbers:
    return of_answers(ensemble.predictions(SHORT, some_clips(), a_run(folder)), ["member", "label"])


MEASURES: dict[str, Callable[[Path], Numbers]] = {
    "data.clips": decoded,
    "pretraining.run": trained,
    "pretraining.film": filmed,
    "probing.encoder": probed,
    "probing.baselines": compared,
    "ensemble.heads": fitted,
    "ensemble.predictions": voted,
}


# ---------------------------------------------------------------- the record


def recorded() -> dict[str, dict]:
    """Stage name -> version and numbers."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}


def fault(stage: Stage, numbers: Numbers, record: dict[str, dict]) -> str:
    """What is wrong with a stage's record; empty if nothing is."""
    if stage.name not in record:
        return f"{stage.name} has no golden record: record it with {AGAIN}"
    version, known = record[stage.name]["version"], record[stage.name]["numbers"]
    if version != stage.version:
        return f"{stage.name} has version {stage.version}, its golden record {version}: record again with {AGAIN}"
    close = {name: np.isclose(numbers[name], known[name], RELATIVE, ABSOLUTE) for name in numbers.keys() & known}
    different = {n: (known.get(n), numbers.get(n)) for n in sorted(numbers | known) if not close.get(n)}
    told = f"the numbers of {stage.name} changed: raise its version and record again with {AGAIN}; recorded, found: "
    return told + str(different) if different else ""


def write_down(stage: Stage, numbers: Numbers) -> None:
    """Record a stage's numbers, unless those of this version are recorded: then they may not change."""
    record = recorded()
    if record.get(stage.name, {}).get("version") != stage.version:
        rounded = {name: float(f"{value:.6g}") for name, value in numbers.items()}
        store.write_json(RECORD, record | {stage.name: {"version": stage.version, "numbers": rounded}})


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_the_numbers_of_a_stage_are_the_recorded_ones(stage, tmp_path, request):
    assert stage.name in MEASURES, f"{stage.name} has no golden record: add a short run of it to MEASURES"
    numbers = MEASURES[stage.name](tmp_path)
    assert np.isfinite(list(numbers.values())).all()
    if request.config.getoption("--record"):
        write_down(stage, numbers)
    assert not (wrong := fault(stage, numbers, recorded())), wrong


# ---------------------------------------------------------------- that the record tells


def begin_later(function, jobs, clip, **limits):
    """Decode the training clips a bit later than asked."""
    later = [(number, path, [middle, *(0.9 * p + 0.1 for p in draws)]) for number, path, (middle, *draws) in jobs]
    return DECODE(function, later, clip, **limits)


DECODE = videos.workers.run
PLANTED = {
    "data.clips": (videos.workers, "run", begin_later),
    "pretraining.run": (JEPA, "distance", lambda self, found, wanted: F.smooth_l1_loss(found, wanted, beta=0.1)),
    "pretraining.film": (JEPA, "targets", JEPA.target_features),
    "probing.encoder": (probing, "PENALTIES", (1e3,)),
    "probing.baselines": (probing, "PENALTIES", (1e-4,)),
    "ensemble.heads": (ensemble, "seeded", lambda seed: machine.seeded(seed + 1)),
    "ensemble.predictions": (ensemble, "soft_vote", lambda scores: np.median(scores, 0)),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_change_is_noticed(name, tmp_path, monkeypatch):
    monkeypatch.setattr(*PLANTED[name])
    told = fault(STAGES[name], MEASURES[name](tmp_path), recorded())
    assert told.startswith(f"the numbers of {name} changed: raise its version and record again with `python -m pytest")


FORMULAS = {
    "a schedule": (pretraining, "cosine", lambda progress, first, last: first + (last - first) * min(progress, 1)),
    "the moving average": (JEPA, "follow", lambda self, momentum: None),
    "a crop": (pretraining, "crop", lambda clips, boxes: clips),
    "the seeds of steps": (pretraining, "step_seed", lambda step, config: config.seed + step),
    "the limit of the gradient": (pretraining, "gradient_limit", lambda step, config: 0.3),
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_what_shapes_training_shows_in_its_numbers(formula, tmp_path, monkeypatch):
    monkeypatch.setattr(*FORMULAS[formula])
    stage, numbers = STAGES["pretraining.run"], trained(tmp_path, ("vjepa",))
    known = {name: recorded()[stage.name]["numbers"][name] for name in numbers}
    assert "pretraining.run changed" in fault(
        stage, numbers, {stage.name: {"version": stage.version, "numbers": known}}
    )


def test_every_stage_is_planted_with_a_change():
    assert set(PLANTED) == set(MEASURES) == set(STAGES)
    assert set(STAGES) <= set(recorded())


def test_what_is_wrong_with_a_record_is_told():
    stage, numbers = Stage("a.stage", 2), {"loss": 0.5, "zero": 0.0}
    record = {"a.stage": {"version": 2, "numbers": {"loss": 0.5002, "zero": 5e-6}}}
    assert fault(stage, numbers, record) == "", "another processor"
    assert fault(stage, {"loss": 0.503, "zero": 0.0}, record).endswith("found: {'loss': (0.5002, 0.503)}")
    assert fault(stage, {"loss": 0.5}, record).endswith("found: {'zero': (5e-06, None)}")
    assert fault(stage, numbers | {"more": 1.0}, record).endswith("found: {'more': (None, 1.0)}")
    assert fault(stage, numbers, {}) == f"a.stage has no golden record: record it with {AGAIN}"
    assert fault(Stage("a.stage", 3), numbers, record).startswith("a.stage has version 3, its golden record 2")


def test_recording_changes_nothing_that_has_the_same_version(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.RECORD", tmp_path / "golden.json")
    for version, loss in [(1, 0.5), (1, 0.6), (2, 0.7)]:
        write_down(Stage("a.stage", version), {"loss": loss})
        wanted = {1: 0.5, 2: 0.7}[version]
        assert recorded() == {"a.stage": {"version": version, "numbers": {"loss": wanted}}}
