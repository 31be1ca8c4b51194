"""Pages without a notebook are complete and true: self-tests, reference, glossary, bibliography, commands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

BOOK = ROOT / "book"
TEXTS = [path for path in sorted(BOOK.iterdir()) if path.suffix in (".md", ".ipynb")]
SELF_TESTS = re.findall(
    r"```python\n(.*?)```\n\n:::\{dropdown\} What it prints\n```text\n(.*?)```",
    (BOOK / "prerequisites.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


def prose(path: Path) -> str:
    """Text of a page, without code cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    return "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")


EVERYTHING = "\n\n".join(map(prose, TEXTS))
DOORS = re.findall(r"^(\w[\w-]*):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("lines", "answer"), SELF_TESTS)
def test_a_self_test_prints_what_its_answer_says(lines, answer):
    assert len(lines.splitlines()) <= 14
    run = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == (answer, "")


def test_every_self_test_was_found():
    text = (BOOK / "prerequisites.md").read_text(encoding="utf-8")
    assert len(SELF_TESTS) == text.count("```python") == 5


def test_the_reference_lists_every_module_once():
    rooms = ("picojepa", "footage", "standin")
    paths = [path.relative_to(ROOT) for room in rooms for path in (ROOT / room).glob("*.py")]
    names = {f"{path.parent.name}.{path.stem}" for path in paths if path.stem != "__init__"}
    listed = re.findall(r"^\.\. automodule:: (\S+)$", (BOOK / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(names)


def test_every_cited_work_is_in_the_bibliography_and_every_work_is_cited():
    found = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", EVERYTHING)
    cited = {key.strip() for keys in found for key in keys.split(",")}
    works = set(re.findall(r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text(encoding="utf-8"), re.MULTILINE))
    assert cited == works


def test_glossary_terms_are_defined_once():
    lines = prose(BOOK / "glossary.md").split(":sorted:")[1].splitlines()
    terms = [line for line in lines if line and not line.startswith((" ", ":"))]
    assert len(set(terms)) == len(terms) > 80
    used = re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", EVERYTHING)
    assert {name.lower() for name in used} <= {name.lower() for name in terms}


def test_commands_lists_every_door():
    listed = re.findall(r"^\| `make ([\w-]+)` \|", prose(BOOK / "commands.md"), re.MULTILINE)
    assert set(DOORS) - {"help"} <= set(listed)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_labels_and_pages_that_are_referred_to_exist(path):
    pages = re.findall(r"\{doc\}`(?:[^`<]*<)?([\w-]+)>?`", prose(path))
    assert {page for page in pages if not any((BOOK / f"{page}{end}").is_file() for end in (".md", ".ipynb"))} == set()
    labels = re.findall(r"\{ref\}`(?:[^`<]*<)?([\w-]+)>?`", prose(path))
    made = re.findall(r"^\(([\w-]+)\)=", EVERYTHING, re.MULTILINE) + re.findall(r":(?:name|label): (\S+)", EVERYTHING)
    assert set(labels) - set(made) == set()


def test_the_first_page_quotes_what_the_results_glue():
    source = json.loads((BOOK / "08_results.ipynb").read_text(encoding="utf-8"))
    code = "\n".join("".join(cell["source"]) for cell in source["cells"])
    quoted = set(re.findall(r"`08_results\.ipynb::([\w-]+)", prose(BOOK / "index.md")))
    patterns = [re.sub(r"\\\{[^}]*\\\}", r"[\\w-]+", re.escape(k)) for k in re.findall(r'glue\(f?"([^"]+)"', code)]
    assert quoted
    assert {key for key in quoted if not any(re.fullmatch(pattern, key) for pattern in patterns)} == set()


def test_what_the_first_page_shows_is_small():
    sizes = {path.name: path.stat().st_size for path in (BOOK / "assets").iterdir()}
    assert set(sizes) == {"landing.mp4", "landing.webp", "social-card.png", "icon.png"}
    assert max(sizes.values()) < 300_000


def test_the_workflow_uses_the_doors():
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8"))
    assert set(flow[True]) >= {"push", "pull_request", "schedule"}  # YAML 1.1 reads the key `on` as true
    steps = [step for job in flow["jobs"].values() for step in job["steps"]]
    assert all(re.fullmatch(r"actions/[\w/-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    called = re.findall(r"^\s*make ([\w-]+)", "\n".join(step.get("run", "") for step in steps), re.MULTILINE)
    assert called
    assert set(called) <= set(DOORS)
