"""Copies of the chapters that can be read in JupyterLab, which knows neither the book's roles nor its directives.

Numbers stand in the sentences (those of the last build), references are titles with links, citations author and year,
figures have their captions, exercises headings, solutions are closed. `make lab` opens these copies, so that the
notebooks of the book stay as they are; a page's download button serves them too.

python -m tools.lab_copies [FOLDER]    writes all chapters to a folder (default: lab); those that were changed stay
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import nbformat
from pybtex.database import parse_file

from picojepa.store import ROOT, digest

BOOK = ROOT / "book"
EXECUTED = ROOT / "_build" / ".jupyter_cache" / "executed"
PRIVATE = "application/papermill.record/"  # glued values among a cell's outputs
UNKNOWN = "…"  # a number of a page that was not built
ROLE = re.compile(r"\{([\w:]+)\}`([^`]*)`")
FENCE = re.compile(
    r"^(?P<fence>:{3,}|`{3,})\{(?P<name>[\w:-]+)\} ?(?P<title>.*)\n(?P<body>(?:.*\n)*?)(?P=fence) *$", re.M
)
TARGET = re.compile(r"^\(([\w-]+)\)=\n+(?:#+ )?(.*)$", re.M)
STAMP = "copied"  # in a copy's metadata: digest of what was written, to see whether a reader changed it

Values = Mapping[str, Any]


def glued(folder: Path = EXECUTED) -> dict[str, Any]:
    """The numbers and words that the last build put into sentences, by key."""
    found: dict[str, Any] = {}
    for path in folder.glob("*/base.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
                    text = output["data"].get(f"{PRIVATE}text/plain")
                    found[name] = _value("".join(text)) if text else None
    return found


def _value(text: str) -> Any:
    """What a glued value's text stands for: a number or a string."""
    number = re.fullmatch(r"(?:np\.\w+\()?([-+\d.e]+|nan|inf)\)?", text)
    if number:
        return float(number[1]) if re.search(r"[.en]", number[1]) else int(number[1])
    return text[1:-1] if text[:1] in "'\"" else text


@cache
def targets() -> dict[str, tuple[str, str]]:
    """Label -> (title, page) of everything that can be referred to."""
    found = {}
    for path in sorted([*BOOK.glob("*.ipynb"), *BOOK.glob("*.md")]):
        number = 0
        for text, meta in _parts(path):
            found |= {label: (title.strip() or path.stem, path.name) for label, title in TARGET.findall(text)}
            if heading := re.search(r"^# (.+)$", text, re.M):
                found.setdefault(path.stem, (heading[1].strip(), path.name))
            names = [meta["name"]] if meta.get("name") else re.findall(r"\{glue:figure\}.*\n:name: (\S+)", text)
            for name in names:
                number += 1
                found[name] = (f"Figure {number}", path.name)
    return found


@cache
def equations() -> dict[str, int]:
    """Label -> number of every display equation."""
    texts = (text for path in sorted(BOOK.glob("*.ipynb")) for text, _ in _parts(path))
    labels = [label for text in texts for label in re.findall(r"\{math\}\n:label: (\S+)", text)]
    return {label: number for number, label in enumerate(labels, 1)}


def _parts(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Text and figure's metadata of every cell, or of a whole Markdown file."""
    if path.suffix == ".md":
        yield path.read_text(encoding="utf-8"), {}
        return
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        yield "".join(cell["source"]), cell["metadata"].get("mystnb", {}).get("figure", {})


@cache
def works() -> dict[str, tuple[str, str]]:
    """Key -> (authors, year) of every cited work."""
    found = {}
    for key, entry in parse_file(str(BOOK / "references.bib")).entries.items():
        names = [" ".join(person.last_names) for person in entry.persons["author"]]
        authors = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
        found[key] = (re.sub(r"[{}\\']", "", authors), entry.fields["year"])
    return found


def _role(values: Values, match: re.Match[str]) -> str:
    """What stands in place of a role."""
    kind, text = match.groups()
    words, _, inside = text.partition("<")
    label = inside.rstrip("> ") or text
    if kind == "glue:text":
        key, _, form = text.partition(":")
        value = values.get(key)
        return UNKNOWN if value is None else format(value, form) if form else str(value)
    if kind in ("ref", "numref", "doc"):
        title, page = targets()[label]
        return f"[{words.strip() if inside else title}]({_place(page)})"
    if kind == "eq":
        return f"({equations().get(label, UNKNOWN)})"
    if kind.startswith("cite"):
        known = [works()[key.strip()] for key in text.split(",")]
        if kind == "cite:t":
            return " and ".join(f"{authors} ({year})" for authors, year in known)
        return "(" + "; ".join(f"{authors} {year}" for authors, year in known) + ")"
    return words.strip() if inside else text  # a term


def _place(page: str) -> str:
    """Where a page is, seen from the folder of the copies."""
    return page if page.endswith("ipynb") else f"../book/{page}"


def _link(match: re.Match[str]) -> str:
    """What stands in place of a link to a label, such as ``](ch-data)``."""
    return f"]({_place(targets()[match[1]][1])})" if match[1] in targets() else match[0]


def _directive(match: re.Match[str]) -> str:
    """What stands in place of a directive."""
    name, title, lines = match["name"], match["title"].strip(), match["body"].splitlines()
    options = {line.split(":")[1]: line.split(":", 2)[2].strip() for line in lines if re.match(r":\w+:", line)}
    body = "\n".join(line for line in lines if not re.match(r":\w+:", line)).strip()
    if name == "math":
        return f"$$\n{body} \\tag{{{equations()[options['label']]}}}\n$$" if "label" in options else f"$$\n{body}\n$$"
    if name == "exercise":
        return f"**Exercise{f': {title}' if title else ''}**\n\n{body}"
    if name == "admonition":
        return "\n".join(f"> {line}" for line in (f"**{title}**", "", *body.splitlines()))
    if name == "glue:figure":
        return f"**{targets()[options['name']][0]}.** {body}" if "name" in options else body
    return ""  # solution-start, solution-end, tables of the site


def plain(text: str, values: Values) -> str:
    """Markdown of the book as Markdown that JupyterLab shows."""
    closed = re.sub(
        r"(?ms)^(?P<f>:{3,}|`{3,})\{solution-start\}.*?^(?P=f) *\n(?P<body>.*?)^(?P=f)\{solution-end\}\n(?P=f) *$",
        lambda m: f"<details><summary>Solution</summary>\n\n{m['body'].strip()}\n\n</details>",
        text,
    )
    open_ended = re.sub(r"(?ms)^(:{3,}|`{3,})\{solution-start\}.*?^\1 *$", "*Solution: open the next cells.*", closed)
    shown = FENCE.sub(_directive, open_ended)
    shown = TARGET.sub(lambda match: match[0].split("\n", 1)[1].lstrip("\n"), shown)
    shown = re.sub(r"\]\(([\w-]+)\)", _link, ROLE.sub(partial(_role, values), shown))
    return shown.replace("](images/", "](../book/images/").strip()


def readable(path: Path, values: Values, outputs: Mapping[str, list[Any]]) -> nbformat.NotebookNode:
    """A chapter's copy: Markdown that can be read, code that the page hides closed, figures with their captions."""
    book, cells, solving = nbformat.read(path, as_version=4), [], False
    start = nbformat.v4.new_code_cell("%cd -q ../book", id="lab-start", metadata={"jupyter": {"source_hidden": True}})
    for cell in book.cells:
        if cell.cell_type == "markdown":
            starts, ends = (cell.source.rfind(f"{{solution-{word}}}") for word in ("start", "end"))
            solving = starts > ends if max(starts, ends) >= 0 else solving
            cell.source = plain(cell.source, values)
            cells += [cell] if cell.source else []
            continue
        cell.outputs = [] if solving else outputs.get(cell.source, [])
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        tags = cell.metadata.get("tags", [])
        closed = solving or {"hide-input", "remove-input", "hide-cell", "remove-cell"} & {*tags}
        cell.metadata = nbformat.from_dict({"jupyter": {"source_hidden": True}} if closed else {})
        cells.append(cell)
        if figure.get("caption"):
            number = targets().get(figure.get("name", ""), ("Figure", ""))[0]
            caption = f"**{number}.** {plain(figure['caption'], values)}"
            cells.append(nbformat.v4.new_markdown_cell(caption, id=f"{cell.id}-caption"[-64:]))
    book.cells = [start, *cells]
    book.metadata[STAMP] = content(book)
    return book


def content(notebook: nbformat.NotebookNode) -> str:
    """Digest of what a reader would change: the sources."""
    return digest([cell.source for cell in notebook.cells])


def shown_outputs(folder: Path = EXECUTED) -> dict[str, list[Any]]:
    """Source of a code cell -> what it showed in the last build."""
    found = {}
    for path in folder.glob("*/base.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            kept = [o for o in cell.get("outputs", []) if not any(PRIVATE in kind for kind in o.get("data", {}))]
            found[cell.source] = kept
    return found


def write_copies(folder: Path, values: Values, outputs: Mapping[str, list[Any]], overwrite: bool = False) -> list[str]:
    """Write every chapter's copy; those that a reader has changed are kept, and their names returned."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for path in sorted(BOOK.glob("*.ipynb")):
        to = folder / path.name
        if to.exists() and not overwrite:
            old = nbformat.read(to, as_version=4)
            if old.metadata.get(STAMP) != content(old):
                kept.append(path.name)
                continue
        nbformat.write(readable(path, values, outputs), to)
    return kept


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "lab"
    values = glued()
    kept = write_copies(folder, values, shown_outputs())
    print(f"Chapters to read and to run are in {folder}." + ("" if values else " Their numbers come with `make book`."))
    if kept:
        print(f"Kept as you changed them: {', '.join(kept)}. Delete one to have it anew.")


if __name__ == "__main__":
    main()
