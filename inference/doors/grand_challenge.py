"""Grand Challenge runs an algorithm: as a server that is asked once a case, or as a program that ends after one.

Its rules of 2026 are those of github.com/DIAGNijmegen/demo-challenge-pack: on port 4743 GET /health answers 200 once
networks are loaded, and POST /invoke 201 once the output is there. /input/inputs.json says what a case has; an image is
one file in /input/<relative_path>/, and the output one .mha in a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from ..errors import ALL_FAILED, EngineError, OutputError, ScanError, VisceraError, one_line, shown
from ..names import stem
from ..options import WEIGHTS, given_path
from ..predictor import Predictor
from ..task import segment_file

PORT = 4743
MOST_BODY = 1 << 20  # bytes of a request, which are read and left alone
MOST_TAKEN = 1 << 26  # bytes of a longer one, so that whoever sends it sees the answer


class Algorithm:
    """Networks that are loaded, and where the platform has a case and wants its label map.

    sockets  slugs of the images, one for each channel of the networks; none: the only image that there is
    """

    def __init__(self, predictor: Predictor, inputs: Path, output: Path, sockets: Sequence[str] = ()) -> None:
        self._predictor, self._inputs, self._output, self._sockets = predictor, inputs, output, sockets
        self._turn = threading.Lock()

    def run(self) -> str | None:
        """Segment the case that lies there now. Returns why that failed: a sentence, or None if it did not."""
        try:
            return self._segment()
        except VisceraError as error:
            return str(error)
        except Exception as error:
            traceback.print_exception(error)
            return f"internal error: {type(error).__name__}: {one_line(error)}"

    @property
    def spent(self) -> bool:
        """Whether this process is of no more use, as Predictor has it."""
        return self._predictor.spent

    def _segment(self) -> str | None:
        """As `run`. Raises VisceraError where there is no case."""
        with self._turn:
            self._clear()
            record = segment_file(self._predictor, images(self._inputs, self._sockets), self._output, ["mha"])
        for text in record.warnings:
            print(f"warning: {text}", file=sys.stderr, flush=True)
        if not record.error:
            print(f"segmented {record.case} in {record.seconds['total']:.1f} s", flush=True)
        return record.error

    def _clear(self) -> None:
        """Take away the label map of a case before. Raises OutputError."""
        try:
            for old in self._output.glob("*.mha"):
                old.unlink()
        except OSError as error:
            raise OutputError(f"{shown(self._output)} cannot be written: {error.strerror}") from error


def images(inputs: Path, sockets: Sequence[str] = ()) -> list[Path]:
    """The image files of a case, of these sockets or of the only one. Raises ScanError."""
    places = _places(inputs / "inputs.json")
    if not sockets and len(places) != 1:
        raise ScanError(f"inputs.json has {len(places)} images where one is needed: --socket says which are meant")
    return [_only_file(inputs, places, slug) for slug in sockets or places]


def _places(path: Path) -> dict[str, str]:
    """Slug of each socket that is an image -> folder. Raises ScanError."""
    try:
        entries = [entry["socket"] for entry in json.loads(path.read_bytes())]
        return {str(one["slug"]): str(one["relative_path"]) for one in entries if one["is_image_kind"]}
    except OSError as error:
        raise ScanError(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ScanError(f"{path.name} is not a list of sockets as Grand Challenge writes it") from error


def _only_file(inputs: Path, places: dict[str, str], slug: str) -> Path:
    if slug not in places:
        raise ScanError(f"inputs.json has no image {shown(slug)}, only: {', '.join(map(shown, sorted(places)))}")
    place = PurePosixPath(places[slug])
    if place.is_absolute() or ".." in place.parts or "\0" in places[slug]:
        raise ScanError(f"inputs.json has the image {shown(slug)} outside of /input: refused")
    try:
        files = [file for file in (inputs / place).iterdir() if stem(file.name) and not file.name.startswith(".")]
    except OSError as error:
        raise ScanError(f"{shown(str(place))} cannot be opened: {error.strerror}") from error
    if len(files) != 1:
        raise ScanError(f"{shown(str(place))} holds {len(files)} images of a format that is read (.mha): one is needed")
    return files[0]


def server(algorithm: Algorithm, port: int) -> ThreadingHTTPServer:
    """Listens on every address: the platform calls from another container. It shuts down after a case that leaves this
    process of no more use, once that has been answered."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 60  # s for a request to come

        def do_GET(self) -> None:  # http.server's name
            self._answer(200 if self.path == "/health" else 404)

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "0")
            if (
                "Transfer-Encoding" in self.headers
                or not length.isdecimal()
                or len(length) > 9
                or int(length) > MOST_BODY
            ):
                self._refuse()
                return
            self.rfile.read(int(length))
            if self.path != "/invoke":
                self._answer(404)
            elif why := algorithm.run():
                print(f"error: {why}", file=sys.stderr, flush=True)
                try:
                    self._answer(500, why)
                finally:  # also where nobody waits for the answer any more
                    if algorithm.spent:  # `serve_forever` returns
                        threading.Thread(target=listening.shutdown).start()
            else:
                self._answer(201)

        def _refuse(self) -> None:
            """Of a body that is too long, or does not say how long it is. What has come of it is taken, or the system
            would take back the answer with it."""
            self._answer(413, f"a body of at most {MOST_BODY:,} bytes with its Content-Length is read")
            self.close_connection = True
            with suppress(OSError):
                left = MOST_TAKEN
                while left > 0 and (part := self.rfile.read1(MOST_BODY)):
                    left -= len(part)

        def _answer(self, status: int, text: str = "") -> None:
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Health is asked for again and again, and cases say themselves how they went."""

    listening = ThreadingHTTPServer(("0.0.0.0", port), Handler)  # nosec B104
    listening.daemon_threads = True
    return listening


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as the platform asks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="grand_challenge", description="Viscera on the platform Grand Challenge.")
    parser.add_argument("api", choices=("invoke", "exec"), help="serve on a port, or segment one case and end")
    parser.add_argument("--socket", action="append", default=[], metavar="SLUG", help="image; once for each channel")
    parser.add_argument("--output", type=given_path, default=Path("images/segmentation"), metavar="PATH",
                        help="relative path of the output's socket (default: images/segmentation)")  # fmt: skip
    parser.add_argument(
        "--root", type=given_path, default=Path("/"), metavar="DIR", help="where input, output and opt are"
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"(default: {PORT})")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)  # the first process of a container has no handler but its own
    try:
        predictor = Predictor(weights=_weights(given.root / "opt" / "ml" / "model"))
    except VisceraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    algorithm = Algorithm(predictor, given.root / "input", given.root / "output" / given.output, given.socket)
    if given.api == "exec":
        why = algorithm.run()
        if why:
            print(f"error: {why}", file=sys.stderr)
        return ALL_FAILED if why else 0
    with server(algorithm, given.port) as listening:
        choice = predictor.choice
        print(f"port {listening.server_port}: {choice.device}, {choice.engine}, {choice.precision}", flush=True)
        listening.serve_forever()  # until it is stopped, or the GPU may be lost to this process
    print("error: the GPU may be lost to this process: it ends, to be started again", file=sys.stderr)
    return EngineError.exit_code


def _weights(model: Path) -> Path:
    """The model that was uploaded, where there is one, else the program's own. A model that holds none is refused."""
    return model if model.is_dir() and any(model.iterdir()) else WEIGHTS


def _stop(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    try:
        code: object = main()
    except SystemExit as stop:
        code = stop.code
    sys.stdout.flush()
    if isinstance(code, int) and code > 128:
        os._exit(code)  # nobody waits for a case that is still being segmented
    raise SystemExit(code)
