"""Text files that list videos, as people and programs write them: from bytes to a table of words.

Spreadsheets write semicolons, a line ``sep=,`` or UTF-16; pandas adds a column of row numbers; V-JEPA, UCF101 and
HMDB51 write ``path label`` without a first line; Kinetics names moments of YouTube videos in place of files. What can
be read in one way only is read. The rest is one error that names the cause and the cure.

Book: the page on one's own videos.
"""

import codecs
import csv
from collections import Counter
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

import pandas as pd

from picojepa import require

# Column -> other names for it, in any case of letters.
ALIASES = {
    "path": "file filename file_name filepath file_path video video_path clip_path".split(),
    "label": "class class_name classname action category".split(),
}
SEPARATORS = ",;\t|"
MOMENT = {"youtube_id", "time_start", "time_end"}  # columns of Kinetics' own lists
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def refuse(where: Path, wrong: Iterable[object], message: str) -> None:
    """Raise ValueError if anything is wrong; ``{}`` in the message stands for the first few of these things."""
    found = [str(thing) for thing in wrong][:5]
    require(not found, f"{where}: {message.replace('{}', ', '.join(found))}")


def read_table(path: Path, known: Iterable[str]) -> pd.DataFrame:
    """The rows of a list as text, the numbers of their lines as the index, columns by their known names.

    Raises:
        ValueError: no text, no rows, or a first line that can be read in no way or in two; the message says which.
    """
    known = [*known]
    rows = _rows(_text(path), known, path)
    require(bool(rows), f"{path}: the manifest lists no videos; add at least one row")
    first = _names(rows[0][1], known)
    if "path" not in first and not {*first} >= MOMENT and "label" not in first:
        require(
            all(_looks_like_a_file(row[0]) for _, row in rows[:20]),
            f"{path}: the first line names no column that is known; known columns: {', '.join(known)}. Write "
            "path,label there, or rows such as `boxing/1.mp4 boxing` and no first line",
        )
        return _without_names(rows, path)
    lines, cells = [line for line, _ in rows[1:]], [row for _, row in rows[1:]]
    require(bool(lines), f"{path}: the manifest lists no videos; add at least one row")
    ragged = [f"line {line} has {len(row)} cells" for line, row in rows[1:] if len(row) != len(first)]
    remedy = "put a cell that holds a comma into quotes, and keep the comma of an empty one"
    refuse(path, ragged, f"{{}}, the first line {len(first)}; {remedy}")
    twice = [name for name, count in Counter(first).items() if count > 1]
    refuse(path, twice, "column {} is named twice in the first line; remove one")
    return _without_numbers(pd.DataFrame(cells, lines, first, dtype="str"))


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-16" if raw.startswith(UTF16) else "utf-8-sig")
        require("\0" not in text, "there is a zero byte")
    except ValueError as error:
        raise ValueError(
            f"{path}: this is no table in UTF-8 ({error}); save it as CSV with commas, in UTF-8"
        ) from error
    return text


def _rows(text: str, known: list[str], path: Path) -> list[tuple[int, list[str]]]:
    """Numbers of lines and cells, by the separator that the file names or that gives the most known columns."""
    told = text[4:5] if text[:4].lower() == "sep=" else ""
    skipped = 1 if told else 0
    body = text.split("\n", 1)[1] if told and "\n" in text else text

    def parsed(separator: str) -> list[tuple[int, list[str]]]:
        reader = csv.reader(StringIO(body), strict=True, delimiter=separator)
        return [(reader.line_num + skipped, row) for row in reader if any(cell.strip() for cell in row)]

    def fit(separator: str) -> tuple[int, bool]:
        first = next(csv.reader(StringIO(body.lstrip()), delimiter=separator), [])
        return len({*_names(first, known)} & {*known, *MOMENT}), len(first) == 2

    try:
        return parsed(told or max(SEPARATORS, key=fit))
    except csv.Error as error:
        raise ValueError(
            f"{path}: this is no table in UTF-8 ({error}); save it as CSV with commas, in UTF-8"
        ) from error


def _names(cells: list[str], known: Iterable[str]) -> list[str]:
    """Columns as this project calls them; another one's keeps its name."""
    names = [cell.strip() for cell in cells]
    lower = [name.lower() if name.lower() in {*known, *MOMENT} else name for name in names]
    for column, others in ALIASES.items():
        if column not in lower and sum(name.lower() in others for name in lower) == 1:
            lower = [column if name.lower() in others else name for name in lower]
    return lower


def _looks_like_a_file(cell: str) -> bool:
    """Whether a cell begins with a name that has a video's ending, maybe followed by a label."""
    words = (cell.strip(), *cell.strip().rsplit(maxsplit=1)[:1])
    return any(1 < len(Path(word).suffix) <= 5 and Path(word).suffix[1:].isalnum() for word in words)


def _without_names(rows: list[tuple[int, list[str]]], path: Path) -> pd.DataFrame:
    """``path label``, separated by a blank, comma, semicolon or tab, or only a path, whose folder is the label."""
    cells = [
        (line, row if len(row) > 1 else row[0].strip().rsplit(maxsplit=1))
        for line, row in ((line, [cell for cell in row if cell.strip()]) for line, row in rows)
    ]
    split = [(line, row if Path(row[0]).suffix else [" ".join(row)]) for line, row in cells]
    widths = {len(row) for _, row in split}
    said = f"rows of {' and of '.join(map(str, sorted(widths)))} words, and no first line that names columns"
    require(widths in ({1}, {2}), f"{path}: {said}; write path,label as the first line")
    table = pd.DataFrame([row for _, row in split], [line for line, _ in split], ["path", "label"][: widths.pop()])
    folders = table.path.map(lambda name: Path(name).parent.name)
    if "label" not in table:
        return table.assign(label=folders)
    numbered = table.label.str.fullmatch(r"\d+").all()
    pairs = pd.DataFrame({"folder": folders, "label": table.label}).drop_duplicates()
    if numbered and len(pairs) > 1 and pairs.folder.is_unique and pairs.label.is_unique and pairs.folder.all():
        return table.assign(label=folders)  # numbers of classes that are folders: their names say more
    return table


def _without_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """The table without the row numbers that pandas and spreadsheets write into a first column of no name."""
    name = table.columns[0]
    numbers = table[name].str.fullmatch(r"\d+").all() and table[name].is_unique
    return (
        table.drop(columns=name) if numbers and (not name or name.lower().startswith(("unnamed", "index"))) else table
    )
