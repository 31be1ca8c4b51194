"""Fetch the videos of Kinetics-700-2020 that the paper used, and list them by the paper's rule: ``make kinetics``.

Ten archives for pre-training and four for validation, one for each class, from where
github.com/cvdfoundation/kinetics-dataset has them. What it takes is said before anything is fetched. Interrupt at will:
the next call goes on. Other options than the usual ones: make kinetics ARGS="--folder /large/disk".
"""

import argparse
import gzip
import io
import json
import os
import re
import shutil
import sys
import tarfile
import time
import zlib
from functools import partial
from pathlib import Path, PurePosixPath
from subprocess import PIPE, Popen
from typing import Any

import pandas as pd
from filelock import AcquireReturnProxy, FileLock, Timeout
from tqdm.auto import tqdm
from tqdm.contrib.concurrent import thread_map

DATA = Path(__file__).resolve().parents[1] / "data"
LISTS = pd.read_csv(DATA / "paper" / "lists.csv", index_col="class").convert_dtypes()
PAPER = LISTS.drop(columns="archive_part")  # videos in the paper's lists
SPLITS = {"train": "pretrain", "val": "validation"}
PARTS = {  # name: split, class; Kinetics numbers its classes alphabetically from 1
    f"{split}_{LISTS.archive_part[label]:03}": (split, label)
    for split, labels in (("train", PAPER.index), ("val", PAPER.validation.dropna().index))
    for label in labels
}
BASE_URL = "https://s3.amazonaws.com/kinetics/700_2020"
CLIP = re.compile(r"[A-Za-z0-9_-]{11}_\d+_\d+\.mp4")  # identifier, first and last second
SPREAD = 1.02  # disk that clips take / size of their archive; mp4 files do not shrink

# Given up: no connection after 30 s, less than 1000 bytes/s for 60 s. The last line on stderr is the answer's number.
CURL = "curl --silent --show-error --fail --location --globoff --connect-timeout 30 --speed-limit 1000 --speed-time 60"
CURL_WORDS = [*CURL.split(), "--write-out", r"%{stderr}\n%{http_code}"]
TRIES = 6  # in a row that bring nothing
WAIT = 1.0  # seconds before the second of them; then 3, 7, 15, 31 times as long


class Trouble(Exception):
    """What stops the work: the file or address, what happened, what to do."""


class Part:
    """One archive and its clips, of one class of one split. Both have their names only when they are whole."""

    def __init__(self, name: str, options: argparse.Namespace):
        self.name, (split, self.label) = name, PARTS[name]
        self.archive = options.folder / "archives" / f"k700_{name}.tar.gz"
        self.url = f"{options.base_url.rstrip('/')}/{split}/{self.archive.name}"
        self.clips = options.folder / split / self.label
        self.unfinished = self.clips.with_name(f".{self.label}.partial")

    def arrived(self) -> int:
        """Bytes of the archive that are there."""
        return sum(path.stat().st_size for path in self.archive.parent.glob(f"{self.archive.name}*"))

    def is_done(self) -> bool:
        """Whether all clips are there; what is left over of the work is removed."""
        shutil.rmtree(self.unfinished, ignore_errors=True)
        record, found = self.clips / ".complete", content(self.clips)
        noted = record.read_text(encoding="utf-8", errors="replace") if record.exists() else ""
        if noted == found:  # else the archive was to be kept
            self.archive.unlink(missing_ok=True)
        elif noted and not noted.startswith(found):
            print(f"{self.name}: {found} are there of {noted}; fetching it again")
        return noted.startswith(found)


def content(folder: Path) -> str:
    """How much a folder holds."""
    sizes = [path.stat().st_size for path in folder.glob("*.mp4")]
    return f"{len(sizes)} clips, {sum(sizes)} bytes"


def curl(url: str, file: Any, *options: str) -> str:
    """Write what a server sends into a file, and return why it broke off ("" if it did not); raise if it refuses."""
    # Through a pipe: curl ends when this process is killed, and an error of the disk is told with its reason.
    with Popen([*CURL_WORDS, *options, url], bufsize=0, stdout=PIPE, stderr=PIPE) as process:
        shutil.copyfileobj(process.stdout, file)
        said, _, status = process.stderr.read().decode(errors="replace").rpartition("\n")
    if process.returncode == 33 or status == "416":  # the server cannot continue what has arrived: begin anew
        file.truncate(0)
        return "what had arrived does not fit the next answer"
    if process.returncode == 22 and not re.match("408|425|429|5", status):  # these may pass
        raise Trouble(f"{url}: the server answers {status}; name another place with --base-url, or see --parts")
    return (said.strip() or "curl was stopped") if process.returncode else ""


def remote(url: str) -> tuple[int, str]:
    """Size in bytes of a file on the server, and what tells its versions apart: its ETag, else its date."""
    wrong = curl(url, answer := io.BytesIO(), "--head", "--retry", str(TRIES - 1))
    lines = answer.getvalue().decode(errors="replace").splitlines()  # redirects and proxies come first: the last counts
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if wrong or not (total := int(headers.get("content-length", 0))):
        raise Trouble(f"{url}: {wrong or 'the server does not say how large it is'}; try later or see --base-url")
    return total, headers.get("etag") or headers.get("last-modified", "")


def fetch(part: Part, total: int, version: str) -> None:
    """Fetch an archive of so many bytes; go on where an earlier call or a broken connection left it."""
    growing = part.archive.with_name(f"{part.archive.name}.{zlib.crc32(f'{total} {version}'.encode()):08x}.part")
    for other in {*part.archive.parent.glob(f"{part.archive.name}.*")} - {growing}:  # of another version
        other.unlink()
    failures, most = 0, part.arrived()
    while part.arrived() != total:  # curl's own --retry would drop what a broken connection has brought
        time.sleep(WAIT * (2**failures - 1))
        with growing.open("ab") as file:
            have = file.tell()
            rest = ["--continue-at", str(have)] if have else []
            if have and version.startswith('"'):  # a strong ETag: the whole file comes if it is another one by now
                rest += ["--header", f"If-Range: {version}"]
            with tqdm.wrapattr(file, "write", total, initial=have, desc=growing.name) as out:
                wrong = curl(part.url, out, *rest)
        arrived = part.arrived()
        failures, most = (0, arrived) if most < arrived <= total else (failures + 1, most)
        if failures == TRIES:
            raise Trouble(f"{part.url}: {wrong or 'too little came'}; {arrived} of {total} bytes are kept, try later")
    os.replace(growing, part.archive)


def take_out(part: Part, keep: bool) -> None:
    """Fill the folder of clips; it gets its name when the archive proves to be whole."""
    # To extract safely, tarfile needs its data filter, which Python 3.11.2, that of Debian 12, lacks (3.11.4 has it).
    # So nothing is extracted: bytes are copied under checked names, and no path, link, device, owner or mode of an
    # archive gets to the disk, on any Python.
    part.unfinished.mkdir(parents=True)
    with (
        part.archive.open("rb") as file,
        tqdm.wrapattr(file, "read", part.arrived(), desc=f"{part.name}: clips") as watched,
        gzip.GzipFile(fileobj=watched) as stream,
        tarfile.open(fileobj=stream, mode="r:") as tar,
    ):
        for member in tar:
            path = PurePosixPath(member.name)
            clip = member.isfile() and CLIP.fullmatch(path.name)
            odd = path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir())
            if odd or (clip and path.parent.name.replace(" ", "_") != part.label):
                raise tarfile.ReadError(f"{member.name!r} is a link, a device or not in a folder {part.label!r}")
            if clip:
                with tar.extractfile(member) as inside, (part.unfinished / path.name).open("wb") as out:
                    shutil.copyfileobj(inside, out)
        # Blocks of zeros end a tar archive that was not cut off, and at the end of the stream gzip compares its sum.
        if {block.count(0) == len(block) for block in iter(partial(stream.read, 1 << 20), b"")} != {True}:
            raise tarfile.ReadError("it does not end as a tar archive does")
        print(f"{part.name}: {content(part.unfinished)}, from an archive of {len(tar.getnames())} files and folders")
    if not any(part.unfinished.iterdir()):
        raise tarfile.ReadError(f"it holds no clip of {part.label}")
    (part.unfinished / ".complete").write_text(content(part.unfinished) + ", archive kept" * keep, encoding="utf-8")
    shutil.rmtree(part.clips, ignore_errors=True)
    os.replace(part.unfinished, part.clips)


def check_room(options: argparse.Namespace, totals: dict[Part, int]) -> None:
    """Say how much will be fetched and how much disk it takes; refuse if so much is not free."""
    missing = [(total - part.arrived()) / 1e9 for part, total in totals.items()]  # gigabytes, as all that follows
    clips, archives = SPREAD * sum(totals.values()) / 1e9, sum(missing) if options.keep else max(missing)
    need, free = clips + archives, shutil.disk_usage(options.folder).free / 1e9
    print(
        f"To fetch: {len(totals)} archives, {sum(missing):.3g} GB. Disk: {clips:.3g} GB for clips and {archives:.3g} GB"
        f" for {'archives' if options.keep else 'one archive at a time'}, {need:.3g} GB in all; {free:.3g} GB are free "
        f"in {options.folder}."
    )
    if need > free:
        raise Trouble(f"{options.folder}: {need:.3g} GB are needed; make room, or name a larger disk with --folder")


def fetch_all(options: argparse.Namespace) -> None:
    """Fetch and unpack every part that is not done."""
    waiting = [part for part in (Part(name, options) for name in options.parts) if not part.is_done()]
    if not waiting:
        print(f"All {len(options.parts)} archives are done; nothing to fetch.")
        return
    if not shutil.which("curl"):
        raise Trouble("curl is missing. Debian: sudo apt-get install curl; conda: conda install -c conda-forge curl")
    (options.folder / "archives").mkdir(exist_ok=True)
    answers = {}
    for part in tqdm(waiting, desc="asking for sizes", unit="archive"):
        answers[part] = (part.arrived(), "") if part.archive.exists() else remote(part.url)
    check_room(options, {part: total for part, (total, _) in answers.items()})
    for part, answer in answers.items():
        if not part.archive.exists():
            fetch(part, *answer)
        try:
            take_out(part, options.keep)
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            part.archive.unlink()
            shutil.rmtree(part.unfinished)
            raise Trouble(
                f"{part.archive}: {error}. The archive was removed; call again to fetch it anew. If that ends the same "
                "way, the server's copy is bad: name another with --base-url, or do without it (--parts)"
            ) from error
        if not options.keep:
            part.archive.unlink()


def list_videos(folder: Path) -> None:
    """Write ``manifest.csv``, in an order by names, and ``unreadable.json``; print the counts beside the paper's."""
    from picojepa import data  # here: to fetch takes no PyTorch

    def trouble(name: str) -> str | None:
        try:
            data.open_video(folder / name)
        except data.VideoError as error:
            return str(error)
        return None

    rows = [
        (path.relative_to(folder).as_posix(), label, SPLITS[split])
        for split in SPLITS
        for label in PAPER.index
        for path in sorted((folder / split / label).glob("*.mp4"))
    ]
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    table["labelled"] = (table.split == "pretrain") & table.label.isin(PAPER.labelled.dropna().index)
    reasons = thread_map(trouble, table.path, desc="opening", unit="video")
    bad = {path: reason for path, reason in zip(table.path, reasons, strict=True) if reason}
    (folder / "unreadable.json").write_text(json.dumps(bad, indent=1) + "\n", encoding="utf-8")
    temporary, manifest = folder / "manifest.csv.tmp", folder / "manifest.csv"
    table[~table.path.isin(bad)].to_csv(temporary, index=False)
    videos = data.read_manifest(temporary)
    os.replace(temporary, manifest)
    print_counts(videos)
    sizes = data.quarters(videos).value_counts()
    print(f"Quarters of the labelled videos: {' / '.join(str(sizes.get(number, 0)) for number in (1, 2, 3, 4))}")
    print(f"{len(bad)} of {len(table)} videos do not open (unreadable.json says why). The list: {manifest}")
    print(f"The whole book on it: PICOJEPA_DATA={manifest} PICOJEPA_PROFILE=paper make book")


def print_counts(videos: pd.DataFrame) -> None:
    """Videos per class and list, beside the paper's."""
    lists = {"pretraining": "split == 'pretrain'", "labelled": "labelled", "validation": "split == 'validation'"}
    here = pd.DataFrame({name: videos.query(rows).label.value_counts() for name, rows in lists.items()})
    here = here.reindex(PAPER.index).fillna(0).astype("Int64").where(PAPER.notna())
    table = pd.concat({"here": here, "paper": PAPER, "difference": here - PAPER}, axis=1).swaplevel(axis=1)[[*lists]]
    table.loc["all"] = table.sum()
    print(f"\n{table.astype('string').fillna('').to_string(index_names=False)}")
    print("Differences are to be expected: Kinetics loses videos whose owners take them back, so copies of different")
    print("years differ; and the paper's labelled list lacks one video of adjusting_glasses.")


def main(words: list[str] | None = None) -> int:
    """Fetch and list; 1 if something stands in the way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=DATA / "kinetics", help="where archives, clips and lists go")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--keep", action="store_true", help="keep the archives")
    parser.add_argument("--base-url", default=BASE_URL, help="where train/ and val/ are; default: %(default)s")
    options = parser.parse_args(words)
    options.folder = options.folder.expanduser().resolve()
    try:
        with alone(options.folder):
            fetch_all(options)
            list_videos(options.folder)
        return 0
    except (Trouble, ValueError) as error:  # the latter: no list can be made of what is there
        wrong = str(error)
    except (FileExistsError, NotADirectoryError) as error:
        wrong = f"{error.filename}: a file is in the place of a folder; move it away or name another with --folder"
    except OSError as error:
        wrong = f"{error.filename or options.folder}: {error.strerror or error}; mend that or name another --folder"
    except KeyboardInterrupt:
        wrong = "interrupted; the next call goes on where this one stopped"
    print(f"kinetics: {wrong}", file=sys.stderr)
    return 1


def alone(folder: Path) -> AcquireReturnProxy:
    """Make a folder and wait until no other run works in it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(f"Another run is at work in {folder}; waiting for its end.", flush=True)
        return lock.acquire()


if __name__ == "__main__":
    sys.exit(main())
