"""A web server on this machine, with the habits of those that files are fetched from: parts, versions, cut connections.

It is a real one, over a real socket: http.server in a thread.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """What the server has and does.

    files       path -> bytes
    cuts        after how many bytes each answer in turn ends early; none left: whole
    statuses    of each answer in turn, instead of a file; none left: the file
    etag        version of every file, None: the server names none
    ranges      whether parts are given
    shift       by how many bytes a part begins later than it was asked for
    moved       path -> address that it sends to
    lengthless  whether the size is left unsaid
    asked       (path, Range) of every request
    """

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    etag: str | None = '"1"'
    ranges: bool = True
    shift: int = 0
    moved: dict[str, str] = field(default_factory=dict)
    lengthless: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def served() -> Iterator[Web]:
    """A server until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            web.asked.append((self.path, wanted))
            if web.statuses:
                self.send_error(web.statuses.pop(0))
                return
            if self.path in web.moved:
                self.send_response(302)
                self.send_header("Location", web.moved[self.path])
                self.end_headers()
                return
            content = web.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start, size = 0, len(content)
            if wanted and web.ranges and self.headers.get("If-Range") == web.etag:
                found = re.fullmatch(r"bytes=(\d+)-", wanted)
                assert found
                start = int(found[1]) + web.shift
            if start and start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            if not web.lengthless:
                self.send_header("Content-Length", str(size - start))
            if web.etag:
                self.send_header("ETag", web.etag)
            self.end_headers()
            part = content[start:]
            if web.cuts:
                part = part[: web.cuts.pop(0)]
            self.wfile.write(part)
            self.close_connection = True

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web = Web(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
