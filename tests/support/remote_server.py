"""A web server that takes files, as WebDAV servers and object stores do, and that can be made to fail."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class RemoteServer(ThreadingHTTPServer):
    """Keeps below `root` what it is given. It wants directories to be made first if it `has_directories`.

    `fail` says with which status to answer a request (None: none), `seen` is told after each change; `asked` are all
    requests that were answered well, as method and place.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.has_directories = False
        self.credentials: tuple[str, str] | None = None
        self.fail: Callable[[str, str], int | None] = lambda method, place: None
        self.seen: Callable[[str], None] = lambda place: None
        self.asked: list[tuple[str, str]] = []
        self.headers: dict[str, dict[str, str]] = {}
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/mirror"


class _Handler(BaseHTTPRequestHandler):
    server: RemoteServer
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        # All of it is read, whatever the answer: the connection goes on.
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer("PUT", lambda file: self._put(file, content))

    def do_DELETE(self) -> None:
        self._answer("DELETE", self._delete)

    def do_MKCOL(self) -> None:
        self._answer("MKCOL", self._make)

    def _put(self, file: Path, content: bytes) -> int:
        if self.server.has_directories and not file.parent.is_dir():
            return 409
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(file.name + ".coming")
        beside.write_bytes(content)
        beside.rename(file)
        self.server.headers[str(file.relative_to(self.server.root))] = dict(self.headers)
        return 201

    def _delete(self, file: Path) -> int:
        if not file.exists():
            return 404
        file.unlink()
        return 204

    def _make(self, directory: Path) -> int:
        if directory.is_dir():
            return 405
        directory.mkdir()
        return 201

    def _answer(self, method: str, act: Callable[[Path], int]) -> None:
        place = unquote(self.path).removeprefix("/mirror").strip("/")
        wanted = self.server.credentials
        given = self.headers["Authorization"]
        with self.server.lock:
            if wanted is not None and given != "Basic " + base64.b64encode(":".join(wanted).encode()).decode():
                status = 401
            else:
                status = self.server.fail(method, place) or act(self.server.root / place)
            if status < 300:
                self.server.asked.append((method, place))
                self.server.seen(place)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def remote_server(root: Path) -> Iterator[RemoteServer]:
    """A server that runs."""
    root.mkdir(parents=True, exist_ok=True)
    server = RemoteServer(root)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
