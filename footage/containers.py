"""What the header of a file says of its frames: do they have times of their own, and are they mirrored?

Nothing is decoded here. Both answers only choose the way of reading, see `footage.videos`. Book: chapter 1.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np

HEAD = 2048  # bytes that are looked at
MOST_INDEX = 2**26  # bytes of an index that are read
SYNC = 0x47  # first byte of every packet of a transport stream
PACKETS = (188, 192, 204)  # bytes of a packet: broadcast, camcorder, with error correction
START_CODES = (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x00\x00\x01\x09", b"\x00\x00\x00\x01")  # MPEG, H.264


def is_avi(path: Path) -> bool:
    """Whether a file is AVI: no times of frames inside, so that those stored in another order are found wrongly."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"AVI "


def is_stream(path: Path) -> bool:
    """Whether a file is an MPEG stream or a bare stream of pictures, without an index that can be sought in."""
    with path.open("rb") as file:
        head = file.read(HEAD)
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
        return any(not _is_turn(matrix) for matrix in _matrices(_index(file, path.stat().st_size)))


def _index(file: BinaryIO, end: int) -> bytes:
    """The content of the box ``moov`` of a file of ``end`` bytes, wherever it is; empty if there is none."""
    start = 0
    while start + 8 <= end:
        file.seek(start)
        size, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        if size == 1:  # the size follows, in 64 bits
            size = int.from_bytes(file.read(8), "big")
        if kind == b"moov":
            return file.read(min(size or end, end - start, MOST_INDEX))
        if size < 8 or not kind.isalnum():
            return b""
        start += size
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
