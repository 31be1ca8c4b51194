"""Sphinx extension of the book: nothing stale survives a build.

jupyter-cache runs a notebook again when its own code changes. The numbers in this book also depend on the
package, the data, the environment and the chapters before, so a digest of all these goes into the metadata of
the first code cell, which is part of the cache's key.
"""

import csv
import hashlib
import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INPUTS = (
    "picojepa/**/*.py",
    "book/figures/*.js",
    "book/figures/*.css",
    "tools/study_*.py",
    "benchmarks/cpu.json",
    "benchmarks/lists.json",
    "data/*.csv",
    "data/*.json",
    "data/standin/*",
    "data/cards/*.json",
    "data/studies/*.json",
    "data/encoder/**/*",
    "data/clips/**/*",
    "data/paper/*",
    "requirements.lock",
)
VARIABLES = ("PICOJEPA_PROFILE", "PICOJEPA_RECIPE", "PICOJEPA_DATA")


def code_of(notebook: dict) -> list[str]:
    """Sources of the code cells."""
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def own_videos() -> list[list[str | int]]:
    """Name, size and time of every file of one's own videos (``PICOJEPA_DATA``): of the folder, or named by the CSV."""
    path = ROOT / Path(os.environ.get("PICOJEPA_DATA") or os.devnull).expanduser()
    files = [path, *sorted(path.rglob("*"))]
    if path.suffix == ".csv" and path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            files += [path.parent / row["path"] for row in csv.DictReader(file) if row.get("path")]
    return [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.is_file()]


def digest_of_inputs(root: Path = ROOT) -> str:
    """Digest of what every chapter depends on: package, data, pinned packages and environment variables."""
    given = [[os.environ.get(name, "") for name in VARIABLES], own_videos()]
    digest = hashlib.sha256(json.dumps(given).encode())
    for path in sorted({path for pattern in INPUTS for path in root.glob(pattern) if path.is_file()}):
        digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def chapter_digests(root: Path = ROOT) -> dict[str, str]:
    """For each notebook a digest of the common inputs and of the code of all notebooks before it."""
    digest = hashlib.sha256(digest_of_inputs(root).encode())
    digests = {}
    for path in sorted(root.glob("book/*.ipynb")):
        digests[path.stem] = digest.hexdigest()[:16]
        digest.update(json.dumps(code_of(json.loads(path.read_text(encoding="utf-8")))).encode())
    return digests | {"": digest.hexdigest()[:16]}


def unclean(app) -> Path:
    """Exists while a build runs and after one that warned or failed."""
    return Path(app.doctreedir) / "unclean"


def refuse() -> None:
    """Say at once, in the last line that is printed, what is wrong with a list on which no chapter can run."""
    if os.environ.get("PICOJEPA_DATA"):
        from picojepa import data  # takes seconds, and most builds do not need it

        try:
            data.own_videos(data.source())
        except (OSError, ValueError) as error:
            raise SystemExit(f"PICOJEPA_DATA: {error}") from None


def begin(app) -> None:
    """Compute the digests, and remember that this build has not ended well yet."""
    refuse()
    app.chapter_digests = chapter_digests()
    app.was_unclean = unclean(app).exists()
    unclean(app).parent.mkdir(parents=True, exist_ok=True)
    unclean(app).touch()


def outdated(app, env, added, changed, removed) -> list[str]:
    """All documents if an input or this file changed, or if the last build warned: its warnings must come back."""
    digest = app.chapter_digests[""] + hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    same = getattr(env, "book_digest", None) == digest
    env.book_digest = digest
    return [] if same and not app.was_unclean else list(env.found_docs)


def stamp(app, docname: str, source: list[str]) -> None:
    """Write the chapter's digest into its first code cell."""
    if docname not in app.chapter_digests:
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["metadata"]["picojepa_digest"] = app.chapter_digests[docname]
            break
    source[0] = json.dumps(notebook)


def end(app, exception) -> None:
    """Forget the mark if the build ended well."""
    if exception is None and not app._warncount:
        unclean(app).unlink(missing_ok=True)


def setup(app) -> dict:
    """Connect everything."""
    app.connect("builder-inited", begin)
    app.connect("env-get-outdated", outdated)
    app.connect("source-read", stamp, priority=100)
    app.connect("build-finished", end)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
