"""A server on this machine, for tests of what talks to one: connections break off and files are missing on cue."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ToyServer(http.server.ThreadingHTTPServer):
    """Gives out ``files``, of which it knows ranges."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes | int] = {}  # path -> content, or the status of a refusal
        self.breaks: list[int] = []  # after how many bytes the next files break off
        self.ranges = True
        self.asked: list[str | None] = []  # the Range of each file that was asked for
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator["ToyServer"]:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()

    def page(self, path: str) -> bytes | None:
        """What is made up for ``path``, if it is no file."""

    def headers_of(self, path: str) -> dict[str, str]:
        """What HEAD tells of the file."""
        return {}


class Handler(http.server.BaseHTTPRequestHandler):
    server: ToyServer

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.send_response(200)
        for name, value in self.server.headers_of(self.place).items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self):
        page = self.server.page(self.place)
        if page is not None:
            return self.answer(200, page)
        content, start, span = self.server.files[self.place], 0, self.headers.get("Range")
        self.server.asked.append(span)
        if isinstance(content, int):
            return self.answer(content, b"")
        if span and self.server.ranges:
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.answer(416, b"")
        return self.answer(206 if start else 200, content[start:], self.server.breaks)

    @property
    def place(self) -> str:
        return self.path.lstrip("/").split("?")[0]

    def answer(self, status, content, breaks=()):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: breaks.pop(0)] if breaks else content)
        self.close_connection = True
