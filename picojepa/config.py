"""Every number of an experiment: the profiles, the recipes, and the one place that reads them from the environment.

A *profile* says how large the experiment is (``smoke``, ``laptop``, ``paper``), a *recipe* how the model is trained
(``adapted``, ``vjepa``, ``published``).
Each part of the settings is a frozen dataclass beside the code that it configures. Variants are made with
`dataclasses.replace`, or from words of a command line with `override`.

Book: every chapter begins with ``settings()``.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import tyro

from picojepa import require
from picojepa.architecture import ModelConfig
from picojepa.clips import ClipConfig
from picojepa.fitting import ProbeConfig, TrainingConfig
from picojepa.masking import Grid, MaskConfig
from standin.plan import StandInConfig

# In what the published code differs from V-JEPA, and the finding F1-F6 that describes it. Chapter 4 has the table.
SWITCHES = {
    "mask_runs": "F1: masks are runs of neighbouring tokens that change from slice to slice, not tubes",
    "encode_hidden": "F2: the context encoder sees the hidden tokens too; they are left out afterwards",
    "idle_mask_token": "F3: the mask token is never trained, and its growing gradient enters the clipped norm",
    "noisy_target": "F4: the target encoder's dropout is active",
    "early_ema": "F4: the target encoder follows inside the next forward pass",
    "squared_error": "F5: squared for absolute error",
    "raw_targets": "F5: targets are not layer-normalised",
    "noisy_probe": "F6: the frozen encoder's dropout is active while a head is trained",
    "decoder_predictor": "a Transformer decoder of the encoder's width, with the encoder's learned positions",
    "dropout": "dropout 0.1 in encoder and predictor",
    "constant_ema": "an EMA momentum of 0.996 from the first step to the last",
    "schedules": "constant weight decay, the predictor at twice the rate, a quarter of warm-up without clipping",
}


@dataclass(frozen=True)
class Settings:
    """One whole experiment."""

    profile: Annotated[str, tyro.conf.Suppress]
    recipe: Annotated[str, tyro.conf.Suppress] = "vjepa"
    published: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()  # switches of that recipe; see `as_published`
    data: StandInConfig = field(default_factory=StandInConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    live_clips: int = 6_000  # first part of the pre-training that chapter 4 does live
    collapse_clips: int = 3_200  # length of the runs with and without stop-gradient in chapter 4

    def __post_init__(self) -> None:
        require(self.recipe in RECIPES, f"unknown recipe {self.recipe!r}; known: {', '.join(RECIPES)}")
        require(self.recipe == "published" or not self.published, "only the recipe 'published' has switches")
        clip, model = self.clip, self.model
        said = f"{clip.size} pixels do not divide into patches of {model.patch}"
        require(clip.size % model.patch == 0, f"{said}; change clip.size or model.patch")
        said = f"{clip.frames} frames do not divide into tubelets of {model.tubelet}"
        require(clip.frames % model.tubelet == 0, f"{said}; change clip.frames or model.tubelet")

    @property
    def grid(self) -> Grid:
        """Token grid: (time slices, rows, columns)."""
        side = self.clip.size // self.model.patch
        return self.clip.frames // self.model.tubelet, side, side

    def as_dict(self) -> dict[str, Any]:
        """Nested plain dictionary, for keys and run cards."""
        return asdict(self)


def as_published(settings: Settings, *switches: str) -> Settings:
    """Settings, of the recipe ``vjepa``, with habits of the published code: the named `SWITCHES`, or all of them.

    Raises:
        ValueError: unknown switch, with the list of known ones.
    """
    chosen = tuple(name for name in SWITCHES if name in switches or not switches)
    unknown = sorted({*switches} - {*SWITCHES})
    require(not unknown, f"unknown switch {', '.join(unknown)}; known: {', '.join(SWITCHES)}")
    model, training, probe = settings.model, replace(settings.training, precision="float32"), settings.probe
    if "dropout" in chosen:
        model = replace(model, dropout=0.1)
    if "constant_ema" in chosen:
        training = replace(training, ema=(0.996, 0.996))
    if "schedules" in chosen:
        training = replace(training, weight_decay=(0.05, 0.05), predictor_rate=2.0, warmup=0.25, clip_warmup=False)
    if "noisy_probe" in chosen:
        probe = replace(probe, dropout_draws=4)
    return replace(settings, recipe="published", published=chosen, model=model, training=training, probe=probe)


def adapted(settings: Settings) -> Settings:
    """Settings, of the recipe ``vjepa``, with what a small encoder needs to learn from short videos in minutes.

    Targets without what all tokens of a clip share, so that light and background cannot be the answer; a weak term
    that keeps features spread; half of the cells hidden; three convolutions inside every tubelet, and PyTorch's own
    first weights, with which a small Transformer starts sooner.

    Source: the tries in data/pilot.csv and LOG.md. Book: chapters 4 and 5.
    """
    model = replace(settings.model, embedding="convolutions", first_weights=None)
    mask = replace(settings.training.mask, ratio=0.5)
    training = replace(settings.training, target="minus clip mean", mask=mask)
    training = replace(training, spreading="variance-covariance", spreading_weight=0.01)
    return replace(settings, recipe="adapted", model=model, training=training)


# How the model is trained: V-JEPA adapted to this scale, as in V-JEPA, or as pico-JEPA's published code does it.
RECIPES: dict[str, Callable[[Settings], Settings]] = {
    "adapted": adapted,
    "vjepa": lambda settings: settings,
    "published": as_published,
}

PROFILES = {
    "smoke": Settings(
        profile="smoke",
        data=StandInConfig(scale=0.012, validation_scale=0.17),
        clip=ClipConfig(clips_per_video=2),
        model=ModelConfig(width=32, depth=2, predictor_width=24, predictor_depth=1),
        training=TrainingConfig(clips=960, batch=16, log_every=5, watch_every=10, checkpoint_every=20),
        probe=ProbeConfig(epochs=10, attentive_epochs=3, supervised_epochs=4, neighbours=3),
        live_clips=320,
        collapse_clips=480,
    ),
    "laptop": Settings(profile="laptop"),
    "paper": Settings(
        profile="paper",
        data=StandInConfig(scale=1.0),
        clip=ClipConfig(frames=8, size=224, frames_per_second=None, clips_per_video=4),
        model=ModelConfig(width=192, depth=8, heads=8, predictor_width=96, predictor_depth=2, predictor_heads=4),
        training=TrainingConfig(
            28_800, 10, 2e-4, warmup=0.25, ema=(0.998, 1.0), mask=MaskConfig(ratio=0.75), checkpoint_every=50
        ),
        probe=ProbeConfig(4, 10, 1e-4, attentive_epochs=4, attentive_learning_rate=1e-4, supervised_epochs=4),
        live_clips=2_400,
        collapse_clips=2_400,
    ),
}


def override(settings: Settings, *words: str, prog: str | None = None) -> Settings:
    """Settings with some numbers changed by the words of a command line, all at once.

    Words are such as ``--training.ema 0.9 1`` or ``training.ema=(0.9, 1)``; ``--help`` lists all settings.

    Raises:
        SystemExit: an unknown name, or a value that does not fit; the reason was printed, with the names that are near.
    """
    options: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        plain = not equals or name.startswith("-")
        options += [word] if plain else [f"--{name}", *value.strip("()").replace(",", " ").split()]
    return tyro.cli(tyro.conf.FlagConversionOff[Settings], default=settings, args=options, prog=prog)


def settings(profile: str | None = None, recipe: str | None = None) -> Settings:
    """The experiment of a profile (``PICOJEPA_PROFILE``, else laptop) and recipe (``PICOJEPA_RECIPE``, else adapted).

    Raises:
        ValueError: unknown profile or recipe, with the list of known ones.
    """
    profile = profile or os.environ.get("PICOJEPA_PROFILE") or "laptop"
    recipe = recipe or os.environ.get("PICOJEPA_RECIPE") or "adapted"
    require(profile in PROFILES, f"unknown profile {profile!r} (PICOJEPA_PROFILE); known: {', '.join(PROFILES)}")
    require(recipe in RECIPES, f"unknown recipe {recipe!r} (PICOJEPA_RECIPE); known: {', '.join(RECIPES)}")
    return RECIPES[recipe](PROFILES[profile])
