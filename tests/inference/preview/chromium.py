"""A page on the disk in headless Chromium: what a script in it finds."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=1400,1000",
)  # fmt: skip


def look(page: Path, script: str, folder: Path) -> Any:
    """Open a copy of a page beside it, from file://, and await what the async function of this body returns.

    folder  of Chromium's own files
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    found: list[str] = []
    came = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()
            found.append(unquote(self.path[2:]))
            came.set()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    # The answer comes as the address of an image, the one thing that this copy may ask the server for.
    text = page.read_text().replace("img-src ", f"img-src {address} ", 1)
    tell = f"(answer) => {{ new Image().src = '{address}/?' + encodeURIComponent(JSON.stringify(answer)); }}"
    then = f"then({tell}, (error) => ({tell})(`failed: ${{error.stack}}`))"
    text += f"<script>(async () => {{ {script} }})().{then};</script>"
    copy = page.with_name("copy.html")
    copy.write_text(text)
    process = subprocess.Popen(
        [browser, *FLAGS, f"--user-data-dir={folder}", "--remote-debugging-port=0", copy.as_uri()],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert came.wait(90), "the page does not answer"
    finally:
        process.kill()
        process.wait()
        server.shutdown()
        server.server_close()
        copy.unlink()
    return json.loads(found[0])
