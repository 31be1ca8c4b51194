"""Cards of finished runs and studies, of stored results, and records of benchmarks, as the pages load them.

Book: chapters 4b to 8, and the pages of evidence.
"""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from picojepa import store
from picojepa.clips import Clips
from picojepa.config import Settings
from picojepa.store import DATA, ROOT

CARDS = DATA / "cards"
STUDIES = DATA / "studies"
FIRST = "first"  # in the names of committed cards: made on the book's first stand-in, by V-JEPA's recipe, see LOG.md
BENCHMARKS = ROOT / "benchmarks"
CONTROL = DATA / "control.json"


def stored_cards(settings: Settings, clips: Clips) -> pd.DataFrame:
    """One row per stored result made with this profile's data: stage, date, seconds, hardware, version."""
    columns, rows = ["stage", "date", "seconds", "machine", "version"], []
    for path in sorted((store.cache_folder() / "results").glob(f"*/{store.CARD}")):
        card, finished = store.card(path.parent), path.parent.suffix != ".partial"
        if finished and clips.digest in (card["inputs"].get("data"), card.get("digest")):
            rows.append({column: card.get(column) for column in columns})
    return pd.DataFrame(rows, columns=columns).sort_values("date", ignore_index=True)


def origin(folder: Path) -> str:
    """Where the weights of a run come from, in words."""
    if folder.is_relative_to(store.BUNDLED):
        return "loaded: it comes with the book, in half precision (data/encoder/MODEL_CARD.md)"
    return "trained on the machine that built this page, or found in its cache"


def run_card(settings: Settings, folder: Path) -> pd.Series:
    """What a reader must know of a stored run: profile, length, seed, hardware, seconds, code and data."""
    card = store.card(folder)
    training = settings.training
    facts = {
        "profile, recipe": f"{settings.profile}, {settings.recipe}",
        "steps, batch, clips seen": f"{training.steps}, {training.batch}, {training.steps * training.batch}",
        "seed": training.seed,
        "machine": f"{card['machine']}, accelerator: {card['accelerator']}, torch {card['torch']}",
        "made": f"{card['date']}, in {card['seconds']:.0f} s",
        "weights": origin(folder),
        "version, data": f"{card['stage']} {card['version']}, {card['inputs'].get('data', 'none')}",
    }
    return pd.Series(facts, name="run card")


def committed_cards(experiment: str, folder: Path = CARDS) -> list[dict[str, Any]]:
    """The cards that ``make experiments`` wrote for one experiment or study and profile, by seed.

    Raises:
        FileNotFoundError: there are none; the message names the command that makes them.
    """
    named = re.compile(rf"{re.escape(experiment)}-\d+\.json")
    paths = sorted(path for path in folder.glob("*.json") if named.fullmatch(path.name))
    if not paths:
        raise FileNotFoundError(f"no cards of {experiment!r} in {folder}; run `make experiments`")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def control(question: str = "action", path: Path = CONTROL) -> pd.DataFrame:
    """How far pre-training is ahead of random weights, five seeds: one row for each readout and share of the labels.

    Raises:
        FileNotFoundError: there is no report; the message names the command that makes it.
    """
    return pd.DataFrame(control_report(path)["questions"][question])


def control_report(path: Path = CONTROL) -> dict[str, Any]:
    """All that `evidence.control` wrote, raises `control`."""
    if not path.is_file():
        raise FileNotFoundError(f"no report at {path}; `python -m evidence.control` makes it, in hours")
    return json.loads(path.read_text(encoding="utf-8"))


def benchmark(name: str = "cpu", folder: Path = BENCHMARKS) -> dict[str, Any]:
    """The record that ``make bench`` wrote on one machine: clips a second, seconds and gigabytes, and where.

    Raises:
        FileNotFoundError: there is none; the message names the command that makes it.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no benchmark record at {path}; run `make bench`")
    return json.loads(path.read_text(encoding="utf-8"))


def measured_on(record: dict[str, Any]) -> str:
    """Machine, PyTorch and day of a benchmark record, for the reader who compares."""
    machine = record["hardware"]
    cores = f"{machine['cores']} cores, {machine['threads']} threads, accelerator: {machine['accelerator']}"
    return f"{machine['processor']}, {cores}, PyTorch {record['versions']['torch']}, {record['date'][:10]}"


def primary_measure(cards: list[dict[str, Any]], classes: int = 10, probe: str = "linear") -> pd.DataFrame:
    """Accuracy in percent of pre-trained and random weights for each seed, and their difference."""
    rows = []
    for card in cards:
        asked = [s for s in card["scores"] if (s["classes"], s["probe"]) == (classes, probe)]
        rows.append({"seed": card["seed"], **{s["features"]: 100 * s["right"] / s["n"] for s in asked}})
    table = pd.DataFrame(rows).set_index("seed")
    return table.assign(difference=table["pre-trained"] - table["random weights"])
