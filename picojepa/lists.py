"""Lists of videos: manifests and folders, the split, classes and quarters.

A list is a table with one row per video: path, label, split (``pretrain`` or ``validation``) and labelled.

Book: chapter 1, and the page on one's own videos.
"""

import csv
import hashlib
from collections import Counter
from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from picojepa import store

REQUIRED_COLUMNS = ("path", "label")
OPTIONAL_COLUMNS = (
    *("split", "group", "labelled", "scene", "seed", "frames", "fps", "width", "height", "gop", "crf", "sha256"),
)
NUMBERS = {"seed", "frames", "fps", "width", "height", "gop", "crf"}  # columns of the generator; all others are text
SPLITS = ("pretrain", "validation")
VALIDATION_SHARE = 0.2  # of the videos of a class, where nobody has split them
SUFFIXES = frozenset(
    ".3gp .avi .flv .gif .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()
)  # files of a folder that count as videos


@cache
def paper_lists() -> pd.DataFrame:
    """The paper's ten classes (index) and how many videos its lists hold of each.

    Returns:
        Columns archive_part (of Kinetics-700-2020), pretraining, labelled and validation; a class that is not
        labelled has no number in the last two.
    Source: pico-JEPA's published lists. Book: chapter 1.
    """
    return pd.read_csv(store.data_file("paper/lists.csv"), index_col="class")


def paper_labelled() -> tuple[str, ...]:
    """The four classes that the paper's classifiers learn."""
    return tuple(paper_lists().labelled.dropna().index)


# ---------------------------------------------------------------- manifests and folders


def read_manifest(path: Path) -> pd.DataFrame:
    """Read and check a list of videos.

    Args:
        path: CSV with the columns ``path`` (relative to the CSV) and ``label``; optional ``split``
            (``pretrain`` or ``validation``; default: `split_by_rule`), ``group``, ``labelled``, ``scene`` and
            what the generator noted.

    Returns:
        One row per video with absolute paths, in the order of the file. Without a column ``labelled``, the
        training videos of the paper's four classes are labelled if the list holds these and none but the
        paper's ten, else all training videos.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a table in UTF-8, missing or unknown column, unknown split, double path, a path that leaves
            the folder of the CSV, no rows, a class without training videos, a group on both sides.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"no manifest at {path}; generate the stand-in (chapter 1) or write a CSV with the columns path,label"
        )
    header, lines, rows = _cells(path)
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    if unknown := [c for c in header if c not in known]:
        raise ValueError(f"{path}: unknown column {', '.join(unknown)}; known columns: {', '.join(known)}")
    if missing := [c for c in REQUIRED_COLUMNS if c not in header]:
        raise ValueError(f"{path}: column {', '.join(missing)} is missing; add it to the first line and to every row")
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: a column is named twice in the first line; remove one of them")
    if not rows:
        raise ValueError(f"{path}: the manifest lists no videos; add at least one row")
    table = pd.DataFrame(rows, columns=header, dtype="str")
    empty = table.apply(lambda column: column.str.strip() == "")
    if (bad := empty[list(REQUIRED_COLUMNS)].any(axis=1)).any():
        raise ValueError(f"{path}: line {lines[int(bad.argmax())]}: empty path or label; fill it or remove the row")
    table = table.mask(empty)
    for name in sorted(NUMBERS & set(header)):
        try:
            table[name] = pd.to_numeric(table[name])
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{path}: column {name}: {error}; write numbers, or remove the column") from error
    if "labelled" in header:
        said = table.labelled.str.lower().map({"true": True, "1": True, "false": False, "0": False})
        if (bad := said.isna()).any():
            raise ValueError(f"{path}: line {lines[int(bad.argmax())]}: labelled must be True or False")
        table["labelled"] = said.astype(bool)
    return _checked(table, path, path.parent)


def _cells(path: Path) -> tuple[list[str], list[int], list[list[str]]]:
    """The first line of a CSV, and the lines' numbers and cells of all others that are not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise ValueError("there is a zero byte")
        reader = csv.reader(StringIO(text), strict=True)
        found = [(reader.line_num, row) for row in reader if row]
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{path}: this is no table in UTF-8 ({error}); save it as CSV with commas, in UTF-8"
        ) from error
    if not found:
        raise ValueError(f"{path}: the manifest lists no videos; add at least one row")
    header = found[0][1]
    for line, row in found:
        if len(row) != len(header):
            raise ValueError(
                f"{path}: line {line} has {len(row)} cells, the first line {len(header)}; "
                "put a cell that holds a comma into quotes, and keep the comma of an empty one"
            )
    return header, [line for line, _ in found[1:]], [row for _, row in found[1:]]


def read_folder(folder: Path) -> pd.DataFrame:
    """List the videos of a folder with one sub-folder per class, in the order of their names.

    Args:
        folder: the sub-folders' names are the labels; they may have folders inside. Hidden files, and files
            whose ending is none of `SUFFIXES`, are left out.

    Raises:
        ValueError: no sub-folder, one without videos, or a link that leaves the folder.
    """
    kinds = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not kinds:
        raise ValueError(f"{folder}: no sub-folders; make one for each class and put its videos inside, or name a CSV")
    rows = []
    for kind in kinds:
        files = [p for p in sorted(kind.rglob("*")) if p.is_file() and not p.name.startswith(".")]
        videos = [p for p in files if p.suffix.lower() in SUFFIXES]
        if not videos:
            raise ValueError(
                f"{kind}: no videos inside (known endings: {', '.join(sorted(SUFFIXES))}); "
                "add some, remove the sub-folder, or name a CSV"
            )
        rows += [{"path": p.relative_to(folder).as_posix(), "label": kind.name} for p in videos]
    return _checked(pd.DataFrame(rows), folder, folder)


def _checked(table: pd.DataFrame, where: Path, folder: Path) -> pd.DataFrame:
    """The table with absolute paths, split and labelled; raises as `read_manifest` says."""
    inside = folder.resolve()
    paths = [_resolved(folder, name, where) for name in table.path]
    if away := [name for name, p in zip(table.path, paths, strict=True) if not p.is_relative_to(inside)]:
        raise ValueError(
            f"{where}: {away[0]} leads out of {inside}; put the video (no link to it) into that folder, "
            "or the CSV into a folder that holds all videos"
        )
    resolved = pd.Series([str(p) for p in paths], index=table.index)
    if (double := resolved.duplicated()).any():
        raise ValueError(f"{where}: listed twice: {table.path[double].iloc[0]}; remove one of the rows")
    if "split" not in table:
        table["split"] = split_by_rule(table)
    if wrong := sorted(set(table.split.dropna()) - set(SPLITS)) + ["empty"] * bool(table.split.isna().any()):
        raise ValueError(f"{where}: unknown split {', '.join(wrong)}; known splits: {', '.join(SPLITS)}")
    if bare := sorted(set(table.label) - set(table.label[table.split == "pretrain"])):
        raise ValueError(
            f"{where}: class without training videos: {', '.join(bare)}; add some or remove its validation videos"
        )
    if "group" in table and (torn := table.groupby("group").split.nunique()).gt(1).any():
        raise ValueError(
            f"{where}: group {torn.idxmax()} is in both splits; give its rows one split, or remove the column split"
        )
    if "labelled" not in table:
        named = set(paper_labelled())
        of_paper = named <= set(table.label) <= set(paper_lists().index)
        table["labelled"] = (table.split == "pretrain") & (table.label.isin(named) if of_paper else True)
    return table.assign(path=resolved)


def _resolved(folder: Path, name: str, where: Path) -> Path:
    try:
        name.encode()
        return (folder / name).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # not in UTF-8, too long, a link to itself
        raise ValueError(f"{where}: {name!r} is no usable path ({error}); rename the file or remove it") from error


def for_the_book(videos: pd.DataFrame, where: Path) -> pd.DataFrame:
    """A list of one's own on which every chapter can run: classes without validation videos are not labelled.

    Raises:
        ValueError: fewer than two classes with training and validation videos, fewer than four labelled
            training videos, or a quarter without any.
    """
    asked = classes(videos)
    if len(asked) < 2:
        found = ", ".join(f"{label} ({n})" for label, n in videos.label.value_counts().sort_index().items())
        raise ValueError(
            f"{where}: the book asks which class a video shows, and needs two classes with at least two videos each, "
            f"one for training and one for validation; found: {found}; add videos or classes. To pre-train only, "
            "hand a list to data.load_clips (chapter 1)"
        )
    videos = videos.assign(labelled=videos.labelled & videos.label.isin(asked))
    learned = int((videos.labelled & (videos.split == "pretrain")).sum())
    if learned < 4 or len(labelled_classes(videos)) < 2:
        raise ValueError(
            f"{where}: {learned} labelled training videos of {len(labelled_classes(videos))} classes; the four "
            "quarters of chapter 6 need at least four of two classes; add videos"
        )
    if bare := sorted({1, 2, 3, 4} - set(quarters(videos))):
        raise ValueError(
            f"{where}: no labelled video in quarter {', '.join(map(str, bare))} of chapter 6, which cuts the training "
            "videos of a class in the order of their names; label more of them, or remove the column labelled"
        )
    return videos


# ---------------------------------------------------------------- the split


def split_by_rule(videos: pd.DataFrame) -> pd.Series:
    """``validation`` for about a fifth of each class, ``pretrain`` for the rest.

    Groups (column ``group``: one person, one recording) stay on one side; a row without one is its own. They are
    taken in the order of a hash of their name, so the order of the rows plays no part. A class with several
    groups gets at least one on each side, unless they also hold other classes and would empty these.

    Args:
        videos: path (a name; no file is read), label, and maybe group.
    Book: the page on one's own videos.
    """
    own = "file " + videos.path.map(lambda p: Path(p).as_posix())
    group = ("group " + videos.group).fillna(own) if "group" in videos else own
    held = {name: Counter(labels) for name, labels in videos.label.groupby(group)}
    order = sorted(held, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    size = Counter(videos.label)
    groups_of = Counter(label for labels in held.values() for label in labels)
    wanted = {label: max(1, round(VALIDATION_SHARE * n)) if groups_of[label] > 1 else 0 for label, n in size.items()}
    taken: Counter[str] = Counter()
    chosen = set()
    for name in order:
        if all(taken[label] + n <= wanted[label] for label, n in held[name].items()):
            taken.update(held[name])
            chosen.add(name)
    for label in sorted(size):
        if wanted[label] > 0 and taken[label] == 0:
            for name in sorted((name for name in order if label in held[name]), key=lambda name: held[name][label]):
                if all(taken[other] + n < size[other] for other, n in held[name].items()):
                    taken.update(held[name])
                    chosen.add(name)
                    break
    return pd.Series(np.where(group.isin(chosen), "validation", "pretrain"), index=videos.index)


# ---------------------------------------------------------------- classes and quarters


def classes(videos: pd.DataFrame) -> tuple[str, ...]:
    """Names of the classes that have training and validation videos, in alphabetical order."""
    return tuple(sorted(set.intersection(*(set(videos.label[videos.split == split]) for split in SPLITS))))


def labelled_classes(videos: pd.DataFrame) -> tuple[str, ...]:
    """Those of `classes` that have labelled training videos: all that the ensemble learns."""
    learned = set(videos.label[videos.labelled & (videos.split == "pretrain")])
    return tuple(name for name in classes(videos) if name in learned)


def quarters(videos: pd.DataFrame) -> pd.Series:
    """Number of the quarter, 1 to 4, of every labelled training video; 0 for all others.

    Each class is listed in the order of its file names and cut into contiguous runs of ceil(n / 4). Where that
    leaves no fourth run, the runs are as even as can be; fewer than four videos go to the quarters in turn.
    Source: rule behind pico-JEPA's published lists (its Table 1: 706 / 707 / 707 / 697). Book: chapter 1.
    """
    number, dealt = pd.Series(0, index=videos.index), 0
    listed = videos[videos.split == "pretrain"].sort_values("path")
    for _, of_class in listed[listed.groupby("label").labelled.transform("any")].groupby("label"):
        n = len(of_class)
        cut = np.arange(n) // -(-n // 4)
        if n < 4:
            cut, dealt = (dealt + np.arange(n)) % 4, dealt + n
        elif cut[-1] < 3:
            cut = 4 * np.arange(n) // n
        number[of_class.index] = cut + 1
    return number.where(videos.labelled & (videos.split == "pretrain"), 0)
