"""Lists of videos: tables with one row per video: path, label, split (``pretrain`` or ``validation``), labelled.

Book: chapter 1, and the page on one's own videos.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from footage import folders, tables
from footage.tables import refuse
from picojepa import require, store

REQUIRED_COLUMNS = ("path", "label")
NOTED_COLUMNS = (
    *"seed frames fps width height gop crf sha256 travel props occluder".split(),
)  # by the generator, kept as text
OPTIONAL_COLUMNS = ("split", "group", "labelled", "scene", *NOTED_COLUMNS)
SPLITS = ("pretrain", "validation")
MORE_SPLITS = ("validation-counter",)  # further videos to be asked about, of the stand-in
VALIDATION_SHARE = 0.2  # of the videos of a class, where nobody has split them


@cache
def paper_lists() -> pd.DataFrame:
    """The paper's ten classes (index), their parts of Kinetics' archive, and how many videos its lists hold of each.

    The columns are archive_part, pretraining, labelled and validation; what is not labelled has no number in the last.
    """
    return pd.read_csv(store.data_file("paper/lists.csv"), index_col="class")


def paper_labelled() -> tuple[str, ...]:
    """The four classes that the paper's classifiers learn."""
    return tuple(paper_lists().labelled.dropna().index)


def read_manifest(path: Path) -> pd.DataFrame:
    """Read and check a list of videos; see `read_list`."""
    return read_list(path)[0]


def read_folder(folder: Path) -> pd.DataFrame:
    """List the videos of a folder with one sub-folder per class, in the order of their names; see `read_list`."""
    return read_list(folder)[0]


def read_list(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The videos of a folder or of a list, and remarks on how it was understood and what was passed over.

    Args:
        path: a folder with one sub-folder per class (`folders.read_classes`), or a table (`tables.read_table`) with
            `REQUIRED_COLUMNS`, paths relative to it, and maybe some of `OPTIONAL_COLUMNS`. Of a pair such as
            ``trainlist01.txt`` and ``testlist01.txt`` either names both. A list of moments, as Kinetics has it, is
            matched with the files below its folder.

    Returns:
        One row per video with absolute paths, in the order of the list. Names are in one Unicode form. Default of
        ``split``: `split_by_rule`; of ``labelled``: all training videos, but only the paper's four classes if the
        list is of its ten.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no table, no rows, no sub-folders with videos, a wrong column, cell, path, split or group; the
            message names it.
    """
    if path.is_dir():
        table, remarks = folders.read_classes(path)
        return _checked(table, path, path), remarks
    if not path.exists():
        raise FileNotFoundError(f"no manifest at {path}; generate the stand-in (chapter 1) or write a CSV: path,label")
    table, remarks = _with_counterpart(path)
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    if {*table} >= tables.MOMENT:
        table, more = _moments(table, path)
        remarks += more
    refuse(path, [c for c in table if c not in known], f"unknown column {{}}; known columns: {', '.join(known)}")
    refuse(path, [c for c in REQUIRED_COLUMNS if c not in table], "column {} is missing; add it to every line")
    table = table.mask(table.apply(lambda column: column.str.strip() == ""))
    blank = table[[*REQUIRED_COLUMNS]].isna().any(axis=1)
    refuse(path, table.index[blank], "line {}: empty path or label; fill it or remove the row")
    if "labelled" in table:
        said = table.labelled.str.lower().map({"true": True, "1": True, "false": False, "0": False})
        refuse(path, table.index[said.isna()], "line {}: labelled must be True or False")
        table["labelled"] = said.astype(bool)
    base = _base(path.parent, table.path)
    if base != path.parent:
        remarks.append(f"paths begin in {base}")
    return _checked(table.reset_index(drop=True), path, base), remarks


def _with_counterpart(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a list; of ``train...`` and ``test...`` or ``val...`` side by side those of both, with a split."""
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    table, words = tables.read_table(path, known), "train|test|val(?:idation)?"
    if "split" in table or {*table} >= tables.MOMENT or not re.search(words, path.stem):
        return table, []
    shape = re.compile(re.sub(words, f"({words})", re.escape(path.name), count=1))
    beside = sorted(other for other in path.parent.iterdir() if shape.fullmatch(other.name))
    splits = {other: folders.SPLIT_OF[shape.fullmatch(other.name)[1]] for other in beside}  # type: ignore[index]
    if {*splits.values()} != {*SPLITS}:
        return table, []
    parts = [tables.read_table(other, known).assign(split=split) for other, split in splits.items()]
    said = " and ".join(f"{other.name} ({splits[other]})" for other in beside)
    return pd.concat(parts), [f"read together: {said}"]


def _moments(table: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of Kinetics' own list that have a file, with its path: ``ID_000001_000011.mp4`` or ``ID.mp4``."""
    stems = {name.stem: name.as_posix() for name in folders.find_videos(path.parent)[0]}
    span = table[["time_start", "time_end"]].apply(lambda column: pd.to_numeric(column, errors="coerce").fillna(-1))
    names = [f"{i}_{int(s):06d}_{int(e):06d}" for i, s, e in zip(table.youtube_id, *map(span.get, span), strict=True)]
    found = [stems.get(name) or stems.get(i) for name, i in zip(names, table.youtube_id, strict=True)]
    labelled = table.get("label", pd.Series("", table.index)).str.strip() != ""
    kept = pd.Series(found, table.index, dtype=object).notna() & labelled
    remedy = "put the videos into its folder, named as tools/kinetics.py names them (ID_000001_000011.mp4)"
    require(
        bool(kept.any()),
        f"{path}: a list of moments of YouTube videos, and none of its {len(table)} is there; {remedy}",
    )
    rest = len(table) - int(kept.sum())
    columns = [column for column in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS) if column in table]
    matched = table.assign(path=found)[kept][["path", *(c for c in columns if c != "path")]]
    return matched, [f"passed over: {rest} of {len(table)} moments, without a file or a label"] if rest else []


def _base(folder: Path, names: pd.Series) -> Path:
    """Where relative paths begin: at the list or, if none of its files is there, in the folder near it with most."""
    relative = [name for name in names if not Path(name).is_absolute()]

    def count(place: Path) -> int:
        return sum(os.path.isfile(place / name) for name in relative)

    if count(folder) or not relative:
        return folder
    near = [p for p in (folder.parent, *folder.iterdir(), *folder.parent.iterdir()) if p.is_dir()]
    best = max(near, key=count)
    return best if count(best) else folder


def _on_disk(folder: Path, names: pd.Series) -> pd.Series:
    """The absolute paths of names, in the Unicode form that the disk has."""
    paths = names.map(lambda name: os.path.realpath(folder / name))
    lost = [path for path in paths if not path.isascii() and not os.path.exists(path)]
    if not lost:
        return paths
    files = (os.path.join(where, name) for where, _, inside in os.walk(folder.resolve()) for name in inside)
    found = {unicodedata.normalize("NFC", path): path for path in files}
    return paths.replace({path: found.get(unicodedata.normalize("NFC", path), path) for path in lost})


def _checked(table: pd.DataFrame, where: Path, folder: Path) -> pd.DataFrame:
    """The table with absolute paths, split and labelled; raises as `read_list` says."""
    odd = [repr(name) for name in table.path if name.encode(errors="ignore").decode() != name]
    refuse(where, odd, "{} is no usable path; rename the file or remove it")
    inside, paths = folder.resolve(), _on_disk(folder, table.path)
    away = table.path[[not Path(path).is_relative_to(inside) for path in paths]]
    remedy = "put the video (no link to it) into that folder, or the CSV into a folder that holds all videos"
    refuse(where, away, f"{{}} leads out of {inside}; {remedy}")
    refuse(where, table.path[paths.duplicated()], "listed twice: {}; remove one of the rows")
    for column in {"label", "group", "scene"} & {*table}:
        one_form = table[column].map(lambda name: unicodedata.normalize("NFC", name), na_action="ignore")
        table[column] = one_form.astype("str")  # also where no cell is filled
    if "split" not in table:
        table["split"] = split_by_rule(table)
    table["split"] = table.split.map(lambda name: folders.SPLIT_OF.get(str(name).strip().lower(), name))
    unknown = sorted({*table.split.astype(object).fillna("empty")} - {*SPLITS, *MORE_SPLITS})
    refuse(where, unknown, f"unknown split {{}}; known splits: {', '.join(SPLITS)}")
    bare = sorted({*table.label} - {*table.label[table.split == "pretrain"]})
    refuse(where, bare, "class without training videos: {}; add some or remove its validation videos")
    if "group" in table:
        sides = table.groupby("group").split.nunique()
        refuse(where, sides.index[sides > 1], "group {} is in both splits; give it one, or remove the column split")
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
