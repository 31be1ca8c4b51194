"""Each chapter runs by itself, in any order, without a word on stderr; what it glues can be quoted."""

import ast
import re

import pandas as pd
import pytest
from conftest import APPENDICES, CHAPTERS

from standin import LABELLED_CLASSES


def outputs(notebook) -> list:
    """All outputs of a notebook."""
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def glued(notebook) -> dict[str, dict[str, str]]:
    """What a notebook glued: for each key the data by MIME type."""
    found: dict[str, dict[str, str]] = {}
    for output in outputs(notebook):
        record = output.get("metadata", {}).get("scrapbook")
        if record:
            assert record["name"] not in found, f"{record['name']} is glued twice"
            found[record["name"]] = {mime.removeprefix(record["mime_prefix"]): v for mime, v in output.data.items()}
    return found


def quotable(data: dict[str, str]) -> bool:
    """Whether glued data are a figure, a table, or a plain Python literal (``np.float64(0.5)`` is none)."""
    if any(mime.startswith("image/") or mime == "text/html" for mime in data):
        return True
    try:
        ast.literal_eval(data["text/plain"])
    except (KeyError, ValueError, SyntaxError):
        return False
    return True


def assert_quiet(notebook) -> None:
    """No cell wrote to stderr."""
    loud = [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    assert not loud, "stderr: " + "\n".join(loud)


@pytest.mark.parametrize("name", [*CHAPTERS, *APPENDICES])
def test_chapter_runs_alone(name, run_chapter, shared_cache):
    notebook = run_chapter(name, shared_cache)
    assert_quiet(notebook)
    for key, data in glued(notebook).items():
        assert re.fullmatch(r"[a-z][A-Za-z0-9_-]*", key), f"glue key {key!r}"
        assert quotable(data), f"{key} is glued as {data}"


def test_a_late_chapter_runs_first_with_an_empty_cache(run_chapter, tmp_path):
    cache = tmp_path / "empty"
    cache.mkdir()
    assert_quiet(run_chapter("ensemble", cache))


def test_pretraining_runs_with_the_published_recipe(run_chapter, shared_cache):
    assert_quiet(run_chapter("pretraining", shared_cache, {"PICOJEPA_RECIPE": "published"}))


@pytest.mark.parametrize("recipe", ["vjepa", "published"])
def test_tables_stand_beside_the_papers_on_a_list_as_that_of_kinetics(recipe, run_chapter, shared_cache):
    """Ten classes for training, four of them labelled and with validation videos, as `make kinetics` lists them."""
    run_chapter("masking", shared_cache)  # it makes the videos
    (made,) = (shared_cache / "videos").glob("*/manifest.csv")
    table = pd.read_csv(made)
    table = table[(table.split == "pretrain") | table.label.isin(LABELLED_CLASSES)]
    listed = made.parent / "kinetics.csv"
    table[["path", "label", "split", "labelled"]].to_csv(listed, index=False)
    extra = {"PICOJEPA_DATA": str(listed), "PICOJEPA_RECIPE": recipe}
    for name in ("ensemble", "results"):
        notebook = run_chapter(name, shared_cache, extra)
        assert_quiet(notebook)
        told = str(outputs(notebook))
        assert "of 4 classes (abseiling, adjusting_glasses, alligator_wrestling, archaeological_excavation)" in told
        assert "archery: no validation videos, so used for pre-training only" in told
    training = table[table.split == "pretrain"]
    tables = [output.data.get("text/html", "") for output in outputs(notebook) if "data" in output]
    shown = re.sub("<[^>]+>", " ", " ".join(tables)).split()
    row = [str(n) for n in (len(training), training.labelled.sum(), len(table) - len(training))]
    assert any(shown[i : i + 3] == row for i in range(len(shown))), "Table 1 of this list stands beside the paper's"
    assert any(shown[i : i + 3] == ["7203", "2817", "194"] for i in range(len(shown)))


def test_quotable_tells_literals_from_objects():
    assert quotable({"text/plain": "0.5"})
    assert quotable({"text/plain": "'smoke'"})
    assert quotable({"text/plain": "<Figure>", "image/png": "..."})
    assert not quotable({"text/plain": "np.float64(0.5)"})
    assert not quotable({"text/plain": "nan"})
