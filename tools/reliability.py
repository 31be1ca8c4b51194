"""Provoke every fault that the tests know, and write down for the book what was tried, how often, and how it ended.

Runs the tests that use the fixture `provoked` and reads what they note. The record is data/reliability.json.

Usage: python -m tools.reliability
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd

from picojepa.store import DATA, ROOT
from tools import records

RECORD = DATA / "reliability.json"
STAGES = (  # in the order of the work
    *("fetching", "extracting archives", "generating videos", "reading lists", "decoding", "configuration"),
    *("times of frames", "batches", "masks", "training", "features, probes and votes", "storing results"),
)


def read(report: Path) -> dict[str, Any]:
    """What the tests noted, from pytest's report in XML: a row for each fault, and what became of files of others."""
    found: dict[str, list[Any]] = {"faults": [], "files": [], "skipped": [], "failed": []}
    for case in ElementTree.parse(report).iter("testcase"):
        name, ended = f"{case.get('classname')}.{case.get('name')}", {part.tag for part in case}
        passed = not ended & {"failure", "error"}
        found["failed"] += [] if passed else [name]
        found["skipped"] += [name] if "skipped" in ended else []
        noted = [(p.get("name"), json.loads(p.get("value") or "")) for p in case.iter("property")]
        found["files"] += [note for kind, note in noted if kind == "file" and passed]
        faults = [note for kind, note in noted if kind == "fault"]
        seconds = float(case.get("time") or 0)
        found["faults"] += [note | {"passed": passed, "seconds": seconds / len(faults)} for note in faults]
    return found | {"faults": by_fault(pd.DataFrame(found["faults"]))}


def by_fault(notes: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for each stage and fault, in the order of the work, those provoked most often first."""
    columns = {"tests": ("times", "size"), **{name: (name, "sum") for name in ("times", "passed", "seconds")}}
    rows = notes.groupby(["stage", "fault"], as_index=False).agg(**columns).round({"seconds": 1}).to_dict("records")
    return sorted(rows, key=lambda row: (STAGES.index(row["stage"]), -row["times"], row["fault"]))


def main() -> int:
    """Run the tests, write the record; not 0 if a test failed."""
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "fault", "-n", "2", f"--junitxml={report}"]
        code = subprocess.run(command, cwd=ROOT).returncode
        found = records.surroundings() | read(report)
    records.write(RECORD, found)
    print(f"{len(found['faults'])} faults, {sum(row['times'] for row in found['faults'])} times; {RECORD}")
    return code


if __name__ == "__main__":
    sys.exit(main())
