"""Damage small videos at random and read them: each must be decoded or refused with a reason.

Every fifth file is one without an index of times (AVI, camcorder, disc), which FFmpeg's program reads.

python -m tools.fuzz_videos [N]    reads N damaged files (default 10000) and writes data/fuzz.json
"""

import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from footage import videos, workers
from picojepa.clips import ClipConfig
from picojepa.store import DATA
from tools import records

CLIP = ClipConfig(size=16)
TIMEOUT = 30.0
SOURCE = "testsrc2=size=32x32:rate=24:duration=1"
X264 = ("-c:v", "libx264", "-crf", "30", "-pix_fmt", "yuv420p")
KINDS = {  # what the undamaged files are
    "plain": X264,
    "index first, key frames": (*X264, "-g", "6", "-movflags", "+faststart"),
    "fragments": (*X264, "-g", "8", "-movflags", "+frag_keyframe+empty_moov"),
    "variable rate": ("-vf", "setpts='(N+if(gt(N,9),2*(N-9)))/24/TB'", "-fps_mode", "vfr", *X264),
    "turned, MPEG-4 part 2": ("-c:v", "mpeg4", "-metadata:s:v", "rotate=90"),
}
STREAMS = {  # ending -> how a file without an index of times is made
    ".avi": ("-c:v", "mpeg4", "-bf", "2"),
    ".ts": (*X264, "-bf", "3"),
    ".mpg": ("-c:v", "mpeg2video", "-bf", "2"),
}
EVERY = 5  # one of so many damaged files is a stream
HANG, DEATH = "decoding took longer", "the decoder died"


def encoded(path: Path, *options: str | Path) -> Path:
    """A file that FFmpeg makes."""
    subprocess.run(["ffmpeg", "-v", "error", "-y", *options, path], check=True)
    return path


def streams(folder: Path) -> list[tuple[str, bytes]]:
    """Undamaged files without an index, and their endings."""
    made = (encoded(folder / f"stream{end}", "-f", "lavfi", "-i", SOURCE, *how) for end, how in STREAMS.items())
    return [(path.suffix, path.read_bytes()) for path in made]


def originals(folder: Path) -> list[bytes]:
    """The undamaged files, and one that is cut by an edit list."""
    found = []
    for number, options in enumerate(KINDS.values()):
        found.append(encoded(folder / f"original{number}.mp4", "-f", "lavfi", "-i", SOURCE, *options))
    found.append(encoded(folder / "cut.mp4", "-ss", "0.4", "-i", found[0], "-c", "copy"))
    return [path.read_bytes() for path in found]


def damage(content: bytes, source: random.Random) -> bytes:
    """Flip, drop, cut off or repeat bytes; flips fall on the index half of the time."""
    data, start = bytearray(content), source.randrange(len(content))
    length = source.choice((1, 4, 16, 100, 500))
    kind = source.choice(("flip", "flip", "flip", "flip", "drop", "cut", "repeat"))
    if kind == "flip":
        index = content.find(b"moov")
        for _ in range(source.choice((1, 1, 2, 4, 16, 64))):
            place = source.randrange(index, len(data)) if source.random() < 0.5 else source.randrange(len(data))
            data[place] = source.choice((0, 0xFF, data[place] ^ (1 << source.randrange(8)), source.randrange(256)))
    elif kind == "drop":
        del data[start : start + length]
    elif kind == "cut":
        del data[start:]
    else:
        data[start:start] = data[start : start + length]
    return bytes(data)


def damaged(folder: Path, count: int, seed: int) -> list[Path]:
    """Write damaged files."""
    whole, source = [(".mp4", content) for content in originals(folder)], random.Random(seed)
    bare, paths = streams(folder), []
    for number in range(count):
        kinds = bare if number % EVERY == 0 else whole
        ending, content = kinds[number // EVERY % len(bare)] if kinds is bare else kinds[number % len(whole)]
        paths.append(folder / f"{number}{ending}")
        paths[-1].write_bytes(damage(content, source))
    return paths


def fuzz(count: int, seed: int) -> dict[str, Any]:
    """Read damaged files in worker processes and count what becomes of them."""
    start, reasons, decoded, noted = time.perf_counter(), Counter(), 0, 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        paths = damaged(Path(folder), count, seed)
        jobs = [(number, str(path), [0.0, 0.5, 1.0]) for number, path in enumerate(paths)]
        for (_, path, _), outcome in workers.run(videos.read_batch, jobs, CLIP, batch=16, timeout=TIMEOUT):
            reason = outcome if isinstance(outcome, str) else outcome[1]["reason"]
            decoded += not reason
            noted += not reason and bool(outcome[1]["note"])
            if reason:
                reasons[re.sub(r"-?\d+(\.\d+)?", "...", reason.split("(")[0].split(";")[0].strip())[:60]] += 1
            if HANG in reason or DEATH in reason:  # is kept, to be looked at
                print(shutil.copy(path, Path(tempfile.gettempdir(), f"fuzz-{seed}-{Path(path).name}")), reason)
    return {
        "originals": len(KINDS) + 1 + len(STREAMS),
        "seed": seed,
        "count": count,
        "decoded": decoded,
        "through_program": noted,
        "reported": dict(reasons.most_common()),
        "hangs": sum(n for reason, n in reasons.items() if HANG in reason),
        "crashes": sum(n for reason, n in reasons.items() if DEATH in reason),
        "seconds": round(time.perf_counter() - start, 1),
    }


if __name__ == "__main__":
    found = fuzz(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, seed=1)
    records.write(DATA / "fuzz.json", records.surroundings() | found)
    print(json.dumps(found, indent=1))
