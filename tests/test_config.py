"""Settings: known names, checks that name the remedy, geometry."""

import json
import math
import re
from dataclasses import FrozenInstanceError, asdict, fields, replace

import pytest

from picojepa import config, results, store
from picojepa.architecture import ModelConfig
from picojepa.clips import ClipConfig
from picojepa.config import Settings, settings
from picojepa.fitting import ProbeConfig, TrainingConfig
from picojepa.masking import MaskConfig
from standin.plan import StandInConfig

BASE = config.PROFILES["smoke"]
PARTS = ("data", "clip", "model", "training", "probe")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in ("PICOJEPA_PROFILE", "PICOJEPA_RECIPE", "PICOJEPA_CACHE"):
        monkeypatch.delenv(name, raising=False)


def test_laptop_and_adapted_are_the_defaults():
    assert (settings().profile, settings().recipe) == ("laptop", "adapted")


@pytest.mark.parametrize("profile", ["smoke", "laptop", "paper"])
def test_the_environment_chooses_the_profile(monkeypatch, profile):
    monkeypatch.setenv("PICOJEPA_PROFILE", profile)
    assert settings() == config.adapted(config.PROFILES[profile])
    assert settings().profile == profile
    assert settings("smoke").profile == "smoke"  # an argument is stronger than the environment


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("PICOJEPA_PROFILE", r"unknown profile 'huge' \(PICOJEPA_PROFILE\); known: smoke, laptop, paper"),
        ("PICOJEPA_RECIPE", r"unknown recipe 'huge' \(PICOJEPA_RECIPE\); known: adapted, vjepa, published"),
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
    for part in (tiny, tiny.training.mask, *(getattr(tiny, name) for name in PARTS)):
        with pytest.raises(FrozenInstanceError):
            setattr(part, fields(part)[0].name, "other")
    assert json.loads(json.dumps(tiny.as_dict()))["training"]["mask"]["strategy"] == "tube"


@pytest.mark.parametrize("profile", config.PROFILES)
def test_a_profile_knows_its_name_and_is_of_the_recipe_vjepa(profile):
    found = config.PROFILES[profile]
    assert (found.profile, found.recipe, found.published) == (profile, "vjepa", ())
    assert settings(profile, "vjepa") == found
    assert settings(profile, "published") == config.as_published(found)
    assert set(settings(profile, "published").published) == set(config.SWITCHES)


def test_what_is_adapted_is_named_and_nothing_else_differs():
    base = config.PROFILES["laptop"]
    changed, found = flat(config.adapted(base).as_dict()), flat(base.as_dict())
    assert {name: changed[name] for name in found if changed[name] != found[name]} == {
        "recipe": "adapted",
        "model.embedding": "convolutions",
        "model.first_weights": None,
        "training.mask.ratio": 0.5,
        "training.target": "minus clip mean",
        "training.spreading": "variance-covariance",
        "training.spreading_weight": 0.01,
    }


def test_grid_and_steps():
    paper = settings("paper")
    assert paper.grid == (4, 14, 14)
    assert paper.training.steps == 2880
    assert settings("laptop").grid == (4, 4, 4)
    assert TrainingConfig(clips=100, batch=33).steps == 3


def test_pre_training_in_the_paper_is_four_epochs_of_its_list():
    videos = results.paper_total("pretraining")
    assert videos == 7203
    assert settings("paper").training.clips == 4 * (videos // 10) * 10


# Each message holds the number that is wrong and what to change.
@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ({"size": 8}, r"8 pixels do not divide into patches of 16.*(clip\.size|model\.patch)"),
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
        (lambda: ModelConfig(dropout=1.0), r"dropout must lie in \[0, 1\), not 1.0"),
        (lambda: ModelConfig(mlp_ratio=0), "mlp_ratio must be above 0, not 0"),
        (
            lambda: TrainingConfig(ema=(1.0, 0.9)),
            r"ema must be two numbers that rise within \[0, 1\], not \(1.0, 0.9\)",
        ),
        (lambda: TrainingConfig(ema=(0.9, 0.95, 1.0)), "ema must be two numbers"),
        (lambda: TrainingConfig(ema=0.9), "ema must be two numbers"),
        (lambda: TrainingConfig(weight_decay=(0.1,)), "weight_decay must be two numbers"),
        (lambda: TrainingConfig(weight_decay=("a", "b")), "weight_decay must be two numbers"),
        (lambda: TrainingConfig(weight_decay=(-0.1, 0.1)), r"weight_decay must .* within \[0, inf\]"),
        (lambda: TrainingConfig(precision="float16"), "unknown precision 'float16'; known: float32, bfloat16"),
        (lambda: TrainingConfig(crop=(0.5, 1.1)), r"crop must be two numbers .* \[0, 1\], not \(0.5, 1.1\)"),
        (lambda: TrainingConfig(crop=(0.5, 0.3)), "crop must be two numbers that rise"),
        (lambda: TrainingConfig(crop=(0.0, 1.0)), "a crop keeps a share of the frame above 0"),
        (lambda: StandInConfig(scale=0), r"scale must lie in \(0, 1\], not 0"),
        (lambda: StandInConfig(scene_correlation=1.5), r"scene_correlation must lie in \[0, 1\], not 1.5"),
        (lambda: StandInConfig(seconds=(2, 1)), r"seconds must be two numbers above 0 that rise, not \(2, 1\)"),
        (
            lambda: StandInConfig(figure_height=(0.0, 0.5)),
            r"figure_height must be two numbers above 0 that rise, not \(0.0, 0.5\)",
        ),
        (lambda: ClipConfig(frames_per_second=0), "frames_per_second must be above 0 or None, not 0"),
        (lambda: settings("smoke", "other"), "unknown recipe 'other'"),
        (lambda: Settings(profile="x", recipe="other"), "unknown recipe 'other'; known: adapted, vjepa, published"),
        (lambda: Settings(profile="x", published=("dropout",)), "only the recipe 'published' has switches"),
        (lambda: config.as_published(settings(), "typo"), "unknown switch typo; known: mask_runs, encode_hidden"),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# What others are divided by, or counted in: a number of at least 1, and never none.
WHOLE = {
    MaskConfig: ("visible_slices",),
    ClipConfig: ("frames", "size", "stride", "clips_per_video"),
    ModelConfig: ("patch", "tubelet", "depth", "heads", "predictor_depth", "predictor_heads"),
    TrainingConfig: ("clips", "batch", "log_every", "watch_every", "checkpoint_every"),
    ProbeConfig: ("epochs", "batch", "attentive_epochs", "supervised_epochs", "neighbours"),
}


@pytest.mark.parametrize("number", [0, -1, -16, None, 1.5, "2"])
@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in WHOLE.items() for name in names])
def test_counts_are_whole_numbers_of_at_least_one(part, name, number):
    with pytest.raises(ValueError, match=f"^{name} must be a whole number of at least 1, not {number!r}$"):
        part(**{name: number})


POSITIVE = {
    TrainingConfig: ("learning_rate", "predictor_rate", "gradient_clip"),
    ProbeConfig: ("learning_rate", "attentive_learning_rate"),
}


@pytest.mark.parametrize("number", [0, -1.0, math.nan, math.inf, None, "2"])
@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in POSITIVE.items() for name in names])
def test_rates_are_finite_and_above_zero(part, name, number):
    with pytest.raises(ValueError, match=f"^{name} must be a finite number above 0, not {number!r}$"):
        part(**{name: number})


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("training.batch=64", "training.batch", 64),
        ("--training.batch=64", "training.batch", 64),
        ("--training.batch 64", "training.batch", 64),
        ("training.learning_rate=2", "training.learning_rate", 2),
        ("--training.learning-rate 2", "training.learning_rate", 2),
        ("training.mask.ratio=0.6", "training.mask.ratio", 0.6),
        ("training.mask.strategy=multiblock", "training.mask.strategy", "multiblock"),
        ("training.ema=(0.9,1.0)", "training.ema", (0.9, 1.0)),
        ("--training.ema 0.9 1.0", "training.ema", (0.9, 1.0)),
        ("training.crop=(0.3,1.0)", "training.crop", (0.3, 1.0)),
        ("--training.crop 0.3 1.0", "training.crop", (0.3, 1.0)),
        ("clip.frames_per_second=None", "clip.frames_per_second", None),
        ("training.stop_gradient=False", "training.stop_gradient", False),
        ("--training.compile True", "training.compile", True),
        ("data.seconds=(1.0,2.0)", "data.seconds", (1.0, 2.0)),
        ("collapse_clips=320", "collapse_clips", 320),
    ],
)
def test_one_number_is_changed_and_nothing_else(words, name, value):
    base = settings("smoke")
    here, there = flat(base.as_dict()), flat(config.override(base, *words.split()).as_dict())
    assert {n: there[n] for n in here if here[n] != there[n]} == {name: value}


def test_a_pair_may_be_written_as_python_writes_it():
    assert config.override(settings("smoke"), "training.ema=(0.9, 1.0)").training.ema == (0.9, 1.0)


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


def test_other_numbers_keep_recipe_and_switches():
    base = settings("smoke", "published")
    assert config.override(base, "training.batch=8") == replace(base, training=replace(base.training, batch=8))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("training.btach=1", "Unrecognized options: --training.btach, 1 Perhaps you meant: --training.batch INT"),
        ("--training.btach 1", "Unrecognized options: --training.btach, 1"),
        ("trainign.batch=1", "Unrecognized options: --trainign.batch, 1 Perhaps you meant: --training.batch INT"),
        ("training.batch.size=1", "Unrecognized options: --training.batch.size, 1"),
        ("training.batch", "Unrecognized options: training.batch"),
        ("training=5", "Unrecognized options: --training, 5"),
        ("profile=paper", "Unrecognized options: --profile, paper"),
        ("recipe=published", "Unrecognized options: --recipe, published"),
        ("--training.batch", "Missing value for argument '--training.batch'. Expected 1 values"),
        ("training.batch=", "Missing value for argument '--training.batch'. Expected 1 values"),
        ("training.batch=many", "Error parsing --training.batch: invalid literal for int() with base 10: 'many'"),
        ("training.clips=1e5", "Error parsing --training.clips: invalid literal for int()"),
        ("training.batch=None", "Error parsing --training.batch: invalid literal for int() with base 10: 'None'"),
        ("training.learning_rate=None", "Error parsing --training.learning-rate: could not convert string to float"),
        ("model.mlp_ratio=wide", "Error parsing --model.mlp-ratio: could not convert string to float: 'wide'"),
        ("training.stop_gradient=perhaps", "invalid choice 'perhaps' for argument '--training.stop-gradient'"),
        ("training.ema=0.99", "Error parsing --training.ema: no type matching {None}"),
        ("training.ema=(0.9,0.95,1.0)", "Error parsing --training.ema: no type matching {None}"),
        ("training.ema=(a,b)", "Error parsing --training.ema: no type matching {None}"),
        ("training.ema=(1.0,0.9)", "Error parsing training: ema must be two numbers that rise within [0, 1]"),
        ("training.crop=0.3", "Error parsing --training.crop: no type matching {None}"),
        ("training.mask.strategy=stripes", "unknown mask strategy 'stripes'; known: tube, multiblock, causal"),
        ("model.heads=5", "Error parsing model: a width of 32 does not divide into 5 heads"),
        ("clip.size=56", "56 pixels do not divide into patches of 16; change clip.size or model.patch"),
        ("training.precision=float16", "unknown precision 'float16'; known: float32, bfloat16"),
    ],
)
def test_changes_that_make_no_sense_are_refused_with_a_reason(words, reason, capsys):
    assert reason.replace(" ", "") in refusal(words, capsys)


@pytest.mark.parametrize("number", [0, -1])
@pytest.mark.parametrize("name", WHOLE[ModelConfig])
def test_the_command_line_refuses_what_nothing_can_be_divided_by(name, number, capsys):
    said = refusal(f"model.{name}={number}", capsys)
    assert f"Errorparsingmodel:{name}mustbeawholenumberofatleast1,not{number}" in said


def refusal(words: str, capsys) -> str:
    """What is printed where words are refused, without spaces and frames, since long lines are cut."""
    with pytest.raises(SystemExit) as end:
        config.override(settings("smoke"), *words.split())
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return re.sub(r"[\s─-╿]|-{3,}", "", said.err)


def test_help_names_every_number_with_its_unit(capsys):
    with pytest.raises(SystemExit) as end:
        config.override(settings("smoke"), "--help", prog="train")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: train" in shown
    hidden = {"profile", "recipe", "published"}
    for name in flat(asdict(BASE)).keys() - hidden:
        assert f"--{name.replace('_', '-')} " in shown
    assert "B, clips per step" in re.sub(r"\s+", " ", shown)
    assert not [name for name in hidden if f"--{name}" in shown]
