"""Ask finished encoders further questions, and write one small JSON card for each answer to data/studies.

A study trains no encoder of its own: it takes those of `evidence/experiments.py`, found again in the cache or trained
once more. It can be interrupted: what has a card is not done again.

python -m evidence.studies [NAME ...] [--seeds N ...] [--again]    default: everything that has no card yet
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from evidence.experiments import asked
from picojepa import data, machine, store
from picojepa.clips import Clips
from picojepa.config import Settings, settings
from picojepa.store import DATA

FOLDER = DATA / "studies"
PARTS = ("study_committees", "study_probes", "study_decoding", "study_edge")  # modules beside this one


@dataclass(frozen=True)
class Study:
    """One question to encoders.

    Attributes:
        what: in words.
        make: (settings, clips, seed) -> what the card holds, as plain values.
        seeds: of the encoders.
        claims: what the card says to rows of the ledger, by their number: a difference that should be above 0.
    """

    what: str
    make: Callable[[Settings, Clips, int], dict[str, Any]]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    claims: Callable[[dict[str, Any]], dict[str, float]] = field(default=lambda card: {})


def all_studies() -> dict[str, Study]:
    """Every study by name, in the order in which they are done."""
    return {name: study for part in PARTS for name, study in import_module(f"evidence.{part}").STUDIES.items()}


def card(name: str, study: Study, base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """The answer of one study for one seed, with what a reader must know of it."""
    start = time.perf_counter()
    answer = study.make(base, clips, seed)
    facts = {"study": name, "what": study.what, "seed": seed, "profile": base.profile, "data": clips.digest}
    made = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(time.perf_counter() - start, 1)}
    return {**facts, **made, **machine.hardware(), **answer}


def write(path: Path, study: Study, answer: dict[str, Any]) -> None:
    """Write a card with what it says to the ledger; that needs no encoder, so it is done for older cards too."""
    text = json.dumps(answer | {"claims": answer.get("claims", {}) | study.claims(answer)}, indent=1, sort_keys=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        store.write_atomically(path, text)
        logging.info("written: %s", path.name)


def main() -> None:
    studies, base = all_studies(), settings()
    again, wanted = asked(__doc__, {name: study.seeds for name, study in studies.items()}, FOLDER)
    clips = data.load_clips(base)
    for name, seed, path in tqdm(wanted, desc="studies", unit="card"):
        there = path.exists() and not again
        answer = json.loads(path.read_text(encoding="utf-8")) if there else card(name, studies[name], base, clips, seed)
        write(path, studies[name], answer)


if __name__ == "__main__":
    main()
