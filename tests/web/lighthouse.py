"""Let Lighthouse rate pages of the built book, and keep what it says in benchmarks/web.json: `make lighthouse`."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from .served import serve
from .visits import FLAGS, chromium

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / ".venv/web/node_modules/lighthouse/cli/index.js"
RECORD = ROOT / "benchmarks" / "web.json"
LEAST = {"performance": 90, "accessibility": 95, "best-practices": 95, "seo": 95}  # of 100, on a desktop
QUICK = ("index", "02_masking")
REPEATS = 3  # a score below what is asked for is measured again: a busy machine looks like a slow page


def rate(address: str, form: str) -> dict[str, Any]:
    """Lighthouse's report on one page.

    Args:
        address: of the page.
        form: ``desktop`` or ``mobile``.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        preset = ["--preset=desktop"] if form == "desktop" else []
        flags = " ".join(("--headless=new", *FLAGS))
        output = ["--output=json", f"--output-path={path}", "--quiet", f"--chrome-flags={flags}"]
        environment = os.environ | {"CHROME_PATH": str(chromium())}
        command = ["node", str(PROGRAM), address, *preset, *output]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        if run.returncode or not path.is_file():
            raise RuntimeError(f"Lighthouse did not succeed on {address}: {run.stderr[-500:]}")
        return json.loads(path.read_text(encoding="utf-8"))


def scores(report: dict[str, Any]) -> dict[str, int]:
    """Category -> score of 100."""
    return {name: round(100 * (report["categories"][name]["score"] or 0)) for name in LEAST}


def below(found: dict[str, int]) -> list[str]:
    """Categories with less than is asked for."""
    return [name for name, least in LEAST.items() if found[name] < least]


def failed(report: dict[str, Any]) -> list[str]:
    """What cost points, the names of audits."""
    named = {ref["id"] for name in LEAST for ref in report["categories"][name]["auditRefs"] if ref["weight"]}
    return [name for name in sorted(named) if (score := report["audits"][name]["score"]) is not None and score < 0.9]


def measure(address: str, form: str) -> dict[str, Any]:
    """Scores of one page, those of the median run where the first is below what is asked for."""
    reports = [rate(address, form)]
    while below(scores(reports[0])) and len(reports) < REPEATS:
        reports.append(rate(address, form))
    median = {name: int(statistics.median(scores(report)[name] for report in reports)) for name in LEAST}
    weight = int(reports[0]["audits"]["total-byte-weight"]["numericValue"])
    return median | {"bytes": weight, "runs": len(reports), "cost_points": failed(reports[-1])}


def version(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def missing(folder: Path) -> str:
    """What is not there, or nothing."""
    if not (folder / "index.html").is_file():
        return f"no book in {folder}: run `make book` first"
    if not chromium():
        return "Chromium is missing (on Debian: sudo apt-get install chromium)"
    if not shutil.which("node") or not PROGRAM.is_file():
        return "Lighthouse is missing: start this by `make lighthouse`"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Rate the pages; return 1 if one is below what is asked for on a desktop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html", help="folder of the built book")
    parser.add_argument("--quick", action="store_true", help="landing page and one chapter, desktop, no record")
    given = parser.parse_args(arguments)
    if problem := missing(given.site):
        print(problem, file=sys.stderr)
        return 1
    names = QUICK if given.quick else ("index", *sorted(p.stem for p in given.site.glob("0[1-9]_*.html")))
    forms = ("desktop",) if given.quick else ("desktop", "mobile")
    record: dict[str, Any] = {}
    wrong = 0
    with serve(given.site) as address:
        for name in names:
            for form in forms:
                found = measure(f"{address}{name}.html", form)
                record.setdefault(name, {})[form] = found
                short = below(found) if form == "desktop" else []
                wrong += len(short)
                told = ", ".join(f"{category} {found[category]}" for category in LEAST)
                note = f"  below what is asked for: {', '.join(short)}" if short else ""
                print(f"{name:<18}{form:<8} {told}; {found['bytes'] / 1e6:.2f} MB{note}", flush=True)
                if short:
                    print(f"{'':<18}cost points: {', '.join(found['cost_points'])}", flush=True)
    if not given.quick:
        about = {
            "date": date.today().isoformat(),
            "lighthouse": version("node", str(PROGRAM), "--version"),
            "chromium": version(str(chromium()), "--version"),
            "cores": os.cpu_count(),
            "asked_for_on_a_desktop": LEAST,
        }
        RECORD.write_text(json.dumps(about | {"pages": record}, indent=1) + "\n", encoding="utf-8")
        print(f"written: {RECORD.relative_to(ROOT)}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
