"""A server on this machine, for tests of what talks to one: connections break off and files are missing on cue."""

import hashlib
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
        self.etags = True  # whether it tells the files' validators
        self.if_range = True  # whether it minds If-Range
        self.chunked = False  # whether it leaves out the length
        self.extra: dict[str, str] = {}  # headers of each file's answer, instead of its own
        self.redirects: dict[str, str] = {}  # path -> where it leads
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
        if self.place in self.server.redirects:
            return self.redirect()
        content, start, span = self.server.files[self.place], 0, self.headers.get("Range")
        self.server.asked.append(span)
        if isinstance(content, int):
            return self.answer(content, b"")
        headers, tag = {}, f'"{hashlib.sha256(content).hexdigest()}"'
        if self.server.etags:
            headers["ETag"] = tag
        same = not self.server.if_range or self.headers.get("If-Range", tag) == tag
        if span and self.server.ranges and same:
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.answer(416, b"", headers={"Content-Range": f"bytes */{len(content)}"})
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers |= self.server.extra
        return self.answer(206 if start else 200, content[start:], self.server.breaks, headers)

    def redirect(self):
        self.send_response(302)
        self.send_header("Location", self.server.redirects[self.place])
        self.end_headers()

    @property
    def place(self) -> str:
        return self.path.lstrip("/").split("?")[0]

    def answer(self, status, content, breaks=(), headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if not (headers and self.server.chunked):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: breaks.pop(0)] if breaks else content)
        self.close_connection = True
