"""One archive of Kinetics-700-2020: fetch it, take its clips out. No half file ever passes for a whole one.

An archive grows as ``NAME.part`` and gets its name when every byte is there. Clips grow in ``.CLASS.partial``,
which gets its name when the archive was read to its end and every checksum was right.
"""

import gzip
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from tarfile import TarError, TarFile, TarInfo
from typing import Any

import httpx
from tqdm.auto import tqdm

from standin import CLASSES

TRIES = 6  # in a row that bring no further megabyte
WAIT = 1.0  # seconds before the second try; twice as long before each further one
PROGRESS = 1_000_000  # bytes
RETRIED = {408, 425, 429, 500, 502, 503, 504}  # answers that a moment later may be better ones
CLIP = re.compile(r"[A-Za-z0-9_-]{11}_\d+_\d+\.mp4")  # identifier, first and last second


class Trouble(Exception):
    """What stops the work: the file or address, what happened, what to do."""


class Interrupted(Exception):
    """An answer that broke off or does not fit; another try may be better."""


class Damaged(Exception):
    """An archive that is not what it should be."""


@dataclass(frozen=True)
class Part:
    """One archive; it holds one class of one split. Classes are numbered alphabetically from 1."""

    split: str  # train or val
    number: int

    @property
    def name(self) -> str:
        """What lists, records and ``--parts`` call it."""
        return f"{self.split}_{self.number:03}"

    @property
    def label(self) -> str:
        """The class inside."""
        return CLASSES[self.number - 1]

    def url(self, base: str) -> str:
        """Where it is."""
        return f"{base.rstrip('/')}/{self.split}/k700_{self.name}.tar.gz"

    def archive(self, folder: Path) -> Path:
        """Where it is kept until its clips have been taken out."""
        return folder / "archives" / f"k700_{self.name}.tar.gz"

    def clips(self, folder: Path) -> Path:
        """Where its clips are in the end."""
        return folder / self.split / self.label


def size(path: Path) -> int:
    """Bytes in a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def growing(path: Path) -> Path:
    """What an archive is called while it is fetched."""
    return path.with_name(f"{path.name}.part")


def unfinished(target: Path) -> Path:
    """What a folder of clips is called while it is filled."""
    return target.with_name(f".{target.name}.partial")


# ---------------------------------------------------------------- fetch


def client() -> httpx.Client:
    """A client that takes bytes as they are."""
    return httpx.Client(follow_redirects=True, timeout=60, headers={"Accept-Encoding": "identity"})


def patiently(attempt: Callable[[], Any], arrived: Callable[[], int] = lambda: 0) -> Any:
    """Repeat an attempt until it succeeds, and return what it returns.

    Args:
        attempt: raises `Interrupted` or an error of the network where another try may help.
        arrived: bytes that are there; tries count anew when there are more than ever before.

    Raises:
        Trouble: ``TRIES`` in a row brought nothing.
    """
    failures, most = 0, arrived()
    while True:
        try:
            return attempt()
        except (Interrupted, httpx.RequestError) as error:
            failures = 1 if arrived() >= most + PROGRESS else failures + 1
            most = max(most, arrived())
            if failures == TRIES:
                raise Trouble(
                    f"{what(error)}; {TRIES} tries brought nothing more. Try again later: what has arrived is kept"
                ) from error
            time.sleep(WAIT * 2 ** (failures - 1))


def what(error: Exception) -> str:
    """An error of the network with its address."""
    if isinstance(error, httpx.RequestError):
        return f"{error.request.url}: {str(error) or type(error).__name__}"
    return str(error)


def check_answer(answer: httpx.Response) -> None:
    """Raise unless an answer brings what was asked for."""
    said = f"{answer.url}: the server answers {answer.status_code} {answer.reason_phrase}"
    if answer.status_code in RETRIED:
        raise Interrupted(said)
    if answer.status_code not in (200, 206):
        raise Trouble(
            f"{said}; it does not give this archive out (any more). Look whether it has moved "
            "(github.com/cvdfoundation/kinetics-dataset) and name its place with --base-url, or do without it (--parts)"
        )


def version(answer: httpx.Response) -> str:
    """What tells versions of a file apart: its ETag, else its date."""
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""


def remote(web: httpx.Client, url: str) -> tuple[int, str]:
    """Size in bytes and version of a file on the server."""
    answer = web.head(url)
    check_answer(answer)
    length = answer.headers.get("Content-Length", "")
    if not length.isdecimal() or int(length) == 0:
        raise Trouble(f"{url}: the server does not say how large the archive is; name another with --base-url")
    return int(length), version(answer)


def fetch(web: httpx.Client, url: str, archive: Path) -> None:
    """Fetch an archive; go on where an earlier call stopped, unless the file on the server is another one."""
    with tqdm(desc=archive.name, unit="B", unit_scale=True) as bar:
        patiently(partial(go_on, web, url, growing(archive), stamp(archive), bar), lambda: size(growing(archive)))
    os.replace(growing(archive), archive)


def stamp(archive: Path) -> Path:
    """The file that says of which version a growing archive is."""
    return archive.with_name(f"{archive.name}.version")


def done_with(archive: Path, keep: bool) -> None:
    """Remove what is not needed when the clips of an archive are there."""
    stamp(archive).unlink(missing_ok=True)
    if not keep:
        archive.unlink(missing_ok=True)


def go_on(web: httpx.Client, url: str, path: Path, stamp: Path, bar: tqdm) -> None:
    """Fetch what is missing of a growing archive.

    Args:
        web: client.
        url: where the whole file is.
        path: where it grows.
        stamp: size and version of what grows there.
        bar: shows bytes.

    Raises:
        Interrupted: the connection broke, or the answer does not fit what is there.
        Trouble: no further try would help.
    """
    total, tag = remote(web, url)
    there = f"{total} {tag}"
    if not stamp.exists() or stamp.read_text() != there or size(path) > total:
        path.unlink(missing_ok=True)
        stamp.write_text(there)
    have = size(path)
    bar.total, bar.initial = total, have
    if have == total:
        return
    wanted = {"Range": f"bytes={have}-"} if have else {}
    if have and tag.startswith('"'):  # a strong ETag: if it is not this version any more, the whole file comes
        wanted["If-Range"] = tag
    with web.stream("GET", url, headers=wanted) as answer:
        if answer.status_code != 416:  # nothing after these bytes: what is there is not what the server has
            check_answer(answer)
        have = have if answer.status_code == 206 else 0
        fits = answer.headers.get("Content-Range") == f"bytes {have}-{total - 1}/{total}" if have else True
        length = int(answer.headers.get("Content-Length", total - have))
        if answer.status_code == 416 or not fits or length != total - have or version(answer) not in ("", tag):
            message = f"{url}: {size(path)} of {total} bytes had arrived, but the next answer does not fit them"
            path.unlink(missing_ok=True)
            raise Interrupted(message)
        bar.n = have
        with path.open("ab" if have else "wb") as file:
            for chunk in answer.iter_raw():
                file.write(chunk)
                bar.update(len(chunk))
    if size(path) != total:
        raise Interrupted(f"{url}: {size(path)} of {total} bytes arrived")


# ---------------------------------------------------------------- take out


def clip_name(member: TarInfo, label: str) -> str | None:
    """The file name under which a member is kept; None if it is no clip.

    Raises:
        Damaged: a member that no archive of clips has: a link, a device, a path out of the folder, another class.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise Damaged(f"the member {member.name!r} points out of the folder")
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise Damaged(f"the member {member.name!r} is neither file nor folder")
    if member.isdir() or not CLIP.fullmatch(path.name):
        return None
    if (found := path.parent.name.replace(" ", "_")) != label:
        raise Damaged(f"the clip {member.name!r} is in a folder {found!r}; expected was {label!r}")
    return path.name


def check_end(stream: gzip.GzipFile) -> None:
    """Read to the end, so that the checksum is compared; zeros end a tar archive, without them it was cut off."""
    ended = False
    while block := stream.read(1 << 20):
        ended = not block.strip(b"\0")
        if not ended:
            break
    if not ended:
        raise Damaged("it does not end as a tar archive does")


def take_out(archive: Path, label: str, target: Path) -> int:
    """Fill a folder with the clips of an archive; the folder appears when it is complete.

    Returns:
        How many other files the archive holds.

    Raises:
        Trouble: the archive is damaged or is not what it should be; it is removed.
    """
    folder = unfinished(target)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    others = 0
    bar = tqdm(desc=f"{archive.name}: clips", total=size(archive), unit="B", unit_scale=True)
    try:
        with bar, archive.open("rb") as raw, gzip.GzipFile(fileobj=raw) as stream, TarFile(fileobj=stream) as tar:
            while member := tar.next():
                tar.members = []  # type: ignore[attr-defined]  # or the headers of all members would be kept
                if name := clip_name(member, label):  # its bytes only: no path, owner, mode or link of the archive
                    with tar.extractfile(member) as clip, (folder / name).open("wb") as file:  # type: ignore[union-attr]
                        shutil.copyfileobj(clip, file)
                others += member.isfile() and not name
                bar.update(raw.tell() - bar.n)
            check_end(stream)
        if not any(folder.iterdir()):
            raise Damaged(f"it holds no clip of {label}")
    except (Damaged, TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        shutil.rmtree(folder)
        done_with(archive, keep=False)
        raise Trouble(
            f"{archive}: {error}. The archive was removed; call again to fetch it anew. If that ends the same way, "
            "the server's copy is bad: name another with --base-url, or do without it (--parts)"
        ) from error
    shutil.rmtree(target, ignore_errors=True)
    os.replace(folder, target)
    return others
