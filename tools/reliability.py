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

from benchmarks.bench import surroundings
from picojepa.store import DATA, ROOT

RECORD = DATA / "reliability.json"
STAGES = (  # in the order of the work
    *("fetching", "extracting archives", "generating videos", "reading lists", "decoding", "configuration"),
    *("times of frames", "batches", "masks", "training", "features, probes and votes", "storing results"),
)


def read(report: Path) -> dict[str, Any]:
    """What the tests noted, from pytest's report in XML: a row for each fault, and what became of files of others."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    found: dict[str, Any] = {"faults": [], "files": [], "skipped": [], "failed": []}
    for case in ElementTree.parse(report).iter("testcase"):
        name, ended = f"{case.get('classname')}.{case.get('name')}", {part.tag for part in case}
        bad = bool(ended & {"failure", "error"})
        found["failed"] += [name] * bad
        found["skipped"] += [name] * ("skipped" in ended)
        noted = [(p.get("name"), json.loads(p.get("value") or "")) for p in case.iter("property")]
        found["files"] += [note for kind, note in noted if kind == "file" and not bad]
        faults = [note for kind, note in noted if kind == "fault"]
        for note in faults:
            empty = {
                "stage": note["stage"],
                "fault": note["fault"],
                "tests": 0,
                "times": 0,
                "passed": 0,
                "seconds": 0.0,
            }
            row = rows.setdefault((note["stage"], note["fault"]), empty)
            row["tests"] += 1
            row["passed"] += not bad
            row["times"] += note["times"]
            row["seconds"] += float(case.get("time") or 0) / len(faults)
    order = sorted(rows.values(), key=lambda row: (STAGES.index(row["stage"]), -row["times"], row["fault"]))
    found["faults"] = [row | {"seconds": round(row["seconds"], 1)} for row in order]
    return found


def main() -> int:
    """Run the tests, write the record; not 0 if a test failed."""
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "fault", f"--junitxml={report}"]
        code = subprocess.run(command, cwd=ROOT).returncode
        found = surroundings() | read(report)
    RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{len(found['faults'])} faults, {sum(row['times'] for row in found['faults'])} times; {RECORD}")
    return code


if __name__ == "__main__":
    sys.exit(main())
