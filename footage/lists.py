"""Lists of videos: tables with one row per video: path, label, split (``pretrain`` or ``validation``), labelled.

Book: chapter 1, and the page on one's own videos.
"""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from picojepa import require, store

REQUIRED_COLUMNS = ("path", "label")
NOTED_COLUMNS = (
    *"seed frames fps width height gop crf sha256 travel props occluder".split(),
)  # by the generator, kept as text
OPTIONAL_COLUMNS = ("split", "group", "labelled", "scene", *NOTED_COLUMNS)
SPLITS = ("pretrain", "validation")
MORE_SPLITS = ("validation-counter",)  # further videos to be asked about, of the stand-in
VALIDATION_SHARE = 0.2  # of the videos of a class, where nobody has split them
SUFFIXES = frozenset(".3gp .avi .flv .gif .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split())


@cache
def paper_lists() -> pd.DataFrame:
    """The paper's ten classes (index), their parts of Kinetics' archive, and how many videos its lists hold of each.

    The columns are archive_part, pretraining, labelled and validation; what is not labelled has no number in the last.
    """
    return pd.read_csv(store.data_file("paper/lists.csv"), index_col="class")


def paper_labelled() -> tuple[str, ...]:
    """The four classes that the paper's classifiers learn."""
    return tuple(paper_lists().labelled.dropna().index)


def _refuse(where: Path, wrong: Iterable[object], message: str) -> None:
    """Raise ValueError if anything is wrong; ``{}`` in the message stands for the first few of these things."""
    found = [str(thing) for thing in wrong][:5]
    require(not found, f"{where}: {message.replace('{}', ', '.join(found))}")


def read_manifest(path: Path) -> pd.DataFrame:
    """Read and check a CSV of videos.

    Args:
        path: with `REQUIRED_COLUMNS`, paths relative to the CSV, and maybe some of `OPTIONAL_COLUMNS`.

    Returns:
        One row per video with absolute paths, in the order of the file. Default of ``split``: `split_by_rule`; of
        ``labelled``: all training videos, but only the paper's four classes if the list is of its ten.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no table in UTF-8, no rows, a wrong column, cell, path, split or group; the message names it.
    """
    if not path.exists():
        raise FileNotFoundError(f"no manifest at {path}; generate the stand-in (chapter 1) or write a CSV: path,label")
    try:
        text = path.read_text(encoding="utf-8-sig")
        require("\0" not in text, "there is a zero byte")
        reader = csv.reader(StringIO(text), strict=True)
        numbered = [(reader.line_num, row) for row in reader if row]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: this is no table in UTF-8 ({error}); save it as CSV with commas") from error
    require(len(numbered) > 1, f"{path}: the manifest lists no videos; add at least one row")
    (_, header), *rows = numbered
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    _refuse(path, [c for c in header if c not in known], f"unknown column {{}}; known columns: {', '.join(known)}")
    _refuse(path, [c for c in REQUIRED_COLUMNS if c not in header], "column {} is missing; add it to every line")
    _refuse(path, [c for c in known if header.count(c) > 1], "column {} is named twice in the first line; remove one")
    ragged = [f"line {line} has {len(row)} cells" for line, row in rows if len(row) != len(header)]
    remedy = "put a cell that holds a comma into quotes, and keep the comma of an empty one"
    _refuse(path, ragged, f"{{}}, the first line {len(header)}; {remedy}")
    table = pd.DataFrame([row for _, row in rows], [line for line, _ in rows], header, dtype="str")
    table = table.mask(table.apply(lambda column: column.str.strip() == ""))
    blank = table[[*REQUIRED_COLUMNS]].isna().any(axis=1)
    _refuse(path, table.index[blank], "line {}: empty path or label; fill it or remove the row")
    if "labelled" in table:
        said = table.labelled.str.lower().map({"true": True, "1": True, "false": False, "0": False})
        _refuse(path, table.index[said.isna()], "line {}: labelled must be True or False")
        table["labelled"] = said.astype(bool)
    return _checked(table.reset_index(drop=True), path, path.parent)


def read_folder(folder: Path) -> pd.DataFrame:
    """List the videos of a folder with one sub-folder per class, in the order of their names.

    Args:
        folder: labels are the names of its sub-folders, which may have folders inside. Hidden files, and files
            with another ending than `SUFFIXES`, are left out.

    Raises:
        ValueError: no sub-folder, one without videos, or a link that leaves the folder.
    """
    kinds = {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")}
    require(bool(kinds), f"{folder}: no sub-folders; make one for each class with its videos inside, or name a CSV")
    files = sorted(p.relative_to(folder) for p in folder.glob("*/**/*") if p.suffix.lower() in SUFFIXES and p.is_file())
    videos = [path for path in files if path.parts[0] in kinds and not path.name.startswith(".")]
    remedy = f"(known endings: {', '.join(sorted(SUFFIXES))}); add some, remove the sub-folder, or name a CSV"
    _refuse(folder, sorted(kinds - {path.parts[0] for path in videos}), f"no videos inside {{}} {remedy}")
    table = pd.DataFrame({"path": [path.as_posix() for path in videos], "label": [path.parts[0] for path in videos]})
    return _checked(table, folder, folder)


def _checked(table: pd.DataFrame, where: Path, folder: Path) -> pd.DataFrame:
    """The table with absolute paths, split and labelled; raises as `read_manifest` says."""
    odd = [repr(name) for name in table.path if name.encode(errors="ignore").decode() != name]
    _refuse(where, odd, "{} is no usable path; rename the file or remove it")
    inside, paths = folder.resolve(), table.path.map(lambda name: os.path.realpath(folder / name))
    away = table.path[[not Path(path).is_relative_to(inside) for path in paths]]
    remedy = "put the video (no link to it) into that folder, or the CSV into a folder that holds all videos"
    _refuse(where, away, f"{{}} leads out of {inside}; {remedy}")
    _refuse(where, table.path[paths.duplicated()], "listed twice: {}; remove one of the rows")
    if "split" not in table:
        table["split"] = split_by_rule(table)
    unknown = sorted({*table.split.fillna("empty")} - {*SPLITS, *MORE_SPLITS})
    _refuse(where, unknown, f"unknown split {{}}; known splits: {', '.join(SPLITS)}")
    bare = sorted({*table.label} - {*table.label[table.split == "pretrain"]})
    _refuse(where, bare, "class without training videos: {}; add some or remove its validation videos")
    if "group" in table:
        sides = table.groupby("group").split.nunique()
        _refuse(where, sides.index[sides > 1], "group {} is in both splits; give it one, or remove the column split")
    if "labelled" not in table:
        of_paper = {*paper_labelled()} <= {*table.label} <= {*paper_lists().index}
        table["labelled"] = (table.split == "pretrain") & (table.label.isin(paper_labelled()) | (not of_paper))
    return table.assign(path=paths)


def for_the_book(videos: pd.DataFrame, where: Path) -> pd.DataFrame:
    """A list of one's own on which every chapter can run: classes without validation videos are not labelled.

    Raises:
        ValueError: fewer than two classes on both sides, or too few labelled training videos for four quarters.
    """
    found = ", ".join(f"{label} ({n})" for label, n in videos.label.value_counts().sort_index().items())
    require(
        len(classes(videos)) > 1,
        f"{where}: the book needs two classes with at least two videos each, for training and for validation; found: "
        f"{found}; add videos or classes. To pre-train only, hand a list to data.load_clips (chapter 1)",
    )
    videos = videos.assign(labelled=videos.labelled & videos.label.isin(classes(videos)))
    learned, number = int((videos.labelled & (videos.split == "pretrain")).sum()), len(labelled_classes(videos))
    full = {1, 2, 3, 4} & {*quarters(videos)}
    require(
        number > 1 and len(full) == 4,
        f"{where}: {learned} labelled training videos of {number} classes, in {len(full)} of the four quarters of "
        "chapter 6, which cut a class in the order of its names and need at least four videos of two classes; add "
        "videos, label more of them, or remove the column labelled",
    )
    return videos


def split_by_rule(videos: pd.DataFrame) -> pd.Series:
    """``validation`` for about a fifth of each class, ``pretrain`` for the rest.

    Groups (column ``group``: one person, one recording) stay on one side; a row without one is its own. They are
    taken in the order of a hash of their name, so the order of the rows plays no part. A class with several
    groups gets at least one on each side, unless they also hold other classes and would empty these.
    """
    own = "file " + videos.path.map(lambda p: Path(p).as_posix())
    group = ("group " + videos.group).fillna(own) if "group" in videos else own
    held = {name: Counter(labels) for name, labels in videos.label.groupby(group)}
    order = sorted(held, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    size, groups_of = Counter(videos.label), Counter(label for labels in held.values() for label in labels)
    wanted = {label: max(1, round(VALIDATION_SHARE * n)) if groups_of[label] > 1 else 0 for label, n in size.items()}
    taken: Counter[str] = Counter()
    chosen = []
    for name in order:
        if all(taken[label] + n <= wanted[label] for label, n in held[name].items()):
            taken.update(held[name])
            chosen.append(name)
    for label in sorted(label for label in size if wanted[label]):
        smallest = sorted((name for name in order if label in held[name]), key=lambda name: held[name][label])
        for name in smallest:
            if not taken[label] and all(taken[other] + n < size[other] for other, n in held[name].items()):
                taken.update(held[name])
                chosen.append(name)
    return pd.Series(np.where(group.isin(chosen), "validation", "pretrain"), index=videos.index)


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
