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
import struct
import subprocess
import sys
import tarfile
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from threading import Event, Thread

import pytest
from conftest import ROOT, fill

from picojepa import data
from standin import CLASSES, LABELLED_CLASSES
from tools import kinetics, kinetics_fetch

VIDEOS = [path.read_bytes() for path in sorted((ROOT / "data" / "clips").glob("*.mp4"))]
ONE = "train_001"


# ---------------------------------------------------------------- archives and a server


def clip(number: int) -> str:
    """A file name as Kinetics has them."""
    return f"-_{number:09}_000010_000020.mp4"


def pack(*members: tuple[str | tarfile.TarInfo, bytes]) -> bytes:
    """A tar.gz of names, or whole headers, and contents."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for member, content in members:
            member = tarfile.TarInfo(member) if isinstance(member, str) else member
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def of_class(label: str, count: int = 3) -> list[tuple[str, bytes]]:
    """Members as Kinetics packs them: the folder has spaces, the order is any."""
    folder = label.replace("_", " ")
    return [(f"./{folder}/{clip(n)}", VIDEOS[n % len(VIDEOS)]) for n in reversed(range(count))]


ABSEILING = pack(*of_class("abseiling"))
NOISE = random.Random(0).randbytes(1_000_000)  # a member that is not wanted, to make an archive large


class Handler(BaseHTTPRequestHandler):
    """Answers HEAD and GET with ranges and ETags, unless a fault is due."""

    def do_HEAD(self) -> None:
        self.reply()

    def do_GET(self) -> None:
        self.reply()

    def log_message(self, *_) -> None:
        pass

    def reply(self) -> None:
        name = re.search(r"k700_(\w+)\.tar\.gz$", self.path)[1]
        asked, version = self.headers["Range"], self.headers["If-Range"]
        self.server.log.append((self.command, name, asked))
        faults = self.server.faults[f"{self.command} {name}"]
        fault = faults.pop(0) if faults else ""
        content = self.server.files.get(name)
        if content is None or str(fault).isdecimal():
            self.send_error(404 if content is None else int(fault))
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        ranged = asked and fault not in ("whole", "whole, drop") and (version in (None, tag) or fault == "stubborn")
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if ranged else 0
        self.send_response(206 if ranged else 200)
        if fault != "no tag":
            self.send_header("ETag", tag)
        if ranged:
            total = len(content) + 5 * (fault == "other total")
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        body = content[start:]
        lie = {"too long": 1000, "too short": -1000}.get(fault, 0)
        if fault != "no length":
            self.send_header("Content-Length", str(len(body) + lie))
        self.end_headers()
        if self.command == "GET":
            self.send(body, fault)
        elif callable(fault):
            fault()

    def send(self, body: bytes, fault) -> None:
        half = len(body) // 2
        if fault in ("drop", "whole, drop", "reset", "no length"):
            body = body[:half]
        if fault == "too short":
            body = body[:-1000]
        if fault == "flip":
            body = body[:half] + bytes([body[half] ^ 255]) + body[half + 1 :]
        for at in range(0, len(body), 16384):
            self.wfile.write(body[at : at + 16384])
            time.sleep(self.server.pace)
            if callable(fault) and at <= half < at + 16384:
                fault()
        if fault == "reset":  # the connection ends without the usual good-bye
            self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))


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
    monkeypatch.setattr(kinetics_fetch, "WAIT", 0.0)
    with Server() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "kinetics"


def words(server: Server, folder: Path, *more: str) -> list[str]:
    url = f"http://127.0.0.1:{server.server_port}/700_2020"
    more = more if "--parts" in more else (*more, "--parts", ONE)
    return ["--folder", str(folder), "--base-url", url, "--hashes", f"{folder}-hashes.json", *more]


def complete(folder: Path, name: str = ONE, count: int = 3) -> None:
    """A part's clips are there, each byte right, and nothing else of it."""
    part = kinetics.PARTS[name]
    found = {path.name: path.read_bytes() for path in part.clips(folder).iterdir()}
    assert found == {clip(n): VIDEOS[n % len(VIDEOS)] for n in range(count)}
    assert not list((folder / "archives").glob(f"*{name}*"))
    assert not list(folder.glob("*/.*.partial"))
    assert json.loads((folder / "parts.json").read_text())[name]["clips"] == count
    listed = data.read_manifest(folder / "manifest.csv")
    assert {str(part.clips(folder) / clip(n)) for n in range(count)} <= set(listed.path)


def half(folder: Path) -> Path:
    """A growing archive."""
    return folder / "archives" / f"k700_{ONE}.tar.gz.part"


# ---------------------------------------------------------------- all is well


def test_everything_is_fetched_and_listed_once(server, folder, capsys, monkeypatch):
    for name, part in kinetics.PARTS.items():
        server.files[name] = pack(*of_class(part.label, part.number + 2))
    empty, text = clip(100), clip(101)
    server.files["train_003"] = pack(
        *of_class("adjusting_glasses", 5), (f"adjusting glasses/{empty}", b""), (f"adjusting glasses/{text}", b"x" * 99)
    )
    call = words(server, folder, "--parts", *kinetics.PARTS)
    assert kinetics.main(call) == 0
    shown = capsys.readouterr().out
    for name, part in kinetics.PARTS.items():
        if name != "train_003":
            complete(folder, name, part.number + 2)
    assert len(server.got()) == len(server.got("HEAD")) - len(kinetics.PARTS) == len(kinetics.PARTS) == 14
    assert all(asked is None for _, asked in server.got())

    videos = data.read_manifest(folder / "manifest.csv")
    places = [Path(path).relative_to(folder).as_posix() for path in videos.path]
    expected = [
        f"{split}/{label}/{clip(n)}"
        for split, labels in (("train", CLASSES), ("val", LABELLED_CLASSES))
        for label in labels
        for n in range(CLASSES.index(label) + 3)
    ]
    assert places == expected
    assert videos.labelled.tolist() == [p.startswith("train") and p.split("/")[1] in LABELLED_CLASSES for p in places]
    assert data.quarters(videos).value_counts().drop(0).sum() == 3 + 5 + 7 + 11 == videos.labelled.sum()
    unreadable = json.loads((folder / "unreadable.json").read_text())
    assert list(unreadable) == [f"train/adjusting_glasses/{name}" for name in (empty, text)]
    assert "the file is empty" in unreadable[f"train/adjusting_glasses/{empty}"]
    assert "not readable as video" in unreadable[f"train/adjusting_glasses/{text}"]

    assert re.search(r"To fetch: 14 archives, \S+ GB. Disk: .* in all; \S+ GB are free in ", shown)
    assert re.search(r"^abseiling +3 +957 +-954 +3 +957 +-954 +3 +48 +-45$", shown, re.MULTILINE)
    assert re.search(r"^adjusting_glasses +5 +590 +-585 +5 +589 +-584 +5 +48 +-43$", shown, re.MULTILINE)
    assert re.search(r"^archery +12 +970 +-958$", shown, re.MULTILINE)
    assert re.search(r"^all +75 +7203 +-7128 +26 +2817 +-2791 +26 +194 +-168$", shown, re.MULTILINE)
    assert "Kinetics loses videos" in shown
    assert "Quarters of the labelled videos: 8 / 7 / 7 / 4" in shown
    assert "2 of 103 videos do not open" in shown

    hashes = json.loads(Path(f"{folder}-hashes.json").read_text())
    assert {name: noted["sha256"] for name, noted in hashes.items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in server.files.items()
    }
    before, manifest = len(server.log), (folder / "manifest.csv").read_bytes()
    monkeypatch.setattr(kinetics_fetch, "client", None)  # whoever asks the server fails
    assert kinetics.main(call) == 0
    assert "All 14 archives are done" in capsys.readouterr().out
    assert len(server.log) == before
    assert (folder / "manifest.csv").read_bytes() == manifest


def test_only_clips_of_the_class_are_taken_out(server, folder, capsys):
    other = [("README.txt", b"text"), (f"abseiling/._{clip(1)}", b"Mac"), ("abseiling/notes.mp4", VIDEOS[0])]
    crowd = [(f"junk/{n}", b"") for n in range(3000)]
    odd = tarfile.TarInfo("abseiling")
    odd.type = tarfile.DIRTYPE
    server.files[ONE] = pack((odd, b""), *other, *crowd, *of_class("abseiling"), *crowd[:1])
    assert kinetics.main(words(server, folder)) == 0
    assert f"{ONE}: 3004 files that are no clips were left out" in capsys.readouterr().out
    complete(folder)


def test_archives_are_kept_on_request(server, folder):
    archive = folder / "archives" / f"k700_{ONE}.tar.gz"
    assert kinetics.main(words(server, folder, "--keep")) == 0
    assert kinetics.main(words(server, folder)) == 0
    assert archive.read_bytes() == ABSEILING
    shutil.rmtree(folder / "train")
    before = len(server.log)
    assert kinetics.main(words(server, folder)) == 0
    assert len(server.log) == before, "an archive that is there is not fetched"
    complete(folder)


def test_clips_that_are_lost_are_fetched_again(server, folder, capsys, provoked):
    server.files["train_002"] = pack(*of_class("acting_in_play"))
    call = words(server, folder, "--parts", ONE, "train_002")
    assert kinetics.main(call) == 0
    (folder / "train" / "abseiling" / clip(1)).unlink()
    assert kinetics.main(call) == 0
    assert f"{ONE}: 2 of 3 clips are there" in capsys.readouterr().out
    assert [name for name, _ in server.got()] == [ONE, "train_002", ONE]
    complete(folder)
    complete(folder, "train_002")
    provoked("a clip is deleted", "extracting archives")


# ---------------------------------------------------------------- a server that misbehaves


@pytest.mark.parametrize(
    ("faults", "parts_of_it"),
    [
        (["drop"], [None, 1 / 2]),
        (["drop", "reset", "drop"], [None, 1 / 2, None, None]),
        (["500", "503", "429"], [None, None, None, None]),
        (["drop", "500", "drop"], [None, 1 / 2, 1 / 2, 3 / 4]),
        (["drop", "whole"], [None, 1 / 2]),
        (["drop", "whole, drop"], [None, 1 / 2, 1 / 2]),
        (["drop", "other total"], [None, 1 / 2, None]),
        (["drop", "416"], [None, 1 / 2, None]),
        (["no tag"], [None]),
        (["no length", "no length"], [None, 1 / 2, 3 / 4]),
        (["too long"], [None, None]),
        (["too short"], [None, None]),
    ],
    ids=str,
)
def test_one_call_overcomes_what_passes(server, folder, faults, parts_of_it, provoked):
    server.faults[f"GET {ONE}"] = list(faults)
    server.faults[f"HEAD {ONE}"] = ["500"]
    assert kinetics.main(words(server, folder)) == 0
    complete(folder)
    asked = [int(found[6:-1]) / len(ABSEILING) if found else None for _, found in server.got()]
    if "reset" in faults:  # how much arrives before a reset is chance
        assert asked[0] is None
        assert asked[1:] == sorted(asked[1:])
    else:
        assert asked == [pytest.approx(share, abs=0.001) if share else None for share in parts_of_it]
    provoked("a server that breaks off, refuses or lies", "fetching", 1 + len(faults))


@pytest.mark.parametrize("code", ["403", "404", "401"])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_refusal_is_told_at_once(server, folder, capsys, method, code, provoked):
    server.faults[f"{method} {ONE}"] = [code]
    call = words(server, folder)
    assert kinetics.main(call) == 1
    said = capsys.readouterr().err
    assert f"{call[3]}/train/k700_{ONE}.tar.gz: the server answers {code}" in said
    assert "--base-url" in said
    assert len(server.got(method)) == 1
    assert kinetics.main(call) == 0
    complete(folder)
    provoked("a server that says 401, 403 or 404", "fetching")


@pytest.mark.parametrize("faults", [["500"], ["drop"], ["whole, drop"], ["too long"], ["other total", "drop"]], ids=str)
def test_tries_are_bounded_and_the_next_call_goes_on(server, folder, capsys, faults, provoked):
    server.faults[f"GET {ONE}"] = ["drop", *faults * 50]
    assert kinetics.main(words(server, folder)) == 1
    said = capsys.readouterr().err
    assert f"train/k700_{ONE}.tar.gz: " in said
    assert f"{kinetics_fetch.TRIES} tries brought nothing more. Try again later" in said
    assert len(server.got()) == kinetics_fetch.TRIES
    assert not (folder / "manifest.csv").exists()
    server.faults.clear()
    there = half(folder).stat().st_size if half(folder).exists() else 0
    assert kinetics.main(words(server, folder)) == 0
    assert server.got()[-1] == (ONE, f"bytes={there}-" if there else None)
    complete(folder)
    provoked("a server that fails again and again", "fetching", kinetics_fetch.TRIES)


def test_tries_count_anew_while_bytes_arrive(server, folder, monkeypatch, provoked):
    monkeypatch.setattr(kinetics_fetch, "PROGRESS", 100_000)
    server.files[ONE] = pack(*of_class("abseiling"), ("noise", NOISE))
    faults = ["drop", "500", "500", "500", "drop", "500", "500", "500", "drop", "500", "500"]
    server.faults[f"GET {ONE}"] = [*faults]
    assert kinetics.main(words(server, folder)) == 0
    complete(folder)
    provoked("a server that breaks off, refuses or lies", "fetching", len(faults))


def test_to_start_anew_is_no_progress(server, folder, monkeypatch, provoked):
    monkeypatch.setattr(kinetics_fetch, "PROGRESS", 100)
    server.faults[f"GET {ONE}"] = ["drop", "other total"] * 50
    assert kinetics.main(words(server, folder)) == 1
    assert len(server.got()) == kinetics_fetch.TRIES
    provoked("a server that fails again and again", "fetching", kinetics_fetch.TRIES)


def test_waits_get_longer(monkeypatch):
    waits = []
    monkeypatch.setattr(kinetics_fetch.time, "sleep", waits.append)

    def attempt():
        raise kinetics_fetch.Interrupted("no")

    with pytest.raises(kinetics_fetch.Trouble, match="no; 6 tries"):
        kinetics_fetch.patiently(attempt)
    assert waits == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(("lie", "message"), [("too long", "does not fit"), ("too short", "was removed; call again")])
def test_a_server_that_lies_about_the_length_throughout(server, folder, capsys, lie, message, provoked):
    server.faults |= {f"{method} {ONE}": [lie] * 99 for method in ("HEAD", "GET")}
    assert kinetics.main(words(server, folder)) == 1
    assert message in capsys.readouterr().err
    assert not (folder / "train" / "abseiling").exists()
    server.faults.clear()
    assert kinetics.main(words(server, folder)) == 0
    complete(folder)
    provoked("a server that lies about the length throughout", "fetching")


@pytest.mark.parametrize("between_calls", [True, False])
@pytest.mark.parametrize("faults", [["drop"], ["drop", "whole"], ["drop", "no tag"], ["drop", "stubborn"]], ids=str)
def test_a_file_that_changes_on_the_server_is_fetched_anew(server, folder, between_calls, faults, provoked):
    """Same size, other content: only the ETag tells, and a stubborn server sends parts of any version."""
    old = bytearray(ABSEILING)
    old[:20] = bytes(20)

    def change() -> None:
        server.files[ONE] = ABSEILING

    server.files[ONE] = bytes(old)
    server.faults[f"GET {ONE}"] = ["drop", *["500"] * 5] if between_calls else [*faults]
    if between_calls:
        assert kinetics.main(words(server, folder)) == 1
        assert half(folder).read_bytes() == old[: len(old) // 2]
        change()
    else:
        server.faults[f"HEAD {ONE}"] = ["", "", change]
    assert kinetics.main(words(server, folder)) == 0
    complete(folder)
    provoked("the file changes on the server", "fetching")


# ---------------------------------------------------------------- bad archives


def header(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """The header of a member of any kind."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def refused(server, folder, capsys, content: bytes, message: str) -> None:
    """An archive is refused and removed and leaves nothing; when the server is mended, the next call completes."""
    server.files[ONE] = content
    before = {path for path in folder.parent.rglob("*") if folder not in path.parents}
    assert kinetics.main(words(server, folder)) == 1
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert f"k700_{ONE}.tar.gz: " in said
    assert "The archive was removed; call again to fetch it anew" in said
    assert {path for path in folder.parent.rglob("*") if folder not in path.parents} - {folder} == before
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert left <= {".lock", "archives", "train"}
    server.files[ONE] = ABSEILING
    assert kinetics.main(words(server, folder)) == 0
    complete(folder)


WHOLE = of_class("abseiling")
UNPACKED = gzip.decompress(pack(*WHOLE))
SECOND = UNPACKED.index(clip(1).encode()) - len("./abseiling/")  # where the header of the second member begins


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
        (pack(*of_class("archery")), "in a folder 'archery'; expected was 'abseiling'"),
        (pack(*WHOLE, (clip(5), VIDEOS[0])), "in a folder ''; expected was 'abseiling'"),
    ],
    ids=range(14),
)
def test_a_damaged_archive_is_not_used(server, folder, capsys, content, message, provoked):
    refused(server, folder, capsys, content, message)
    provoked("a damaged archive", "extracting archives")


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (header(f"/abseiling/{clip(7)}"), "points out of the folder"),
        (header(f"../../abseiling/{clip(7)}"), "points out of the folder"),
        (header(f"abseiling/../../abseiling/{clip(7)}"), "points out of the folder"),
        (header(f"abseiling/{clip(7)}", tarfile.SYMTYPE, "/etc/passwd"), "neither file nor folder"),
        (header(f"abseiling/{clip(7)}", tarfile.LNKTYPE, f"abseiling/{clip(0)}"), "neither file nor folder"),
        (header(f"abseiling/{clip(7)}", tarfile.CHRTYPE), "neither file nor folder"),
        (header(f"abseiling/{clip(7)}", tarfile.BLKTYPE), "neither file nor folder"),
        (header("pipe", tarfile.FIFOTYPE), "neither file nor folder"),
    ],
    ids=range(8),
)
@pytest.mark.parametrize("place", [0, 3])
def test_a_hostile_archive_is_not_used(server, folder, capsys, member, message, place, provoked):
    members = [*WHOLE]
    members.insert(place, (member, b""))
    refused(server, folder, capsys, pack(*members), message)
    provoked("an archive made to do harm", "extracting archives")


def test_a_flipped_bit_on_the_way_is_noticed(server, folder, capsys, provoked):
    server.faults[f"GET {ONE}"] = ["flip"]
    refused(server, folder, capsys, ABSEILING, "CRC check failed|Error -3")
    provoked("a bit flips on the way", "fetching")


def test_another_content_than_the_first_time_is_told(server, folder, capsys, provoked):
    call, hashes = words(server, folder), Path(f"{folder}-hashes.json")
    assert kinetics.main(call) == 0
    shutil.rmtree(folder)
    server.files[ONE] = pack(*of_class("abseiling"), ("more", b""))
    noted = hashlib.sha256(ABSEILING).hexdigest(), hashlib.sha256(server.files[ONE]).hexdigest()
    assert kinetics.main(call) == 1
    said = capsys.readouterr().err
    assert all(value in said for value in (*noted, str(hashes), f"remove {ONE} from that file"))
    assert not (folder / "train").exists()
    hashes.write_text("{}")
    assert kinetics.main(call) == 0
    complete(folder)
    provoked("another content than the first time", "fetching")


# ---------------------------------------------------------------- kill -9, two runs


def start(server: Server, folder: Path, *more: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "tools.kinetics", *words(server, folder, *more)]
    options = {"stderr": subprocess.DEVNULL, "env": os.environ | {"PYTHONUNBUFFERED": "1"}} | options
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


def kill_when(happened, run: subprocess.Popen) -> None:
    """kill -9 as soon as something has happened."""
    until(happened, run)
    run.kill()
    run.communicate()
    assert run.returncode == -9


def until(happened, run: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert run.poll() is None, "the process ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_killed_while_fetching(server, folder, provoked):
    server.files[ONE] = pack(*WHOLE, ("noise", NOISE))
    server.pace = 0.01
    run = start(server, folder)
    kill_when(lambda: half(folder).exists() and half(folder).stat().st_size > 300_000, run)
    have = half(folder).stat().st_size
    server.pace = 0.0
    assert kinetics.main(words(server, folder)) == 0
    assert server.got() == [(ONE, None), (ONE, f"bytes={have}-")]
    complete(folder)
    provoked("kill -9", "fetching")


def test_killed_while_taking_out(server, folder, provoked):
    server.files[ONE] = pack(*WHOLE[:2], ("zeros", bytes(100_000_000)), WHOLE[2])
    growing = folder / "train" / ".abseiling.partial"
    kill_when(lambda: growing.exists() and len(list(growing.iterdir())) == 2, start(server, folder))
    assert len(list(growing.iterdir())) == 2
    assert not (folder / "train" / "abseiling").exists()
    server.log.clear()
    assert kinetics.main(words(server, folder)) == 0
    assert not server.log, "the archive is there and is not fetched again"
    complete(folder)
    provoked("kill -9", "extracting archives")


def stage(folder: Path, name: str) -> int:
    """How far a part has come: fetching, fetched, being taken out, taken out, noted."""
    part, ledger = kinetics.PARTS[name], folder / "parts.json"
    growing = kinetics_fetch.growing(part.archive(folder))
    happened = (
        growing.exists() and kinetics_fetch.size(growing) > 200_000,
        part.archive(folder).exists(),
        any(kinetics_fetch.unfinished(part.clips(folder)).glob("*")),
        part.clips(folder).exists(),
        ledger.exists() and name in json.loads(ledger.read_text()),
    )
    return max((number for number, yes in enumerate(happened, 1) if yes), default=0)


def test_killed_at_every_stage(server, folder, provoked):
    names, kills = [ONE, "val_001"], 0
    for name in names:
        server.files[name] = pack(("n", NOISE), *of_class("abseiling"), ("z", bytes(30_000_000)))
    server.pace = 0.002
    for name, wanted in [(ONE, number) for number in (1, 2, 3, 4, 5)] + [("val_001", 1), ("val_001", 4)]:
        done = {name for name in names if stage(folder, name) == 5}
        server.log.clear()
        run = start(server, folder, "--parts", *names)
        while stage(folder, name) < wanted and run.poll() is None:
            time.sleep(0.002)
        run.kill()
        run.communicate()
        kills += run.returncode == -9
        assert not done & {name for name, _ in server.got()}, "what is done is not fetched again"
    assert kills > 4
    assert kinetics.main(words(server, folder, "--parts", *names)) == 0
    for name in names:
        complete(folder, name)
    provoked("kill -9", "fetching", kills)


def test_two_runs_on_one_folder(server, folder, provoked):
    both = Event()
    server.faults[f"GET {ONE}"] = [lambda: both.wait(120)]
    first = Thread(target=kinetics.main, args=[words(server, folder)])
    first.start()
    second = start(server, folder)
    assert second.stdout.readline() == f"Another run is at work in {folder}; waiting for its end.\n"
    assert half(folder).exists()
    both.set()
    first.join()
    assert second.stdout.readline() == "All 1 archives are done; nothing to fetch.\n"
    second.kill()
    second.communicate()
    assert server.got() == [(ONE, None)]
    complete(folder)
    provoked("two runs at once", "fetching")


# ---------------------------------------------------------------- disks


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of some kB as often as wanted; only the administrator of a machine may."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], capture_output=True)
        if done.returncode:
            pytest.skip("may not mount a small disk here")
        return place

    yield mount
    subprocess.run(["umount", "-l", place], capture_output=True)


def test_the_need_for_disk_is_told_before_anything_is_fetched(server, folder, capsys, monkeypatch, provoked):
    need = 2.02 * len(ABSEILING)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, int(need) - 10))
    assert kinetics.main(words(server, folder)) == 1
    assert f"{need / 1e9:.3g} GB are needed, {(need - 10) / 1e9:.3g} GB are free; make room" in capsys.readouterr().err
    assert not server.got()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, int(need) + 10))
    assert kinetics.main(words(server, folder)) == 0
    complete(folder)
    provoked("too little room from the start", "fetching")


def test_the_need_counts_what_is_there(server, folder, capsys, monkeypatch):
    two = {"train_001": 3_000_000, "train_002": 2_000_000}
    monkeypatch.setattr(kinetics_fetch, "remote", lambda _, url: (two[url[-16:-7]], ""))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    half(folder).parent.mkdir(parents=True)
    half(folder).write_bytes(bytes(1_500_000))
    for more, archives in (([], 0.002), (["--keep"], 0.0035)):
        assert kinetics.main(words(server, folder, "--parts", *two, *more)) == 1
        shown = capsys.readouterr()
        assert f"2 archives, 0.0035 GB. Disk: 0.0051 GB for clips and {archives} GB for " in shown.out
        assert f"{archives + 0.0051:.3g} GB are needed, 0 GB are free" in shown.err


def test_the_disk_fills_up_while_an_archive_is_fetched(server, small_disk, capsys, provoked):
    folder = small_disk("size=3m") / "kinetics"
    server.files[ONE] = pack(*WHOLE, ("noise", NOISE))
    other = folder.parent / "other"
    server.faults[f"GET {ONE}"] = [lambda: fill(other)]
    server.pace = 0.001
    assert kinetics.main(words(server, folder)) == 1
    assert f"{folder}: No space left on device; make room and call again" in capsys.readouterr().err
    other.unlink()
    assert kinetics.main(words(server, folder)) == 0
    assert re.fullmatch(r"bytes=\d{6}-", server.got()[-1][1])
    complete(folder)
    provoked("the disk is full", "fetching")


def test_the_disk_fills_up_while_clips_are_taken_out(server, small_disk, capsys, provoked):
    folder = small_disk("size=1m") / "kinetics"
    server.files[ONE] = pack(*WHOLE, (f"abseiling/{clip(9)}", bytes(3_000_000)))
    assert kinetics.main(words(server, folder)) == 1
    said = capsys.readouterr().err
    assert "No space left on device; make room and call again" in said
    assert not (folder / "train" / "abseiling").exists()
    small_disk("remount,size=8m")
    server.log.clear()
    assert kinetics.main(words(server, folder)) == 0
    assert not server.log, "the archive is kept"
    assert json.loads((folder / "parts.json").read_text())[ONE]["clips"] == 4
    provoked("the disk is full", "extracting archives")


def test_a_limit_on_the_size_of_files(server, folder, provoked):
    server.files[ONE] = pack(*WHOLE, ("noise", NOISE))
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))  # noqa: E731
    run = start(server, folder, preexec_fn=limit, stderr=subprocess.PIPE)
    assert f"kinetics: {folder}: File too large; this disk, or `ulimit -f`, allows no file" in run.communicate()[1]
    assert run.returncode == 1
    assert kinetics.main(words(server, folder)) == 0
    assert server.got()[-1] == (ONE, "bytes=500000-")
    complete(folder)
    provoked("a limit on the size of files", "fetching")


def test_a_disk_that_is_read_only(server, small_disk, capsys, provoked):
    place = small_disk("size=1m")
    small_disk("remount,ro")
    assert kinetics.main(words(server, place / "kinetics")) == 1
    assert f"{place / 'kinetics'}: Read-only file system; name a folder that can be written" in capsys.readouterr().err
    assert not server.log
    provoked("the disk is read-only", "fetching")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(server, folder, capsys):
    folder.mkdir(mode=0o500)
    assert kinetics.main(words(server, folder)) == 1
    assert "Permission denied; name a folder that can be written with --folder" in capsys.readouterr().err


@pytest.mark.parametrize("place", [".", "archives", "train"])
def test_a_file_in_the_place_of_a_folder(server, folder, capsys, place, provoked):
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text("a file")
    assert kinetics.main(words(server, folder)) == 1
    said = capsys.readouterr().err
    assert str(folder / place) in said
    assert "a file is in the place of a folder; move it away or name another folder with --folder" in said
    (folder / place).unlink()
    assert kinetics.main(words(server, folder)) == 0
    complete(folder)
    provoked("a file in the place of a folder", "fetching")


# ---------------------------------------------------------------- what was asked for


def test_validation_without_training_makes_no_list(server, folder, capsys):
    server.files["val_001"] = pack(*of_class("abseiling"))
    assert kinetics.main(words(server, folder, "--parts", "val_001")) == 1
    assert "class without training videos: abseiling" in capsys.readouterr().err
    assert not (folder / "manifest.csv").exists()
    assert kinetics.main(words(server, folder, "--parts", "val_001", ONE)) == 0
    complete(folder)
    complete(folder, "val_001")


def test_a_record_that_is_not_json(server, folder, capsys, provoked):
    folder.mkdir()
    (folder / "parts.json").write_text("{")
    assert kinetics.main(words(server, folder)) == 1
    assert f"{folder / 'parts.json'}: this is not JSON" in capsys.readouterr().err
    provoked("a record of its own that is damaged", "fetching")


def test_interrupted_by_hand(server, folder, capsys, monkeypatch, provoked):
    with monkeypatch.context() as patch:
        patch.setattr(kinetics_fetch, "remote", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert kinetics.main(words(server, folder)) == 1
    assert "the next call goes on" in capsys.readouterr().err
    assert kinetics.main(words(server, folder)) == 0
    provoked("Ctrl-C", "fetching")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(["--parts", "val_002"], "val_001, val_003|'val_001', 'val_003'|invalid"), (["--base-url", "ftp://x"], "http://")],
)
def test_what_is_not_known_is_refused(capsys, wrong, message):
    with pytest.raises(SystemExit) as end:
        kinetics.main(wrong)
    assert end.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_parts_are_those_of_the_paper():
    assert [*kinetics.PARTS] == [f"train_{n:03}" for n in range(1, 11)] + [f"val_{n:03}" for n in (1, 3, 5, 9)]
    assert kinetics.PARTS["val_009"].label == "archaeological_excavation"
    assert kinetics.PARTS["train_010"].url(kinetics.BASE_URL) == (
        "https://s3.amazonaws.com/kinetics/700_2020/train/k700_train_010.tar.gz"
    )


def test_what_is_fetched_is_not_committed():
    assert "data/kinetics/" in (ROOT / ".gitignore").read_text().splitlines()
    assert kinetics.parse([]).folder == ROOT / "data" / "kinetics"
