"""Sphinx extension of the book: nothing stale survives a build, and the log says what each page cost.

jupyter-cache runs a notebook again when its own code changes. Its numbers also depend on the package, the data, the
environment and the notebooks before it, so checksums of all these lie in the cache. From the first that differs, what
comes after is taken out of the cache, and all pages are read anew.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from jupyter_cache import get_cache
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("picojepa", "footage", "standin", "evidence", "book/figures")
MADE_HERE = ("cache", "kinetics")  # folders of data that git does not hold: results have keys of their own
MARK = "checksums"
logger = logging.getLogger(__name__)


def inputs(root: Path) -> list[Path]:
    """Files that can change what a page shows, whichever page it is."""
    data = [path for path in root.glob("data/*") if path.name not in MADE_HERE]
    places = [*(root / name for name in FOLDERS), *data, *root.glob("benchmarks/*.json"), root / "requirements.lock"]
    files = (file for place in places for file in (place, *place.rglob("*")))
    return sorted(file for file in files if file.is_file() and file.suffix != ".pyc")


def own_videos() -> list[list[str | int]]:
    """Name, size and time of the list and of all videos named by ``PICOJEPA_DATA``; refused in one line if unusable."""
    if not os.environ.get("PICOJEPA_DATA"):
        return []
    from picojepa import data  # takes seconds, and most builds do not need it

    try:
        source = data.source()
        paths = [source, *map(Path, data.own_videos(source).path)]
    except (OSError, ValueError) as error:
        raise SystemExit(f"PICOJEPA_DATA: {error}") from None
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths if path.is_file()]


def checksum(root: Path, files: list[Path], *more: object) -> str:
    """SHA-256 of files, their places below the root, and whatever else JSON can hold."""
    digest = hashlib.sha256(json.dumps(more).encode())
    for path in files:
        digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def checksums(root: Path = ROOT) -> Iterator[str]:
    """Lines of a name and a checksum. A change of one concerns the notebooks whose names come after it."""
    variables = sorted(item for item in os.environ.items() if item[0].startswith("PICOJEPA_"))
    yield f"(inputs) {checksum(root, inputs(root), variables, own_videos(), sys.version)}"
    for path in sorted(root.glob("book/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield f"{path.stem} {checksum(root, [], [c['source'] for c in cells if c['cell_type'] == 'code'])}"
    yield f"~pages {checksum(root, sorted(root.glob('tools/book_*.py')))}"  # they are read anew, but not run


def forget(folder: Path, now: set[str]) -> None:
    """Take what is stale out of the cache of executed notebooks, and note the checksums of those that will be run."""
    mark = folder / MARK
    before = set(mark.read_text(encoding="utf-8").splitlines()) if mark.is_file() else set()
    if now == before:
        return
    first, cache = min(now ^ before).split()[0], get_cache(folder)
    for record in cache.list_cache_records():
        if Path(record.uri).stem > first:
            cache.remove_cache(record.pk)
    mark.write_text("\n".join(sorted(now)), encoding="utf-8")


def marks(app) -> tuple[Path, Path]:
    """Checksums of the executed notebooks; the same, there only if the last build ended without a warning."""
    return Path(app.env.mystnb_config.execution_cache_path) / MARK, Path(app.doctreedir) / MARK


def outdated(app, env, added, changed, removed) -> list[str]:
    """All pages if anything changed, or if the last build warned or did not end: its warnings must come back."""
    executed, ended = marks(app)
    forget(executed.parent, set(checksums()))
    same = ended.is_file() and ended.read_bytes() == executed.read_bytes()
    ended.unlink(missing_ok=True)
    return [] if same else list(env.found_docs)


def end(app, exception) -> None:
    """Note that the build ended without a warning, and say how long each page took when it was last run."""
    if exception is not None or app._warncount:
        return
    shutil.copyfile(*marks(app))
    sys.path.append(str(ROOT))  # Sphinx has loaded this file by itself
    from tools import lab_copies  # takes a second, and most builds do not come so far

    values = lab_copies.glued(marks(app)[0].parent / "executed")
    lab_copies.write_copies(Path(app.outdir) / "_sources", values, {}, overwrite=True)  # what the pages' button serves
    runs = {page: NbMetadataCollector.get_exec_data(app.env, page) or {} for page in sorted(app.env.found_docs)}
    seconds = {page: run["runtime"] for page, run in runs.items() if run.get("runtime")}
    lines = [f"{page:<20}{taken:8.0f} s" for page, taken in [*seconds.items(), ("all pages", sum(seconds.values()))]]
    logger.info("\nSeconds when last run:\n%s\n", "\n".join(lines))


def setup(app) -> dict:
    """Connect both."""
    app.connect("env-get-outdated", outdated)
    app.connect("build-finished", end, priority=900)  # after others, who may warn
    return {"parallel_read_safe": True, "parallel_write_safe": True}
