"""Every number of an experiment as a frozen dataclass, and the one place that reads the environment.

A *profile* says how large the experiment is (``smoke``, ``laptop``, ``paper``), a *recipe* how the
model is trained. `settings` is the only function that reads ``PICOJEPA_PROFILE`` and
``PICOJEPA_RECIPE``; everything else receives a `Settings` and makes variants with
`dataclasses.replace`.

Book: every chapter begins with ``settings()``.
"""

import ast
import os
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from standin.plan import StandInConfig

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"

CLASSES = (
    "abseiling",
    "acting_in_play",
    "adjusting_glasses",
    "air_drumming",
    "alligator_wrestling",
    "answering_questions",
    "applauding",
    "applying_cream",
    "archaeological_excavation",
    "archery",
)
LABELLED_CLASSES = ("abseiling", "adjusting_glasses", "alligator_wrestling", "archaeological_excavation")

RECIPES = ("vjepa", "published")  # how the model is trained: as in V-JEPA, or as pico-JEPA's published code does it

# Videos per class in the paper's published lists, in the order of CLASSES and LABELLED_CLASSES.
PAPER_PRETRAINING = (957, 749, 590, 892, 610, 548, 667, 559, 661, 970)
PAPER_LABELLED = (957, 589, 610, 661)
PAPER_VALIDATION = (48, 48, 48, 50)


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class ClipConfig:
    """How a clip is cut from a video: C = 3 channels, T = ``frames``, H = W = ``size`` pixels."""

    frames: int = 8
    size: int = 64  # pixels; frames are squashed to a square
    frames_per_second: float | None = 8.0  # None: frames at the video's own rate, ``stride`` apart
    stride: int = 1  # frames from one to the next, with frames_per_second=None
    clips_per_video: int = 4  # training clips kept per video; epoch e uses clip e % clips_per_video

    def __post_init__(self) -> None:
        require(self.frames > 0 and self.size > 0, "a clip needs at least one frame and one pixel")
        require(self.clips_per_video > 0, "clips_per_video must be at least 1")
        require(self.stride > 0, f"stride must be at least 1, not {self.stride}")


@dataclass(frozen=True)
class ModelConfig:
    """Geometry of encoder and predictor; tokens form a grid (T / tubelet, H / patch, W / patch)."""

    patch: int = 16  # pixels, height and width of a patch
    tubelet: int = 2  # frames per token
    width: int = 128  # D, numbers per token
    depth: int = 4  # encoder blocks
    heads: int = 4
    mlp_ratio: float = 3.0
    predictor_width: int = 64
    predictor_depth: int = 2
    predictor_heads: int = 4
    dropout: float = 0.0  # probability, in encoder and predictor

    def __post_init__(self) -> None:
        require(0 <= self.dropout < 1, f"dropout must lie in [0, 1), not {self.dropout}")
        for width, heads in ((self.width, self.heads), (self.predictor_width, self.predictor_heads)):
            require(width % heads == 0, f"a width of {width} does not divide into {heads} heads")
            require(width >= 6 and width % 2 == 0, f"a width of {width} has no room for 3-D sine-cosine positions")


@dataclass(frozen=True)
class MaskConfig:
    """Which cells of the (rows, columns) grid are hidden; see chapter 2."""

    strategy: str = "tube"  # tube (V-JEPA calls it random tube) | multiblock | causal
    ratio: float = 0.75  # tube: share of the cells that is hidden in every frame
    visible_slices: int = 2  # causal: time slices that stay visible

    def __post_init__(self) -> None:
        known = ("tube", "multiblock", "causal")
        require(self.strategy in known, f"unknown mask strategy {self.strategy!r}; known: {', '.join(known)}")
        require(0 < self.ratio < 1, f"the masked share must lie strictly between 0 and 1, not {self.ratio}")


@dataclass(frozen=True)
class TrainingConfig:
    """Self-supervised pre-training."""

    clips: int = 96_000  # clips seen in all
    batch: int = 32  # B, clips per step
    learning_rate: float = 1e-3  # peak; linear warm-up, then cosine to final_learning_rate
    final_learning_rate: float = 1e-6
    predictor_rate: float = 1.0  # the predictor's learning rate / the encoder's
    warmup: float = 0.1  # share of the steps
    weight_decay: tuple[float, float] = (0.04, 0.4)  # first and last step, cosine between
    ema: tuple[float, float] = (0.9995, 1.0)  # momentum of the target encoder, first and last step
    gradient_clip: float = 1.0  # largest global gradient norm
    clip_warmup: bool = True  # False: gradients are clipped after the warm-up only
    seed: int = 0
    mask: MaskConfig = field(default_factory=MaskConfig)
    crop: tuple[float, float] | None = None  # random resized crop: range of the area kept; None: whole frames
    stop_gradient: bool = True  # False: one encoder for context and targets, the collapse of chapter 4
    precision: str = "bfloat16"  # of matrix products, where the device has instructions for it; else float32
    compile: bool = False  # torch.compile; pays on long runs on a GPU
    log_every: int = 25  # steps between two rows of the metrics file
    watch_every: int = 100  # steps between two looks at the features; a multiple of log_every
    checkpoint_every: int = 250  # steps between two checkpoints

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return max(1, self.clips // self.batch)

    def __post_init__(self) -> None:
        require(self.batch > 0 and self.clips >= self.batch, "clips must be at least one batch")
        require(0 <= self.ema[0] <= self.ema[1] <= 1, f"EMA momenta must rise within [0, 1], not {self.ema}")
        known = ("float32", "bfloat16")
        require(self.precision in known, f"unknown precision {self.precision!r}; known: {', '.join(known)}")
        require(
            self.crop is None or 0 < self.crop[0] <= self.crop[1] <= 1,
            f"a crop keeps a share of the frame: two numbers in (0, 1], not {self.crop}",
        )


@dataclass(frozen=True)
class ProbeConfig:
    """Heads on a frozen encoder, and supervised training beside them."""

    epochs: int = 100
    batch: int = 32
    learning_rate: float = 1e-1
    weight_decay: float = 0.05
    attentive_epochs: int = 40
    attentive_learning_rate: float = 3e-3
    dropout_draws: int = 0  # encodings with dropout on that the heads' epochs go round; 0: one without dropout
    supervised_clips: int = 24_000  # clips seen by supervised training from scratch
    neighbours: int = 10  # k of the k-NN probe
    seed: int = 0


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

    profile: str
    recipe: str = "vjepa"
    published: tuple[str, ...] = ()  # switches of the recipe ``published``; see `as_published`
    data: StandInConfig = field(default_factory=StandInConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    collapse_clips: int = 16_000  # length of the run without stop-gradient in chapter 4

    def __post_init__(self) -> None:
        require(self.recipe in RECIPES, f"unknown recipe {self.recipe!r}; known: {', '.join(RECIPES)}")
        require(self.recipe == "published" or not self.published, "only the recipe 'published' has switches")
        require(
            self.clip.size >= self.model.patch,
            f"frames of {self.clip.size} pixels are smaller than a patch of {self.model.patch}; "
            "change clip.size or model.patch",
        )
        require(
            self.clip.size % self.model.patch == 0,
            f"{self.clip.size} pixels do not divide into patches of {self.model.patch}; "
            "change clip.size or model.patch",
        )
        require(
            self.clip.frames % self.model.tubelet == 0,
            f"{self.clip.frames} frames do not divide into tubelets of {self.model.tubelet}; "
            "change clip.frames or model.tubelet",
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Token grid: (time slices, rows, columns)."""
        side = self.clip.size // self.model.patch
        return self.clip.frames // self.model.tubelet, side, side

    def as_dict(self) -> dict[str, Any]:
        """Nested plain dictionary, for keys and run cards."""
        return asdict(self)


PROFILES = {
    "smoke": Settings(
        profile="smoke",
        data=StandInConfig(scale=0.012, validation_scale=0.17),
        clip=ClipConfig(clips_per_video=2),
        model=ModelConfig(width=32, depth=2, predictor_width=24, predictor_depth=1),
        training=TrainingConfig(clips=960, batch=16, log_every=5, watch_every=10, checkpoint_every=20),
        probe=ProbeConfig(epochs=10, attentive_epochs=3, supervised_clips=320, neighbours=3),
        collapse_clips=480,
    ),
    "laptop": Settings(profile="laptop"),
    "paper": Settings(
        profile="paper",
        data=StandInConfig(scale=1.0),
        clip=ClipConfig(frames=8, size=224, frames_per_second=None, clips_per_video=4),
        model=ModelConfig(width=192, depth=8, heads=8, predictor_width=96, predictor_depth=2, predictor_heads=4),
        training=TrainingConfig(
            clips=28_800,
            batch=10,
            learning_rate=2e-4,
            warmup=0.25,
            weight_decay=(0.04, 0.4),
            ema=(0.998, 1.0),
            mask=MaskConfig(ratio=0.75),
            checkpoint_every=50,
        ),
        probe=ProbeConfig(
            epochs=4,
            batch=10,
            learning_rate=1e-4,
            attentive_epochs=4,
            attentive_learning_rate=1e-4,
            supervised_clips=28_800,
        ),
        collapse_clips=2_400,
    ),
}


def as_published(settings: Settings, *switches: str) -> Settings:
    """Settings with habits of the published code.

    Args:
        settings: of the recipe ``vjepa``.
        switches: names in `SWITCHES`; none: all of them.

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


def change(settings: Settings, *changes: str) -> Settings:
    """Settings with some numbers changed, all at once: what must fit together is checked together.

    Args:
        settings: any.
        changes: texts such as ``"training.batch=64"``; the value is a Python literal or a word.

    Raises:
        ValueError: unknown section or field, with the list of known ones; a value of another kind than before.
    """
    wanted: dict[str, Any] = {}
    for text in changes:
        path, equals, word = text.partition("=")
        *sections, name = path.split(".")
        owner, branch = settings, wanted
        for section in sections:
            owner, branch = _field(owner, section), branch.setdefault(section, {})
        old = _field(owner, name)
        require(bool(equals) and not is_dataclass(old), f"{text!r} names no value; write section.field=value")
        try:
            new: Any = ast.literal_eval(word)
        except (ValueError, SyntaxError):
            new = word
        alike = isinstance(new, type(old)) or (isinstance(old, float) and isinstance(new, int))
        require(None in (old, new) or alike, f"{path} is {old!r}; {word} is of another kind")
        branch[name] = new
    return _changed(settings, wanted)


def _changed(owner: Any, wanted: dict[str, Any]) -> Any:
    parts = {k: _changed(getattr(owner, k), v) if isinstance(v, dict) else v for k, v in wanted.items()}
    return replace(owner, **parts)


def _field(owner: Any, name: str) -> Any:
    known = [f.name for f in fields(owner)] if is_dataclass(owner) else []
    require(name in known, f"unknown setting {name!r}; known here: {', '.join(known) or 'nothing'}")
    return getattr(owner, name)


def settings(profile: str | None = None, recipe: str | None = None) -> Settings:
    """The experiment that the environment asks for.

    Args:
        profile: name in `PROFILES`; default: ``PICOJEPA_PROFILE``, else ``laptop``.
        recipe: name in `RECIPES`; default: ``PICOJEPA_RECIPE``, else ``vjepa``.

    Raises:
        ValueError: unknown profile or recipe, with the list of known ones.
    """
    profile = profile or os.environ.get("PICOJEPA_PROFILE") or "laptop"
    recipe = recipe or os.environ.get("PICOJEPA_RECIPE") or "vjepa"
    require(profile in PROFILES, f"unknown profile {profile!r} (PICOJEPA_PROFILE); known: {', '.join(PROFILES)}")
    require(recipe in RECIPES, f"unknown recipe {recipe!r} (PICOJEPA_RECIPE); known: {', '.join(RECIPES)}")
    return as_published(PROFILES[profile]) if recipe == "published" else PROFILES[profile]


def cache_folder() -> Path:
    """Where generated videos, decoded clips and results are kept (``PICOJEPA_CACHE``, default ``data/cache``)."""
    return Path(os.environ.get("PICOJEPA_CACHE") or DATA / "cache").expanduser().resolve()


def cache_limit() -> float:
    """Most gigabytes of disk that the decoded clips of one list may take (``PICOJEPA_CACHE_GB``, default 60)."""
    return float(os.environ.get("PICOJEPA_CACHE_GB") or 60)
