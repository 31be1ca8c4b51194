"""`make kinetics` against a server of this machine that breaks off, lies, and hands out what no archive should hold."""

import gzip
import hashlib
import io
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest
from conftest import ROOT, fill, remount

from picojepa import data
from tools import kinetics

VIDEOS = [path.read_bytes() for path in sorted((ROOT / "data" / "clips").glob("*.mp4"))]
ONE = "train_001"


def clip(number: int) -> str:
    """A file name as Kinetics has them."""
    return f"-_{number:09}_000010_000020.mp4"


def pack(*members: tuple[str | tarfile.TarInfo, bytes]) -> bytes:
    """A tar.gz of names, or whole headers, and contents."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for member, content in members:
            member = header(member) if isinstance(member, str) else member
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def header(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """The header of a member of any kind."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def of_class(label: str, count: int = 3) -> list[tuple[str, bytes]]:
    """Members as Kinetics packs them: the folder has spaces, the order is any."""
    folder = label.replace("_", " ")
    return [(f"./{folder}/{clip(n)}", VIDEOS[n % len(VIDEOS)]) for n in reversed(range(count))]


WHOLE = of_class("abseiling")
ABSEILING = pack(*WHOLE)
NOISE = random.Random(0).randbytes(1_000_000)
NOISY = pack(("noise", NOISE), *WHOLE, ("zeros", bytes(50_000_000)))  # takes a while to be fetched and to be read


class Handler(BaseHTTPRequestHandler):
    """Answers HEAD and GET with redirects, ranges and ETags, unless a fault is due."""

    def do_HEAD(self) -> None:
        name = re.search(r"k700_(\w+)\.tar\.gz$", self.path)[1]
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
            return
        asked, wanted = self.headers["Range"], self.headers["If-Range"]
        self.server.log.append((self.command, name, asked))
        faults = self.server.faults[f"{self.command} {name}"]
        self.reply(self.server.files[name], asked, wanted, faults.pop(0) if faults else "")

    do_GET = do_HEAD

    def log_message(self, *_) -> None:
        pass

    def reply(self, content: bytes, asked: str | None, wanted: str | None, fault) -> None:
        if str(fault).isdecimal():
            self.send_error(int(fault))
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        ranged = asked and fault not in ("whole", "whole, drop") and wanted in (None, tag)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if ranged else 0
        self.send_response(206 if ranged else 200)
        if fault != "no tag":
            self.send_header("ETag", tag)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        body, half = content[start:], (len(content) - start) // 2
        if fault != "no length":
            lie = {"too long": 1000, "too short": -1000}.get(fault, 0)
            self.send_header("Content-Length", str(len(body) + lie))
        self.end_headers()
        if fault in ("drop", "whole, drop", "no length"):
            body = body[:half]
        if fault == "flip":
            body = body[:half] + bytes([body[half] ^ 255]) + body[half + 1 :]
        for at in range(0, len(body) if self.command == "GET" else 0, 16384):
            self.wfile.write(body[at : at + 16384])
            time.sleep(self.server.pace)
            if callable(fault) and at <= half < at + 16384:
                fault()


class Server(ThreadingHTTPServer):
    """Files by part; faults by "METHOD part", one for each request; a log; seconds between two blocks."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.log, self.pace = {ONE: ABSEILING}, defaultdict(list), [], 0.0

    def handle_error(self, *_) -> None:
        """A client that was killed is no error here."""

    def got(self, method: str = "GET") -> list[tuple[str, str | None]]:
        """Part and range of each request so far."""
        return [(name, asked) for verb, name, asked in self.log if verb == method]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(kinetics, "WAIT", 0.0)
    with Server() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "kinetics"


def words(server: Server, folder: Path, *more: str, moved: str = "") -> list[str]:
    url = f"http://127.0.0.1:{server.server_port}{moved}/700_2020/"
    return ["--folder", str(folder), "--base-url", url, *([] if "--parts" in more else ["--parts", ONE]), *more]


def start(server: Server, folder: Path, *more: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "tools.kinetics", *words(server, folder, *more)]
    options = {"stderr": subprocess.DEVNULL, "env": os.environ | {"PYTHONUNBUFFERED": "1"}} | options
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


def clips_of(folder: Path, name: str = ONE) -> Path:
    return folder.joinpath(*kinetics.PARTS[name])


def here(folder: Path, name: str = ONE) -> int:
    """Bytes of a growing archive."""
    return sum(path.stat().st_size for path in (folder / "archives").glob(f"k700_{name}.tar.gz.*.part"))


def complete(folder: Path, name: str = ONE, count: int = 3) -> None:
    """A part's clips are there, each byte right, and nothing else of it."""
    found = {path.name: path.read_bytes() for path in clips_of(folder, name).glob("*.mp4")}
    assert found == {clip(n): VIDEOS[n % len(VIDEOS)] for n in range(count)}
    assert not list((folder / "archives").glob(f"*{name}*"))
    assert not list(folder.glob("*/.*.partial"))
    listed = data.read_manifest(folder / "manifest.csv")
    assert {str(clips_of(folder, name) / clip(n)) for n in range(count)} <= set(listed.path)


@pytest.fixture
def told(server, folder, capsys):
    """Function that makes a call, which ends with one line that says what is wrong."""

    def told(message: str, *more: str, folder: Path = folder) -> None:
        capsys.readouterr()
        assert kinetics.main(words(server, folder, *more)) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert re.match(f"kinetics: .*{message}", said), said
        assert not (folder / "manifest.csv").exists()

    return told


@pytest.fixture
def finish(server, folder):
    """Function that makes a call, which completes."""

    def finish(*more: str, folder: Path = folder) -> None:
        assert kinetics.main(words(server, folder, *more)) == 0
        complete(folder)

    return finish


# ---------------------------------------------------------------- all is well


def test_everything_is_fetched_and_listed_once(server, folder, capsys, monkeypatch):
    counts = {name: int(name[-3:]) + 2 for name in kinetics.PARTS}
    for name, (_, label) in kinetics.PARTS.items():
        server.files[name] = pack(*of_class(label, counts[name]))
    bad = {f"adjusting glasses/{clip(100)}": b"", f"adjusting glasses/{clip(101)}": b"x" * 99}
    server.files["train_003"] = pack(*of_class("adjusting_glasses", 5), *bad.items())
    call = words(server, folder, "--parts", *kinetics.PARTS, moved="/moved")
    assert kinetics.main(call) == 0
    shown = capsys.readouterr().out
    for name in counts.keys() - {"train_003"}:
        complete(folder, name, counts[name])
    assert server.got() == [(name, None) for name in kinetics.PARTS]
    assert len(server.got("HEAD")) == 14

    videos = data.read_manifest(folder / "manifest.csv")
    places = [Path(path).relative_to(folder).as_posix() for path in videos.path]
    assert places == [f"{'/'.join(kinetics.PARTS[name])}/{clip(n)}" for name in counts for n in range(counts[name])]
    four = {label for split, label in kinetics.PARTS.values() if split == "val"}
    assert videos.labelled.tolist() == [p.startswith("train") and p.split("/")[1] in four for p in places]
    reasons = json.loads((folder / "unreadable.json").read_text())
    assert list(reasons) == [f"train/{name.replace(' ', '_')}" for name in bad]
    assert [*map(bool, map(re.search, ("the file is empty", "not readable as video"), reasons.values()))] == [True] * 2

    for line in (
        r"To fetch: 14 archives, \S+ GB. Disk: .* in all; \S+ GB are free in .*",
        "abseiling +3 +957 +-954 +3 +957 +-954 +3 +48 +-45",
        "adjusting_glasses +5 +590 +-585 +5 +589 +-584 +5 +48 +-43",
        "archery +12 +970 +-958 *",
        "all +75 +7203 +-7128 +26 +2817 +-2791 +26 +194 +-168",
        "Quarters of the labelled videos: 8 / 7 / 7 / 4",
        "2 of 103 videos do not open .*",
        f".*: PICOJEPA_DATA={folder / 'manifest.csv'} PICOJEPA_PROFILE=paper make book",
    ):
        assert re.search(f"^{line}$", shown, re.MULTILINE), line

    before, manifest = len(server.log), (folder / "manifest.csv").read_bytes()
    monkeypatch.setenv("PATH", "")  # there is no curl, and it is not missed
    assert kinetics.main(call) == 0
    assert "All 14 archives are done" in capsys.readouterr().out
    assert (len(server.log), (folder / "manifest.csv").read_bytes()) == (before, manifest)


def test_only_clips_of_the_class_are_taken_out(server, finish, capsys):
    other = [("README.txt", b"text"), (f"abseiling/._{clip(1)}", b"Mac"), ("abseiling/notes.mp4", VIDEOS[0])]
    server.files[ONE] = pack((header("abseiling", tarfile.DIRTYPE), b""), *other, *WHOLE, ("junk", b""))
    finish()
    assert re.search("3 clips, .* from an archive of 8 files and folders", capsys.readouterr().out)


def test_archives_are_kept_on_request(server, folder, finish):
    archive = folder / "archives" / f"k700_{ONE}.tar.gz"
    for more in (["--keep"], []):
        assert kinetics.main(words(server, folder, *more)) == 0
        assert archive.read_bytes() == ABSEILING
    shutil.rmtree(folder / "train")
    server.log.clear()
    finish()
    assert not server.log, "an archive that is there is not fetched"
    archive.write_bytes(ABSEILING)
    finish()  # removes one that a killed call has left


def test_clips_that_are_lost_are_fetched_again_and_never_mixed_with_others(server, folder, capsys, provoked):
    server.files |= {"train_002": pack(*of_class("acting_in_play")), ONE: pack(*of_class("abseiling", 5))}
    call = words(server, folder, "--parts", ONE, "train_002")
    assert kinetics.main(call) == 0
    (clips_of(folder) / clip(1)).unlink()
    server.files[ONE] = ABSEILING
    assert kinetics.main(call) == 0
    assert re.search(rf"{ONE}: 4 clips, \d+ bytes are there of 5 clips", capsys.readouterr().out)
    assert [name for name, _ in server.got()] == [ONE, "train_002", ONE]
    complete(folder)
    complete(folder, "train_002")
    provoked("a clip is deleted", "extracting archives")
    provoked("another content than the first time", "fetching")


@pytest.mark.parametrize("record", [b"", b"\xff 3 clips"])
def test_a_damaged_record_means_to_fetch_again(server, folder, finish, record, provoked):
    finish()
    (clips_of(folder) / ".complete").write_bytes(record)
    finish()
    assert len(server.got()) == 2
    provoked("a record of its own that is damaged", "fetching")


# ---------------------------------------------------------------- a server that misbehaves


@pytest.mark.parametrize(
    ("faults", "parts_of_it"),
    [
        (["drop"], [None, 1 / 2]),
        (["500", "503", "429"], [None, None, None, None]),
        (["drop", "500", "drop"], [None, 1 / 2, 1 / 2, 3 / 4]),
        (["drop", "whole"], [None, 1 / 2, None]),  # no ranges
        (["drop", "416"], [None, 1 / 2, None]),
        (["no tag"], [None]),
        (["no length", "no length"], [None, 1 / 2, 3 / 4]),
        (["too long"], [None]),
        (["too short"], [None, 1 - 1000 / len(ABSEILING)]),
    ],
    ids=str,
)
def test_one_call_overcomes_what_passes(server, finish, faults, parts_of_it, provoked):
    server.faults |= {f"GET {ONE}": [*faults], f"HEAD {ONE}": ["503"] * (faults == ["drop"])}
    finish()
    asked = [int(found[6:-1]) / len(ABSEILING) if found else None for _, found in server.got()]
    assert asked == [pytest.approx(share, abs=0.001) if share else None for share in parts_of_it]
    provoked("a server that breaks off, refuses or lies", "fetching", len(faults))


def test_a_server_that_falls_silent_is_asked_again(server, finish, monkeypatch, provoked):
    monkeypatch.setattr(kinetics, "CURL_WORDS", [*kinetics.CURL_WORDS, "--speed-time", "1", "--speed-limit", "1000000"])
    over = Event()
    server.faults[f"GET {ONE}"] = [lambda: over.wait(60)]
    finish()
    over.set()
    assert server.got()[1][1], "goes on where it stopped"
    provoked("a server that breaks off, refuses or lies", "fetching")


@pytest.mark.parametrize("code", ["403", "404"])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_refusal_is_told_at_once(server, told, finish, method, code, provoked):
    server.faults[f"{method} {ONE}"] = [code]
    told(rf"train/k700_{ONE}\.tar\.gz: the server answers {code}; .*--base-url")
    assert len(server.got(method)) == 1
    finish()
    provoked("a server that says 401, 403 or 404", "fetching")


@pytest.mark.parametrize("faults", [["500"], ["whole, drop"], ["416"]], ids=str)
def test_tries_are_bounded_and_the_next_call_goes_on(server, folder, told, finish, faults, provoked):
    server.faults[f"GET {ONE}"] = ["drop", *faults * 50]
    told(rf"train/k700_{ONE}.tar.gz: .*; \d+ of {len(ABSEILING)} bytes are kept")
    assert len(server.got()) == 1 + kinetics.TRIES
    server.faults.clear()
    there = here(folder)
    finish()
    assert server.got()[-1] == (ONE, f"bytes={there}-" if there else None)
    provoked("a server that fails again and again", "fetching", kinetics.TRIES)


def test_waits_get_longer_and_tries_count_anew_when_bytes_arrive(server, finish, monkeypatch, provoked):
    waits, faults = [], ["drop", "500", "500", "500", "drop", "500", "500", "500", "500", "500"]
    monkeypatch.setattr(kinetics, "WAIT", 1.0)
    monkeypatch.setattr(kinetics.time, "sleep", lambda seconds: waits.append(seconds) if seconds else None)
    server.faults[f"GET {ONE}"] = [*faults]
    finish()
    assert waits == [1, 3, 7, 1, 3, 7, 15, 31]
    provoked("a server that breaks off, refuses or lies", "fetching", len(faults))


@pytest.mark.parametrize("lie", ["too long", "too short"])
def test_a_server_that_lies_about_the_length_throughout(server, told, finish, lie, provoked):
    server.faults |= {f"{method} {ONE}": [lie] * 99 for method in ("HEAD", "GET")}
    told(rf"k700_{ONE}.tar.gz: ")
    server.faults.clear()
    finish()
    provoked("a server that lies about the length throughout", "fetching")


def test_a_file_that_changes_on_the_server_is_fetched_anew(server, folder, told, finish, provoked):
    """Same size, other content: only the ETag tells; within a call, and between two."""

    def change_and_break_off() -> None:
        server.files[ONE] = ABSEILING
        raise ConnectionError

    server.files[ONE] = bytes(20) + ABSEILING[20:]
    server.faults[f"GET {ONE}"] = [change_and_break_off]
    finish()
    shutil.rmtree(folder)
    server.files[ONE] = bytes(20) + ABSEILING[20:]
    server.faults[f"GET {ONE}"] = ["drop", *["500"] * kinetics.TRIES]
    told("500")
    server.files[ONE] = ABSEILING
    finish()
    provoked("the file changes on the server", "fetching", 2)


# ---------------------------------------------------------------- bad archives

UNPACKED = gzip.decompress(ABSEILING)
SECOND = UNPACKED.index(clip(1).encode()) - len("./abseiling/")  # where the header of the second member begins
ODD = "is a link, a device or not in a folder 'abseiling'"


@pytest.fixture
def refused(server, folder, told, finish):
    """Function that makes a call, which refuses and removes an archive and leaves nothing; the next call completes."""

    def refused(content: bytes, message: str) -> None:
        server.files[ONE] = content
        told(rf"k700_{ONE}.tar.gz: .*({message}).*removed; call again to fetch")
        left = {path.relative_to(folder.parent).as_posix() for path in folder.parent.rglob("*")}
        assert left <= {"kinetics", "kinetics/.lock", "kinetics/archives", "kinetics/train"}
        server.files[ONE] = ABSEILING
        finish()

    return refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ABSEILING[:-2000], "ended before the end-of-stream marker"),
        (ABSEILING[:-8] + bytes(8), "CRC check failed"),
        (ABSEILING[:5000] + bytes([ABSEILING[5000] ^ 255]) + ABSEILING[5001:], "CRC check failed|Error -3"),
        (UNPACKED, "Not a gzipped file"),
        (b"<html>come back later</html>", "Not a gzipped file"),
        (gzip.compress(UNPACKED[:SECOND]), "does not end as a tar archive does"),
        (gzip.compress(UNPACKED[: SECOND + 100]), "does not end as a tar archive does"),
        (gzip.compress(UNPACKED[: SECOND + 2000]), "unexpected end of data"),
        (gzip.compress(UNPACKED[:SECOND] + b"x" * 512 + UNPACKED[SECOND + 512 :]), "does not end as"),
        (gzip.compress(b""), "empty file"),
        (gzip.compress(b"nonsense" * 999), "invalid header|bad checksum|truncated"),
        (pack(("README", b"")), "holds no clip of abseiling"),
        (pack(*of_class("archery")), ODD),
        (pack(*WHOLE, (clip(5), VIDEOS[0])), ODD),
    ],
    ids=range(14),
)
def test_a_damaged_archive_is_not_used(refused, content, message, provoked):
    refused(content, message)
    provoked("a damaged archive", "extracting archives")


@pytest.mark.parametrize(
    "member",
    [
        header(f"/abseiling/{clip(7)}"),
        header(f"../../abseiling/{clip(7)}"),
        header(f"abseiling/../../abseiling/{clip(7)}"),
        header(f"abseiling/{clip(7)}", tarfile.SYMTYPE, "/etc/passwd"),
        header(f"abseiling/{clip(7)}", tarfile.LNKTYPE, f"abseiling/{clip(0)}"),
        header(f"abseiling/{clip(7)}", tarfile.CHRTYPE),
        header(f"abseiling/{clip(7)}", tarfile.BLKTYPE),
        header("pipe", tarfile.FIFOTYPE),
    ],
    ids=range(8),
)
@pytest.mark.parametrize("first", [True, False])
def test_a_hostile_archive_is_not_used(refused, member, first, provoked):
    hostile = [(member, b"")]
    refused(pack(*hostile * first, *WHOLE, *hostile), ODD)
    provoked("an archive made to do harm", "extracting archives")


def test_a_flipped_bit_on_the_way_is_noticed(server, refused, provoked):
    server.faults[f"GET {ONE}"] = ["flip"]
    refused(ABSEILING, "CRC check failed|Error -3")
    provoked("a bit flips on the way", "fetching")


# ---------------------------------------------------------------- kill -9, two runs


def stage(folder: Path, name: str) -> int:
    """How far a part has come: fetching, fetched, being taken out, taken out."""
    clips = clips_of(folder, name)
    happened = (
        here(folder, name) > 200_000,
        (folder / "archives" / f"k700_{name}.tar.gz").exists(),
        len(list(clips.with_name(f".{clips.name}.partial").glob("*"))) == 3,
        clips.exists(),
    )
    return max((number for number, yes in enumerate(happened, 1) if yes), default=0)


def test_killed_at_every_stage(server, folder, provoked):
    names, kills = [ONE, "val_001"], 0
    server.files |= dict.fromkeys(names, NOISY)
    server.pace = 0.002
    for name, wanted in [(ONE, 1), (ONE, 2), (ONE, 3), (ONE, 4), ("val_001", 1), ("val_001", 3)]:
        done, have = {name for name in names if stage(folder, name) == 4}, here(folder, name)
        server.log.clear()
        run = start(server, folder, "--parts", *names)
        while stage(folder, name) < wanted and run.poll() is None:
            time.sleep(0.002)
        fetching = psutil.Process(run.pid).children() if run.poll() is None else []
        run.kill()
        run.communicate()
        kills += run.returncode == -9
        psutil.wait_procs(fetching, 10)
        assert not any(child.is_running() for child in fetching), "curl does not work on by itself"
        assert not done & {name for name, _ in server.got()}, "what is done is not fetched again"
        assert not have or server.got()[0] == (name, f"bytes={have}-"), "what has arrived is not fetched again"
    assert kills > 3
    assert kinetics.main(words(server, folder, "--parts", *names)) == 0
    for name in names:
        complete(folder, name)
    provoked("kill -9", "fetching", kills)
    provoked("kill -9", "extracting archives", 2)


def test_two_runs_on_one_folder(server, folder, provoked):
    both = Event()
    server.faults[f"GET {ONE}"] = [lambda: both.wait(120)]
    first = Thread(target=kinetics.main, args=[words(server, folder)])
    first.start()
    with start(server, folder) as second:
        waiting = second.stdout.readline()
        both.set()
        first.join()
        assert waiting == f"Another run is at work in {folder}; waiting for its end.\n"
        assert second.stdout.readline() == "All 1 archives are done; nothing to fetch.\n"
        second.kill()
    assert server.got() == [(ONE, None)]
    complete(folder)
    provoked("two runs at once", "fetching")


# ---------------------------------------------------------------- disks, and what else may be wrong


def test_the_need_for_disk_is_told_before_anything_is_fetched(server, told, finish, monkeypatch, provoked):
    need = 2.02 * len(ABSEILING)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, int(need) - 10))
    told(f"{need / 1e9:.3g} GB are needed; make room, or name")
    assert not server.got()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, int(need) + 10))
    finish()
    provoked("too little room from the start", "fetching")


@pytest.mark.parametrize(("more", "archives"), [([], 0.002), (["--keep"], 0.0035)])
def test_the_need_counts_what_is_there(folder, told, capsys, monkeypatch, more, archives):
    two = {"train_001": 3_000_000, "train_002": 2_000_000}
    monkeypatch.setattr(kinetics, "remote", lambda url: (two[url[-16:-7]], ""))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    (folder / "archives").mkdir(parents=True)
    (folder / "archives" / f"k700_{ONE}.tar.gz.0.part").write_bytes(bytes(1_500_000))
    told(f"{archives + 0.0051:.3g} GB are needed", "--parts", *two, *more)


def test_the_disk_fills_up_while_an_archive_is_fetched(server, small_disk, told, finish, provoked):
    folder, other = small_disk / "kinetics", small_disk / "other"
    server.files[ONE], server.pace = pack(*WHOLE, ("noise", NOISE)), 0.001
    server.faults[f"GET {ONE}"] = [lambda: fill(other)]
    told(f"{folder}: No space left on device; mend that or name another --folder", folder=folder)
    other.unlink()
    finish(folder=folder)
    assert re.fullmatch(r"bytes=\d{6}-", server.got()[-1][1])
    provoked("the disk is full", "fetching")


def test_the_disk_fills_up_while_clips_are_taken_out(server, small_disk, told, finish, monkeypatch, provoked):
    folder, other = small_disk / "kinetics", small_disk / "other"
    server.files[ONE] = pack(*WHOLE, ("noise", NOISE))
    take_out = kinetics.take_out
    with monkeypatch.context() as patch:
        patch.setattr(kinetics, "take_out", lambda *what: (fill(other), take_out(*what)))
        told(f"{folder}: No space left on device", folder=folder)
    assert not (folder / "train" / "abseiling").exists()
    other.unlink()
    server.log.clear()
    finish(folder=folder)
    assert not server.log, "the archive is kept"
    provoked("the disk is full", "extracting archives")


def test_a_limit_on_the_size_of_files(server, folder, finish, provoked):
    server.files[ONE] = NOISY
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))  # noqa: E731
    run = start(server, folder, preexec_fn=limit, stderr=subprocess.PIPE)
    assert f"kinetics: {folder}: File too large; mend that or name another --folder" in run.communicate()[1]
    assert kinetics.main(words(server, folder)) == 0
    assert server.got()[-1] == (ONE, "bytes=500000-")
    complete(folder)
    provoked("a limit on the size of files", "fetching")


def test_a_disk_that_is_read_only(small_disk, told, finish, provoked):
    folder = small_disk / "kinetics"
    remount(small_disk, "ro")
    told(f"{folder}: Read-only file system; mend that or name another --folder", folder=folder)
    remount(small_disk, "rw")
    finish(folder=folder)
    provoked("the disk is read-only", "fetching")


@pytest.mark.parametrize("place", [".", "archives", "train"])
def test_a_file_in_the_place_of_a_folder(folder, told, finish, place, provoked):
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text("a file")
    told(f"{folder / place}.*: a file is in the place of a folder; move it away or name another with --folder")
    (folder / place).unlink()
    finish()
    provoked("a file in the place of a folder", "fetching")


def test_validation_without_training_makes_no_list(server, told):
    server.files["val_001"] = ABSEILING
    told("class without training videos: abseiling", "--parts", "val_001")


def test_without_curl(told, monkeypatch):
    monkeypatch.setenv("PATH", "")
    told("curl is missing. Debian: sudo apt-get install curl")


def test_interrupted_by_hand(told, finish, monkeypatch, provoked):
    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kinetics, "fetch", interrupt)
        told("interrupted; the next call goes on")
    finish()
    provoked("Ctrl-C", "fetching")


def test_an_unknown_part_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit, match="2"):
        kinetics.main(["--parts", "val_002"])
    assert re.search("val_001'?, '?val_003", capsys.readouterr().err)


def test_the_parts_are_those_of_the_paper():
    assert [*kinetics.PARTS] == [f"train_{n:03}" for n in range(1, 11)] + [f"val_{n:03}" for n in (1, 3, 5, 9)]
    assert kinetics.PARTS["val_009"] == ("val", "archaeological_excavation")
    assert "data/kinetics/" in (ROOT / ".gitignore").read_text().splitlines()
