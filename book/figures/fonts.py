r"""Names in any script: figures show them with a font that has their characters, or else as escapes such as ``\u8dd1``.

Book: every page with figures, for one's own videos.
"""

from functools import cache

import matplotlib
from matplotlib import font_manager, text
from matplotlib.ft2font import FT2Font

BASE = "DejaVu Sans"  # comes with Matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew and more
# Families that hold what it lacks, first of all East Asian scripts; those that are installed are asked in this order.
FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC",
    "Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Apple SD Gothic Neo", "Noto Sans Devanagari",
    "Noto Sans Thai", "Nirmala UI", "Noto Emoji", "Segoe UI Symbol", "Arial Unicode MS",
)  # fmt: skip


@cache
def families() -> list[str]:
    """Fonts for figures: Matplotlib's own, and those of `FAMILIES` that this machine has."""
    installed = {*font_manager.get_font_names()}
    return [BASE, *(name for name in FAMILIES if name in installed)]


@cache
def characters() -> frozenset[int]:
    """Every character that one of `families` has."""
    paths = (font_manager.findfont(name, fallback_to_default=False) for name in families())
    return frozenset(code for path in paths for code in FT2Font(path).get_charmap())


def readable(words: str) -> str:
    """The words, with an escape in place of each character that no font has."""
    return "".join(c if ord(c) in characters() or c.isspace() else ascii(c).strip("'") for c in words)


def use_fonts() -> None:
    """Have all texts of all figures drawn so: with these fonts, escapes where they end, and no formulas in names.

    Names may hold ``$``, which begins a formula in Matplotlib. It has no setting for missing characters, so every
    text is looked at where it is set.
    """
    matplotlib.rcParams["font.family"] = families()
    matplotlib.rcParams["text.parse_math"] = False
    text.Text.set_text = _set_text  # type: ignore[method-assign, assignment]


_original = text.Text.set_text


def _set_text(self: text.Text, words: object) -> None:
    _original(self, words if words is None else readable(str(words)))
