"""picojepa: pico-JEPA, one module per chapter of the book.

A clip flows down, and nothing climbs back: file -> clip (`footage`, `data`) -> tokens and masks (`masking`) -> loss
(`architecture`, `jepa`) -> encoder (`fitting`, `pretraining`) -> features (`features`) -> answers (`probing`) -> votes
(`ensemble`) and maps (`tsne`) -> tables (`results`, `stats`). `config` holds all settings, `store` keeps results,
`machine` knows the computer.
"""

import math
from typing import Any

__version__ = "1.0.0"


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)


def require_whole(owner: Any, *names: str) -> None:
    """Raise ValueError unless the named attributes are whole numbers of at least 1."""
    for name in names:
        value = getattr(owner, name)
        require(isinstance(value, int) and value >= 1, f"{name} must be a whole number of at least 1, not {value!r}")


def require_positive(owner: Any, *names: str) -> None:
    """Raise ValueError unless the named attributes are finite numbers above 0."""
    for name in names:
        value = getattr(owner, name)
        good = isinstance(value, int | float) and 0 < value < math.inf
        require(good, f"{name} must be a finite number above 0, not {value!r}")


def require_rising(owner: Any, name: str, low: float, high: float) -> None:
    """Raise ValueError unless the named attribute is a pair of numbers that rises within [low, high]."""
    pair = getattr(owner, name)
    numbers = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(x, int | float) for x in pair)
    require(
        numbers and low <= pair[0] <= pair[1] <= high,
        f"{name} must be two numbers that rise within [{low:g}, {high:g}], not {pair!r}",
    )
