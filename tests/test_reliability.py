"""The record behind the page on reliability is whole: every fault that the tests provoke is in it, and ended well."""

import ast
import json

import pytest
from conftest import ROOT

from tools import reliability

REPORT = """<testsuites><testsuite>
<testcase classname="a" name="one" time="1.5"><properties>
<property name="fault" value='{"fault": "x", "stage": "training", "times": 3}'/>
<property name="file" value='{"folder": "odd", "file": "y", "reason": ""}'/></properties></testcase>
<testcase classname="a" name="two" time="0.5"><properties>
<property name="fault" value='{"fault": "x", "stage": "training", "times": 4}'/></properties><failure/></testcase>
<testcase classname="a" name="three" time="2"><properties>
<property name="fault" value='{"fault": "x", "stage": "fetching", "times": 1}'/></properties></testcase>
<testcase classname="a" name="four" time="0"><skipped/></testcase>
</testsuite></testsuites>"""


def record(name: str) -> dict:
    """A record of the folder data."""
    return json.loads((ROOT / "data" / f"{name}.json").read_text(encoding="utf-8"))


def provoked_by_the_tests() -> set[tuple[str, str]]:
    """Stage and fault of every call ``provoked("fault", "stage", ...)`` in the tests."""
    found = set()
    for path in (ROOT / "tests").glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "provoked":
                fault, stage = (argument.value for argument in node.args[:2])  # spelled out, to be found here
                found.add((stage, fault))
    return found


def test_notes_become_rows(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    found = reliability.read(tmp_path / "report.xml")
    assert found["faults"] == [
        {"stage": "fetching", "fault": "x", "tests": 1, "times": 1, "passed": 1, "seconds": 2.0},
        {"stage": "training", "fault": "x", "tests": 2, "times": 7, "passed": 1, "seconds": 2.0},
    ]
    assert (found["failed"], found["skipped"]) == (["a.two"], ["a.four"])
    assert found["files"] == [{"folder": "odd", "file": "y", "reason": ""}]


def test_each_fault_of_the_tests_is_in_the_record():
    rows = {(row["stage"], row["fault"]) for row in record("reliability")["faults"]}
    assert rows == provoked_by_the_tests(), "make reliability"
    assert {stage for stage, _ in rows} == set(reliability.STAGES)


def test_nothing_failed_in_the_record():
    found = record("reliability")
    assert found["failed"] == found["skipped"] == []
    for row in found["faults"]:
        assert row["passed"] == row["tests"] <= row["times"]
    assert {"date", "hardware", "versions"} <= found.keys()


@pytest.mark.parametrize(("folder", "files", "refused"), [("odd", 42, 8), ("skateboard", 40, 0)])
def test_files_of_others_are_in_the_record(folder, files, refused):
    found = [file for file in record("reliability")["files"] if file["folder"] == folder]
    assert len({file["file"] for file in found}) == len(found) == files
    assert sum(bool(file["reason"]) for file in found) == refused


def test_the_long_run_with_damaged_files_is_in_the_record():
    found = record("fuzz")
    assert found["count"] >= 10_000
    assert found["decoded"] + sum(found["reported"].values()) == found["count"]
    assert (found["hangs"], found["crashes"]) == (0, 0)
    assert {"date", "hardware", "versions"} <= found.keys()
