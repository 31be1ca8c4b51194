"""Copies for JupyterLab: a chapter reads like its page, and the book's own notebooks stay as they are."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from tools import lab_copies

NOTEBOOKS = sorted(lab_copies.BOOK.glob("*.ipynb"))
KNOWN = {"some-number": 3.14159, "some-words": "two words"}


def prose(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_the_site_is_left_raw(path):
    copy = lab_copies.readable(path, {}, {})
    nbformat.validate(copy)
    text = prose(copy)
    assert not re.findall(r"\{(?:glue|ref|numref|doc|term|cite|eq)[:\w]*\}`", text)
    assert not re.findall(r"^(?::{3,}|`{3,})\{", text, re.M)
    assert not re.findall(r"^\([\w-]+\)=", text, re.M)
    code = [cell.source for cell in copy.cells if cell.cell_type == "code"][1:]
    book = nbformat.read(path, as_version=4)
    assert code == [cell.source for cell in book.cells if cell.cell_type == "code"], "what runs is what the page runs"
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert all((lab_copies.BOOK / name.removeprefix("../book/")).exists() for name in linked), linked


@pytest.mark.parametrize(
    ("book", "lab"),
    [
        ("about {glue:text}`some-number:.1f` of it", "about 3.1 of it"),
        ("{glue:text}`some-words`", "two words"),
        ("{glue:text}`not-built:+.1f` points", "… points"),
        ("see {ref}`ch-masking`", "see [Masking](02_masking.ipynb)"),
        ("see {ref}`masks <ch-masking>`", "see [masks](02_masking.ipynb)"),
        ("{doc}`commands`", "[Commands](../book/commands.md)"),
        ("{term}`twins <twin>` and {term}`EMA`", "twins and EMA"),
        ("as {cite:t}`bardes2024vjepa` say", "as Bardes et al. (2024) say"),
        ("said {cite:p}`bardes2022vicreg,he2022mae`", "said (Bardes et al. 2022; He et al. 2022)"),
        (":::{exercise} Think\n:label: ex-a\n\nWhy?\n:::", "**Exercise: Think**\n\nWhy?"),
        ("```{admonition} Old\n:class: note\nRuns.\n```", "> **Old**\n> \n> Runs."),
        ("(ch-x)=\n# Title\n\nText", "# Title\n\nText"),
        (
            "```{solution-start} ex-a\n:class: dropdown\n```\n\nBecause.\n\n```{solution-end}\n```",
            "<details><summary>Solution</summary>\n\nBecause.\n\n</details>",
        ),
    ],
)
def test_what_stands_in_place_of_roles_and_directives(book, lab):
    assert lab_copies.plain(book, KNOWN) == lab


def test_equations_have_numbers_and_signs_that_lab_knows():
    text = prose(lab_copies.readable(lab_copies.BOOK / "04_pretraining.ipynb", {}, {}))
    assert re.search(r"\$\$\n\\min_.*?\\tag\{\d\}\n\$\$", text, re.S)
    assert re.search(r"equation \(\d\), line by line", text)


def test_solutions_and_what_the_page_hides_are_closed():
    copy = lab_copies.readable(lab_copies.BOOK / "imagined.ipynb", {}, {})
    closed = {cell.id for cell in copy.cells if cell.metadata.get("jupyter", {}).get("source_hidden")}
    assert {"imagined-solution-predict", "imagined-solution-change", "imagined-strip", "lab-start"} <= closed
    assert "imagined-film" not in closed


def test_figures_have_captions_and_numbers():
    copy = lab_copies.readable(lab_copies.BOOK / "learns.ipynb", {}, {})
    ids = [cell.id for cell in copy.cells]
    assert ids.index("learns-effects-caption") == ids.index("learns-effects") + 1
    assert "**Figure 1.** What each choice does" in prose(copy)
    assert "[Figure 1](learns.ipynb) has all six" in prose(copy)


def test_what_a_reader_changed_is_kept(tmp_path, monkeypatch):
    assert lab_copies.write_copies(tmp_path, {}, {}) == []
    path = tmp_path / "02_masking.ipynb"
    before = nbformat.read(path, as_version=4)
    before.cells[3].source += "\n# mine"
    before.metadata["language_info"] = {"name": "python"}  # as Lab does
    nbformat.write(before, path)
    assert lab_copies.write_copies(tmp_path, KNOWN, {}) == ["02_masking.ipynb"]
    assert "# mine" in nbformat.read(path, as_version=4).cells[3].source
    assert lab_copies.write_copies(tmp_path, KNOWN, {}, overwrite=True) == []
    assert "# mine" not in nbformat.read(path, as_version=4).cells[3].source


def test_a_copy_runs_where_lab_opens_it(tmp_path, cache):
    """The first cell goes to the book's folder; its figures are found from there."""
    folder = lab_copies.ROOT / "lab"
    made = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        copy = lab_copies.readable(lab_copies.BOOK / "learns.ipynb", {}, {})
        client = NotebookClient(copy, timeout=300, resources={"metadata": {"path": str(folder)}})
        client.execute()
        errors = [o for c in copy.cells for o in c.get("outputs", []) if o.output_type == "error"]
        assert not errors
    finally:
        if made:
            folder.rmdir()


def test_values_and_outputs_come_from_the_last_build(tmp_path):
    value = {"application/papermill.record/text/plain": "np.float64(2.5)"}
    glued = nbformat.v4.new_output("display_data", value, metadata={"scrapbook": {"name": "a-b"}})
    shown = nbformat.v4.new_output("stream", name="stdout", text="hello")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1", outputs=[glued, shown])])
    (tmp_path / "key").mkdir()
    nbformat.write(notebook, tmp_path / "key" / "base.ipynb")
    assert lab_copies.glued(tmp_path) == {"a-b": 2.5}
    assert [o.text for o in lab_copies.shown_outputs(tmp_path)["x = 1"]] == ["hello"]
