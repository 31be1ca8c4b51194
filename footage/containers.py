"""What the first bytes of a file say of its frames: do they have times of their own, and are they mirrored?

Nothing is decoded here. Both answers only choose the way of reading, see `footage.videos`. Book: chapter 1.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np

HEAD = 2048  # bytes that are looked at
SYNC = 0x47  # first byte of every packet of a transport stream
PACKETS = (188, 192, 204)  # bytes of a packet: broadcast, camcorder, with error correction
START_CODES = (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x00\x00\x01\x09", b"\x00\x00\x00\x01")  # MPEG, H.264


def without_times(path: Path) -> bool:
    """Whether a file is AVI, an MPEG stream or a bare stream of pictures.

    These keep no index of times at which frames are shown, or none that can be sought in when frames are stored in
    another order than they are shown (B-frames).
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return True
    return head.startswith(START_CODES) or any(_transport(head, size) for size in PACKETS)


def _transport(head: bytes, size: int) -> bool:
    """Whether there is a sync byte every ``size`` bytes; a recording may begin within a packet."""
    firsts = range(min(size, len(head)))
    return any(len(beats := head[first::size]) > 4 and set(beats) == {SYNC} for first in firsts)


def mirrored(path: Path) -> bool:
    """Whether an MP4 or QuickTime file asks for more than a turn by a multiple of 90 degrees.

    Source: ISO/IEC 14496-12, track header box: nine numbers, of which four turn and mirror the picture.
    """
    with path.open("rb") as file:
        return any(not _is_turn(matrix) for matrix in _matrices(_index(file)))


def _index(file: BinaryIO) -> bytes:
    """The content of the box ``moov``, wherever it is; empty if there is none."""
    while len(header := file.read(8)) == 8:
        size, kind = int.from_bytes(header[:4], "big"), header[4:]
        if not kind.isalnum() and kind != b"\xa9xyz":
            return b""
        long = size == 1
        size = int.from_bytes(file.read(8), "big") if long else size
        if kind == b"moov":
            return file.read(size - 8 if size >= 8 else -1)
        if size < 8:
            return b""
        file.seek(size - (16 if long else 8), 1)
    return b""


def _matrices(index: bytes) -> list[np.ndarray]:
    """The turning part, (2, 2), of every track's matrix that is one."""
    found, place = [], index.find(b"tkhd")
    while place >= 0:
        start = place + (56 if index[place + 4 : place + 5] == b"\x01" else 44)  # 64-bit times in version 1
        numbers = np.frombuffer(index[start : start + 20].ljust(20, b"\0"), ">i4") / 65536
        matrix = numbers[[0, 1, 3, 4]].reshape(2, 2)
        found += [matrix] if matrix.any() else []
        place = index.find(b"tkhd", place + 4)
    return found


def _is_turn(matrix: np.ndarray) -> bool:
    """Whether a matrix turns by a multiple of 90 degrees and mirrors nothing."""
    straight = np.isclose(matrix, 0).sum() == 2 and not np.isclose(matrix.sum(0), 0).any()
    return bool(straight and np.linalg.det(matrix) > 0)
