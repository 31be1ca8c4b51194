"""A web server for a folder, as hosts of static pages are: below a path of its own, and with gzip."""

import gzip
import mimetypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

BELOW = "/some/book/"
COMPRESSED = ("text/", "application/javascript", "application/json", "image/svg+xml")


@cache
def _packed(path: Path, modified: int) -> bytes:
    """A file's content as gzip, kept for the next who asks."""
    return gzip.compress(path.read_bytes(), compresslevel=6)


class Handler(BaseHTTPRequestHandler):
    """Answers GET with a file of ``server.folder``."""

    protocol_version = "HTTP/1.1"  # connections stay open

    def do_GET(self) -> None:
        path = self.file()
        if path is None:
            self.answer(404, b"not found", "text/plain")
            return
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        text = kind.startswith(COMPRESSED)
        if text and "gzip" in self.headers.get("Accept-Encoding", ""):
            content, encoding = _packed(path, path.stat().st_mtime_ns), {"Content-Encoding": "gzip"}
        else:
            content, encoding = path.read_bytes(), {}
        self.answer(200, content, kind + "; charset=utf-8" * text, encoding)

    def file(self) -> Path | None:
        """The file that is asked for, if it is in the folder."""
        address = unquote(urlsplit(self.path).path)
        if not address.startswith(BELOW):
            return None
        path = (self.server.folder / address.removeprefix(BELOW)).resolve()
        path = path / "index.html" if path.is_dir() else path
        return path if path.is_file() and path.is_relative_to(self.server.folder) else None

    def answer(self, status: int, content: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Remembers its folder; a browser that hangs up is no error."""

    daemon_threads = True

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback; the address of its index, which ends with a slash, is given."""
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{BELOW}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
