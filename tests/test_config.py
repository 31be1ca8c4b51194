"""Settings: known names, checks that name the remedy, geometry."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from picojepa import config, store
from picojepa.architecture import ModelConfig
from picojepa.clips import ClipConfig
from picojepa.config import settings
from picojepa.fitting import TrainingConfig
from picojepa.masking import MaskConfig
from standin import StandInConfig


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in ("PICOJEPA_PROFILE", "PICOJEPA_RECIPE", "PICOJEPA_CACHE"):
        monkeypatch.delenv(name, raising=False)


def test_laptop_and_vjepa_are_the_defaults():
    assert (settings().profile, settings().recipe) == ("laptop", "vjepa")


@pytest.mark.parametrize("profile", ["smoke", "laptop", "paper"])
def test_the_environment_chooses_the_profile(monkeypatch, profile):
    monkeypatch.setenv("PICOJEPA_PROFILE", profile)
    assert settings() == config.PROFILES[profile]
    assert settings().profile == profile
    assert settings("smoke").profile == "smoke"  # an argument is stronger than the environment


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("PICOJEPA_PROFILE", r"unknown profile 'huge' \(PICOJEPA_PROFILE\); known: smoke, laptop, paper"),
        ("PICOJEPA_RECIPE", r"unknown recipe 'huge' \(PICOJEPA_RECIPE\); known: vjepa, published"),
    ],
)
def test_unknown_names_in_the_environment_are_refused(monkeypatch, variable, message):
    monkeypatch.setenv(variable, "huge")
    with pytest.raises(ValueError, match=message):
        settings()


def test_the_environment_moves_the_cache(monkeypatch, tmp_path):
    assert store.cache_folder() == store.DATA / "cache"
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path / "elsewhere"))
    assert store.cache_folder() == tmp_path / "elsewhere"


def test_settings_are_frozen_and_fit_into_json(tiny):
    with pytest.raises(FrozenInstanceError):
        tiny.recipe = "other"
    assert json.loads(json.dumps(tiny.as_dict()))["training"]["mask"]["strategy"] == "tube"


def test_grid_and_steps():
    paper = settings("paper")
    assert paper.grid == (4, 14, 14)
    assert paper.training.steps == 2880
    assert settings("laptop").grid == (4, 4, 4)
    assert TrainingConfig(clips=100, batch=33).steps == 3


def test_pre_training_in_the_paper_is_four_epochs_of_its_list():
    videos = sum(config.PAPER_PRETRAINING)
    assert videos == 7203
    assert settings("paper").training.clips == 4 * (videos // 10) * 10


# Each message holds the number that is wrong and what to change.
@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ({"size": 8}, r"frames of 8 pixels are smaller than a patch of 16.*(clip\.size|model\.patch)"),
        ({"size": 56}, r"56 pixels do not divide into patches of 16.*(clip\.size|model\.patch)"),
        ({"frames": 7}, r"7 frames do not divide into tubelets of 2.*(clip\.frames|model\.tubelet)"),
    ],
)
def test_geometry_that_does_not_fit_is_refused(clip, message):
    base = settings("laptop")
    with pytest.raises(ValueError, match=message):
        replace(base, clip=replace(base.clip, **clip))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskConfig(ratio=0.0), "masked share must lie strictly between 0 and 1, not 0.0"),
        (lambda: MaskConfig(ratio=1.0), "masked share must lie strictly between 0 and 1, not 1.0"),
        (lambda: MaskConfig(strategy="stripes"), "unknown mask strategy 'stripes'; known: tube, multiblock, causal"),
        (lambda: ModelConfig(width=130), "width of 130 does not divide into 4 heads"),
        (lambda: ModelConfig(predictor_width=66), "width of 66 does not divide into 4 heads"),
        (lambda: ModelConfig(width=4), "width of 4 has no room for 3-D sine-cosine positions"),
        (lambda: TrainingConfig(clips=10, batch=32), "clips must be at least one batch"),
        (lambda: TrainingConfig(ema=(1.0, 0.9)), r"EMA momenta must rise within \[0, 1\]"),
        (lambda: StandInConfig(scale=0), r"scale must lie in \(0, 1\], not 0"),
        (lambda: StandInConfig(scene_correlation=1.5), r"scene_correlation must lie in \[0, 1\], not 1.5"),
        (lambda: ClipConfig(frames=0), "at least one frame"),
        (lambda: ClipConfig(clips_per_video=0), "clips_per_video must be at least 1"),
        (lambda: ClipConfig(stride=0), "stride must be at least 1, not 0"),
        (lambda: ModelConfig(dropout=1.0), r"dropout must lie in \[0, 1\), not 1.0"),
        (lambda: TrainingConfig(precision="float16"), "unknown precision 'float16'; known: float32, bfloat16"),
        (lambda: TrainingConfig(crop=(0.5, 1.1)), r"a crop keeps a share of the frame: .*, not \(0.5, 1.1\)"),
        (lambda: TrainingConfig(crop=(0.5, 0.3)), r"a crop keeps a share of the frame: .*, not \(0.5, 0.3\)"),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("training.batch=64", lambda s: s.training.batch == 64),
        ("training.learning_rate=2", lambda s: s.training.learning_rate == 2),
        ("training.mask.ratio=0.5", lambda s: s.training.mask.ratio == 0.5),
        ("training.mask.strategy=multiblock", lambda s: s.training.mask.strategy == "multiblock"),
        ("training.ema=(0.9, 1.0)", lambda s: s.training.ema == (0.9, 1.0)),
        ("training.crop=(0.3, 1.0)", lambda s: s.training.crop == (0.3, 1.0)),
        ("clip.frames_per_second=None", lambda s: s.clip.frames_per_second is None),
        ("training.stop_gradient=False", lambda s: s.training.stop_gradient is False),
        ("collapse_clips=320", lambda s: s.collapse_clips == 320),
    ],
)
def test_one_number_is_changed_and_nothing_else(text, found):
    base = settings("smoke")
    changed = config.override(base, text)
    assert found(changed)
    assert not found(base)
    here, there = flat(base.as_dict()), flat(changed.as_dict())
    assert [name for name in here if here[name] != there[name]] == [text.partition("=")[0]]


def flat(tree: dict, path: str = "") -> dict:
    """One level: {"training.mask.ratio": 0.75, ...}."""
    found = {}
    for name, value in tree.items():
        found |= flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found


def test_changes_that_need_each_other_are_made_together():
    """Either alone, and each before the other, would not fit."""
    changed = config.override(settings("smoke"), "clip.size=60", "model.patch=20", "model.width=30", "model.heads=5")
    assert (changed.grid, changed.model.width, changed.model.heads) == ((4, 3, 3), 30, 5)
    assert config.override(settings("smoke")) == settings("smoke")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.btach=1", "unknown setting 'btach'; known here: clips, batch, learning_rate"),
        ("trainign.batch=1", "unknown setting 'trainign'; known here: profile, recipe, published, data, clip"),
        ("training.batch.size=1", "unknown setting 'size'; known here: nothing"),
        ("training.batch", "'training.batch' names no value; write section.field=value"),
        ("training=5", "'training=5' names no value; write section.field=value"),
        ("training.batch=many", "training.batch is 16; many is of another kind"),
        ("training.clips=1e5", "training.clips is 960; 1e5 is of another kind"),
        ("training.ema=0.99", r"training.ema is \(0.9995, 1.0\); 0.99 is of another kind"),
        ("model.heads=5", "a width of 32 does not divide into 5 heads"),
        ("training.precision=float16", "unknown precision 'float16'"),
    ],
)
def test_changes_that_make_no_sense_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        config.override(settings("smoke"), text)
