"""Folders of videos, as people and data sets have them: which files are videos, which folders classes, which splits.

Nothing is left out without a word: what is passed over is counted, with the reason. Book: the page on one's own videos.
"""

import os
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from footage.containers import is_avi, is_stream
from picojepa import require

SUFFIXES = frozenset(
    ".3g2 .3gp .amv .asf .avi .divx .dv .f4v .flv .gif .h264 .hevc .m1v .m2t .m2ts .m2v .m4v .mkv .mod .mov .mp4 .mpe "
    ".mpeg .mpg .mts .mxf .nut .ogm .ogv .qt .rm .rmvb .tod .ts .vob .webm .wmv .xvid .y4m".split()
)
JUNK = frozenset(
    "__macosx $recycle.bin thumbs.db desktop.ini @eadir lost+found".split() + ["system volume information"]
)
# First bytes of video files, and where they are; what looks so is read whatever its name says.
SIGNS = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (0, b"\x1aE\xdf\xa3"), (0, b"OggS"), (0, b"FLV\x01"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), (0, b"\x06\x0e\x2b\x34"), (0, b".RMF"), (0, b"GIF8"),
)  # fmt: skip
PICTURES = (b"avif", b"heic", b"heix", b"mif1", b"M4A ")  # of the same container as MP4, without moving pictures
WORDS = {"pretrain": "train training", "validation": "val valid validate validation test testing dev eval holdout"}
SPLIT_OF = {word: split for split, words in WORDS.items() for word in words.split()}


def split_of(name: str) -> str | None:
    """The split that a name such as ``train``, ``Test`` or ``val_256`` means; None: it is no split's."""
    found = {SPLIT_OF[word] for word in re.split(r"[\W_\d]+", name.lower()) if word in SPLIT_OF}
    return found.pop() if len(found) == 1 else None


def is_video(path: Path) -> bool:
    """Whether a file has a video's ending or begins like one."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    signed = any(head[place : place + len(sign)] == sign for place, sign in SIGNS)
    return (signed and head[8:12] not in PICTURES) or is_avi(path) or is_stream(path)


def find_videos(folder: Path) -> tuple[list[Path], list[str]]:
    """Videos below a folder, relative to it, in the order of their names, and remarks on what was passed over."""
    videos, passed, links = [], Counter[str](), []
    for where, folders, files in os.walk(folder):
        here = Path(where).relative_to(folder)
        hidden = [name for name in (*folders, *files) if name.startswith(".") or name.lower() in JUNK]
        passed["of the system or hidden"] += len(hidden)
        links += [(here / name).as_posix() for name in folders if Path(where, name).is_symlink() and name not in hidden]
        folders[:] = [name for name in folders if name not in hidden]
        for name in (name for name in files if name not in hidden):
            if is_video(Path(where, name)):
                videos.append(here / name)
            else:
                passed[f"no video ({Path(name).suffix.lower() or 'without an ending'})"] += 1
        if here.parts and not folders and not files:
            passed["an empty folder"] += 1
    said = ", ".join(f"{n} {what}" for what, n in passed.most_common() if n)
    remarks = [f"passed over: {said}"] if said else []
    if links:
        remarks.append(
            f"passed over: {len(links)} linked folders ({', '.join(sorted(links)[:3])}); copy them to use them"
        )
    return sorted(videos), remarks


def read_classes(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Path, label and maybe split of the videos of a folder of classes, and remarks on how it was understood.

    One folder around all others is passed through. Folders that are all named after splits, around the classes or
    inside each of them, are taken as splits.

    Raises:
        ValueError: there is no video in a sub-folder.
    """
    videos, remarks = find_videos(folder)
    deep = [path.parts for path in videos if len(path.parts) > 1]
    said = f" ({'; '.join(remarks)})" if remarks else ""
    require(bool(deep), f"{folder}: no videos in sub-folders{said}; make one for each class with its videos inside")
    if loose := len(videos) - len(deep):
        remarks.append(f"passed over: {loose} videos that lie beside the folders of the classes")
    around = 0
    while len({parts[around] for parts in deep}) == 1 and all(len(parts) > around + 2 for parts in deep):
        around += 1
    if around:
        remarks.append(f"the classes are the folders inside {'/'.join(deep[0][:around])}")
    bare = sorted(_folders(folder.joinpath(*deep[0][:around])) - {parts[around] for parts in deep})
    if bare:
        remarks.append(f"without videos, and so no classes: {', '.join(bare)}")
    table = pd.DataFrame({"path": ["/".join(parts) for parts in deep]})
    for level, of_class in ((around, around + 1), (around + 1, around)):
        if all(len(parts) > around + 2 for parts in deep):
            splits = {parts[level]: split_of(parts[level]) for parts in deep}
            if {*splits.values()} == {"pretrain", "validation"}:
                split = [splits[parts[level]] for parts in deep]
                counts = Counter(parts[level] for parts in deep)
                learned, asked = (
                    " and ".join(f"{name} ({counts[name]})" for name in sorted(splits) if splits[name] == wanted)
                    for wanted in ("pretrain", "validation")
                )
                remarks.append(f"folders of splits: {learned} to learn from, {asked} to be asked about")
                return table.assign(label=[parts[of_class] for parts in deep], split=split), remarks
    names = {parts[around] for parts in deep}
    require(
        not {"pretrain", "validation"} <= {split_of(name) for name in names},
        f"{folder}: {', '.join(sorted(names))} look like splits; put a folder for each class into each of them",
    )
    return table.assign(label=[parts[around] for parts in deep]), remarks


def _folders(folder: Path) -> set[str]:
    """Names of the folders in a folder that are neither hidden nor of the system."""
    return {
        p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name.lower() not in JUNK
    }
