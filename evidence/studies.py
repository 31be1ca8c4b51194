"""Ask finished encoders further questions, and write one small JSON card for each answer to data/studies.

A study trains no encoder of its own: it takes those of `evidence/experiments.py`, found again in the cache or trained
once more. It can be interrupted: what has a card is not done again.

python -m evidence.studies [NAME ...] [--seeds N ...] [--again]    default: everything that has no card yet
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from evidence.experiments import write_cards
from evidence.records import STUDIES
from picojepa import machine
from picojepa.clips import Clips
from picojepa.config import Settings

PARTS = ("committees", "probes", "decoding", "cohesion", "edge")  # modules study_... beside this


@dataclass(frozen=True)
class Study:
    """One question to encoders.

    Attributes:
        what: in words.
        make: (settings, clips, seed) -> what the card holds, as plain values; under ``claims`` differences that should
            be above 0, which rows of the ledger name.
        seeds: of the encoders.
    """

    what: str
    make: Callable[[Settings, Clips, int], dict[str, Any]]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


def all_studies() -> dict[str, Study]:
    """Every study by name, in the order in which they are done."""
    return {name: study for part in PARTS for name, study in import_module(f"evidence.study_{part}").STUDIES.items()}


def card(name: str, base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """The answer of one study for one seed, with what a reader must know of it."""
    start, study = time.perf_counter(), all_studies()[name]
    answer = study.make(base, clips, seed)
    facts = {"study": name, "what": study.what, "seed": seed, "profile": base.profile, "data": clips.digest}
    made = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(time.perf_counter() - start, 1)}
    return {**facts, **made, **machine.hardware(), **answer}


def main() -> None:
    write_cards(__doc__, {name: study.seeds for name, study in all_studies().items()}, STUDIES, card)


if __name__ == "__main__":
    main()
