"""Fetch the videos of Kinetics-700-2020 that the paper used, and list them by the paper's rule: ``make kinetics``.

Ten archives for pre-training and four for validation, one for each class. What it takes is said before anything is
fetched. Interrupt at will: the next call goes on. An archive is removed when its clips have been taken out.
Other options than the usual ones: make kinetics ARGS="--folder /large/disk".
"""

import argparse
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from picojepa.config import PAPER_LABELLED, PAPER_PRETRAINING, PAPER_VALIDATION
from picojepa.store import DATA
from standin import CLASSES, LABELLED_CLASSES
from tools import kinetics_fetch
from tools.kinetics_fetch import Part, Trouble, done_with, growing, size, take_out, unfinished

BASE_URL = "https://s3.amazonaws.com/kinetics/700_2020"
PARTS = {
    part.name: part
    for part in (
        *(Part("train", number) for number in range(1, len(CLASSES) + 1)),
        *(Part("val", CLASSES.index(label) + 1) for label in LABELLED_CLASSES),
    )
}
SPLITS = {"train": "pretrain", "val": "validation"}
SPREAD = 1.02  # disk that clips take / size of their archive; mp4 files do not shrink
ROOM = "make room and call again (it goes on where it stopped), or name a folder on a larger disk with --folder"
PLACE = "name a folder that can be written with --folder"
REMEDIES = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "this disk, or `ulimit -f`, allows no file as large; name another folder with --folder",
    errno.EACCES: PLACE,
    errno.EPERM: PLACE,
    errno.EROFS: PLACE,
    errno.EEXIST: "a file is in the place of a folder; move it away or name another folder with --folder",
    errno.ENOTDIR: "a file is in the place of a folder; move it away or name another folder with --folder",
}
WHY = (
    "Differences are to be expected: Kinetics loses videos whose owners take them back, so copies of different years "
    "differ; and the paper's labelled list lacks one video of adjusting_glasses."
)


# ---------------------------------------------------------------- records


def read_json(path: Path) -> dict[str, Any]:
    """What is noted in a file; nothing if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise Trouble(f"{path}: this is not JSON ({error}); repair the file or remove it") from error


def note(path: Path, name: str, facts: Any) -> None:
    """Add an entry to a JSON file; a reader, or kill -9, finds the old file or the new one."""
    noted = read_json(path) | {name: facts}
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(noted, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def content(folder: Path) -> dict[str, int]:
    """How many clips a folder holds, and how many bytes."""
    sizes = [path.stat().st_size for path in folder.glob("*.mp4")]
    return {"clips": len(sizes), "bytes": sum(sizes)}


def waiting_parts(folder: Path, names: list[str]) -> list[Part]:
    """Parts that are not done; half-filled folders and archives that are done with are removed."""
    ledger, waiting = read_json(folder / "parts.json"), []
    for part in (PARTS[name] for name in names):
        shutil.rmtree(unfinished(part.clips(folder)), ignore_errors=True)
        noted, found = ledger.get(part.name), content(part.clips(folder))
        if noted and found == {key: noted[key] for key in found}:
            done_with(part.archive(folder), keep=noted["kept"])
            continue
        if noted:
            print(f"{part.name}: {found['clips']} of {noted['clips']} clips are there as they were; fetching it again")
        waiting.append(part)
    return waiting


# ---------------------------------------------------------------- fetch


def check_room(folder: Path, sizes: dict[Part, int], keep: bool) -> None:
    """Say how much will be fetched and how much disk it takes; refuse if so much is not free."""
    missing = [
        total - max(size(part.archive(folder)), size(growing(part.archive(folder)))) for part, total in sizes.items()
    ]
    clips, archives = SPREAD * sum(sizes.values()), sum(missing) if keep else max(missing)
    need, free = clips + archives, shutil.disk_usage(folder).free
    print(
        f"To fetch: {len(sizes)} archives, {gigabytes(sum(missing))}. Disk: {gigabytes(clips)} for clips and "
        f"{gigabytes(archives)} for {'archives' if keep else 'one archive at a time'}, {gigabytes(need)} in all; "
        f"{gigabytes(free)} are free in {folder}."
    )
    if need > free:
        raise Trouble(f"{folder}: {gigabytes(need)} are needed, {gigabytes(free)} are free; {ROOM}")


def gigabytes(count: float) -> str:
    """Bytes, to be read."""
    return f"{count / 1e9:.3g} GB"


def check_hash(archive: Path, name: str, hashes: Path) -> str:
    """SHA-256 of an archive, compared with what was noted when it was fetched the first time."""
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    noted = read_json(hashes).get(name, {}).get("sha256", found)
    if found != noted:
        done_with(archive, keep=False)
        raise Trouble(
            f"{archive}: its SHA-256 is {found}, noted in {hashes} is {noted}. The archive was removed; call again to "
            f"fetch it anew. If that ends the same way, the server's copy has changed: to accept it, remove {name} "
            "from that file"
        )
    return found


def take(web: httpx.Client, part: Part, options: argparse.Namespace) -> None:
    """Fetch one part, compare its hash, take its clips out, note that it is done."""
    archive, clips = part.archive(options.folder), part.clips(options.folder)
    if not archive.exists():
        kinetics_fetch.fetch(web, part.url(options.base_url), archive)
    facts = {"archive_bytes": size(archive), "sha256": check_hash(archive, part.name, options.hashes)}
    if others := take_out(archive, part.label, clips):
        print(f"{part.name}: {others} files that are no clips were left out")
    note(options.hashes, part.name, facts)
    note(options.folder / "parts.json", part.name, {**facts, **content(clips), "kept": options.keep})
    done_with(archive, options.keep)


def fetch_all(options: argparse.Namespace) -> None:
    """Fetch and unpack every part that is not done."""
    folder = options.folder
    waiting = waiting_parts(folder, options.parts)
    if not waiting:
        print(f"All {len(options.parts)} archives are done; nothing to fetch.")
        return
    (folder / "archives").mkdir(exist_ok=True)
    with kinetics_fetch.client() as web:
        sizes = {}
        for part in tqdm(waiting, desc="asking for sizes", unit="archive"):
            ask = partial(kinetics_fetch.remote, web, part.url(options.base_url))
            sizes[part] = size(part.archive(folder)) or kinetics_fetch.patiently(ask)[0]
        check_room(folder, sizes, options.keep)
        for part in waiting:
            take(web, part, options)


# ---------------------------------------------------------------- lists


def list_videos(folder: Path) -> None:
    """Write ``manifest.csv`` and ``unreadable.json``, and print the numbers beside the paper's.

    Pre-training: every readable video of the ten classes; labelled: those of four classes. The order is that of
    splits, classes and file names by code point, so it is the same on every machine.
    """
    import pandas as pd  # here: fetching needs neither pandas nor PyTorch

    from picojepa import data

    def trouble(row: tuple[str, str, Path]) -> str | None:
        try:
            data.open_video(row[2])
        except data.VideoError as error:
            return str(error)
        return None

    rows = [
        (split, label, path)
        for split in SPLITS
        for label in CLASSES
        for path in sorted((folder / split / label).glob("*.mp4"), key=lambda path: path.name)
    ]
    with ThreadPoolExecutor() as pool:
        reasons = list(tqdm(pool.map(trouble, rows), desc="opening", total=len(rows), unit="video"))
    bad = {row[2].relative_to(folder).as_posix(): reason for row, reason in zip(rows, reasons, strict=True) if reason}
    (folder / "unreadable.json").write_text(json.dumps(bad, indent=1) + "\n", encoding="utf-8")
    table = pd.DataFrame(
        [
            (path.relative_to(folder).as_posix(), label, SPLITS[split], split == "train" and label in LABELLED_CLASSES)
            for (split, label, path), reason in zip(rows, reasons, strict=True)
            if not reason
        ],
        columns=["path", "label", "split", "labelled"],
    )
    temporary, manifest = folder / "manifest.csv.tmp", folder / "manifest.csv"
    table.to_csv(temporary, index=False)
    try:
        videos = data.read_manifest(temporary)
    except ValueError as error:
        raise Trouble(f"no list can be made of what is in {folder}: {error}") from error
    os.replace(temporary, manifest)
    print_counts(videos)
    sizes = data.quarters(videos).value_counts()
    print(f"Quarters of the labelled videos: {' / '.join(str(sizes.get(number, 0)) for number in (1, 2, 3, 4))}")
    print(f"{len(bad)} of {len(rows)} videos do not open (unreadable.json says why). The list: {manifest}")
    print(f"The whole book on it: PICOJEPA_DATA={manifest} PICOJEPA_PROFILE=paper make book")


def print_counts(videos: Any) -> None:
    """Videos per class and list, beside the paper's."""
    training, validation = videos[videos.split == "pretrain"], videos[videos.split == "validation"]
    paper = (
        ("pre-training", training, dict(zip(CLASSES, PAPER_PRETRAINING, strict=True))),
        ("labelled", training[training.labelled], dict(zip(LABELLED_CLASSES, PAPER_LABELLED, strict=True))),
        ("validation", validation, dict(zip(LABELLED_CLASSES, PAPER_VALIDATION, strict=True))),
    )
    print(f"\n{'videos: here, paper, difference':32}" + "".join(f"{title:>20}" for title, _, _ in paper))
    for label in (*CLASSES, "all"):
        cells = []
        for _, found, stated in paper:
            here = len(found) if label == "all" else int((found.label == label).sum())
            there = sum(stated.values()) if label == "all" else stated.get(label)
            cells.append("" if there is None else f"{here:6}{there:6}{here - there:+6}")
        print(f"{label:32}{''.join(f'{cell:>20}' for cell in cells)}".rstrip())
    print(WHY)


# ---------------------------------------------------------------- the door


def parse(words: list[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=DATA / "kinetics", help="where archives, clips and lists go")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--keep", action="store_true", help="keep the archives")
    parser.add_argument("--base-url", default=BASE_URL, help="where train/ and val/ are; default: %(default)s")
    parser.add_argument(
        "--hashes", type=Path, default=DATA / "kinetics.json", help="SHA-256 of every archive, noted and compared"
    )
    options = parser.parse_args(words)
    if not options.base_url.startswith(("http://", "https://")):
        parser.error(f"--base-url must begin with http:// or https://, not {options.base_url!r}")
    options.folder = options.folder.expanduser().resolve()
    return options


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make a folder and wait until no other run works in it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another run is at work in {folder}; waiting for its end.", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def main(words: list[str] | None = None) -> int:
    """Fetch and list; 1 if something stands in the way."""
    options = parse(words)
    try:
        with alone(options.folder):
            fetch_all(options)
            list_videos(options.folder)
    except Trouble as trouble:
        wrong = str(trouble)
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, f"mend that and call again, or {PLACE}")
        wrong = f"{error.filename or options.folder}: {error.strerror or error}; {remedy}"
    except KeyboardInterrupt:
        wrong = "interrupted; the next call goes on where this one stopped"
    else:
        return 0
    print(f"kinetics: {wrong}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
