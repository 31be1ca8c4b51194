"""The encoder that comes with the book, for readers who open a later chapter first.

Book: chapters 5 to 8; `data/encoder/MODEL_CARD.md` says what it is and is not.
"""

import json
from pathlib import Path
from typing import Any

from picojepa import pretraining, store
from picojepa.clips import Clips
from picojepa.config import DATA, Settings, cache_folder

COMMITTED = DATA / "encoder"
STAGE = "pretraining.run"


def as_json(value: Any) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))


def fits(card: dict[str, Any], settings: Settings, clips: Clips) -> bool:
    """Whether a run card speaks of these settings, these clips and this code."""
    inputs = as_json(pretraining.training_inputs(settings, clips))
    return card["inputs"] == inputs and card["code"] == store.code_digest(STAGE.split(".")[0])


def trained_here(settings: Settings, clips: Clips) -> Path | None:
    """The finished run of these settings in the cache, if there is one."""
    for path in sorted((cache_folder() / "results").glob(f"{STAGE}-*/{store.CARD}")):
        if path.parent.suffix != ".partial" and fits(store.card(path.parent), settings, clips):
            return path.parent
    return None


def encoder_run(settings: Settings, clips: Clips, folder: Path = COMMITTED) -> Path:
    """A folder with ``encoder.safetensors`` and ``card.json`` for these settings.

    That of the run in the cache; if there is none, that which comes with the book, where it was made with the same
    settings, data and code; else a run that is trained on the spot.

    Book: chapters 5 to 8.
    """
    if (run := trained_here(settings, clips)) is not None:
        return run
    for path in sorted(folder.glob(f"*/{store.CARD}")):
        if fits(store.card(path.parent), settings, clips):
            return path.parent
    return pretraining.run(settings, clips)


def origin(run: Path) -> str:
    """Where the weights of a run come from, in words."""
    if store.card(run).get("precision") == "float16":
        return "loaded: it comes with the book, in half precision (data/encoder/MODEL_CARD.md)"
    return "trained on the machine that built this page, or found in its cache"
