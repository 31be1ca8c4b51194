"""t"""

from dataclasses import dataclass


def require(c, m):
    if not c:
        raise ValueError(m)


@dataclass(frozen=True)
class StandInConfig:
    """What the procedural stand-in data set is made of (chapter 1 tells how the difficulty was set)."""

    seed: int = 1
    scale: float = 0.208  # share of the paper's training lists; validation is never scaled
    validation_scale: float = 1.0  # share of the validation list, below 1 only for smoke tests
    scene_correlation: float = 0.2  # probability that a video plays in its action's own scene
    figure_height: tuple[float, float] = (0.55, 0.75)  # standing body / frame height
    background_contrast: float = 0.6  # 1: background as contrasty as the clothes
    variety: float = 0.6  # how much pose at rest, place, camera and light differ between videos; 0: not at all
    clutter: int = 2  # most still shapes behind the figure
    seconds: tuple[float, float] = (2.0, 3.0)  # length of a video

    def __post_init__(self) -> None:
        require(0 < self.scale <= 1, f"scale must lie in (0, 1], not {self.scale}")
        require(0 <= self.scene_correlation <= 1, f"scene_correlation must lie in [0, 1], not {self.scene_correlation}")
        require(self.seed >= 0, f"seed must not be negative, not {self.seed}")
