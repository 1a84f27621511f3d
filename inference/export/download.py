"""One file from an address, resumed where it was cut off, also by a later call."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import WeightsError
from ..formats.atomic import writing
from ..version import __version__
from .registry import Remote
from .write import sha256

MOST_BYTES = 4 << 30  # of a file whose size is not known
TRIES = 5  # in a row that bring nothing
TIMEOUT = 60.0  # seconds without a byte
CHUNK = 1 << 20

Say = Callable[[str], None]


class _CutError(Exception):
    """The connection ended, or there was none; trying again may help."""


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows nobody from HTTPS to HTTP, where anybody between could put in another file."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise WeightsError(f"{req.full_url} leads to {newurl}, which is not HTTPS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(remote: Remote, file: Path, say: Say, *, pause: float = 1.0) -> None:
    """Bring a file to `file`, whose size and digest are then those known, if any are.

    Beside it lie, until it is complete, what has come so far (`.part`) and what the server calls this version of it
    (`.part.etag`): only of the same version is the rest asked for. Proxies are those of the environment.

    say    is told how far it is, and a digest that was not known before
    pause  seconds before a second try, and twice as many before each further one
    Raises WeightsError where the server does not give the file or gives another one, OutputError where it cannot be
    written.
    """
    part = file.with_name(f"{file.name}.part")
    tries = 0
    with writing(str(file)):
        file.parent.mkdir(parents=True, exist_ok=True)
        while not file.exists():
            before = _size(part)
            try:
                _receive(remote, part, say)
            except _CutError as error:
                tries = 1 if _size(part) > before else tries + 1
                if tries == TRIES:
                    raise WeightsError(f"{remote.url} cannot be fetched: {error}; what has come is kept, "
                                       "call again to go on") from error  # fmt: skip
                say(f"{file.name}: {error}, trying again")
                time.sleep(pause * 2 ** (tries - 1))
            else:
                part.replace(file)
                _etag(part).unlink(missing_ok=True)


def check(remote: Remote, file: Path, say: Say) -> None:
    """Compare a file with what is known of it. Raises WeightsError where it is another."""
    try:
        size, digest = file.stat().st_size, sha256(file)
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror}") from error
    if remote.bytes is not None and size != remote.bytes:
        raise WeightsError(f"{file} has {size:,} bytes, and the file known here has {remote.bytes:,}: it is another")
    if remote.sha256 is None:
        only = "size and address vouch" if remote.bytes else "address vouches"
        say(f"{file.name}: sha256 {digest}. No digest of it is known here, only its {only} for it: keep it to compare.")
    elif digest != remote.sha256:
        raise WeightsError(f"{file} is damaged or another file: its sha256 is {digest}, known is {remote.sha256}")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _etag(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _receive(remote: Remote, part: Path, say: Say) -> None:
    """Add what is missing to `part`. Raises _CutError, WeightsError, and OSError where it cannot be written."""
    etag = _etag(part)
    if not etag.exists():  # whatever lies there may be another version
        part.unlink(missing_ok=True)
    start = _size(part)
    headers = {"User-Agent": f"viscera/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": etag.read_text()}
    answer = _open(urllib.request.Request(remote.url, headers=headers), part)
    if answer is None:
        return
    with answer:
        if answer.status != 206:
            start = 0
        total = _total(answer, start)
        most = remote.bytes or MOST_BYTES
        if total is not None and (total > most or remote.bytes not in (None, total)):
            limit = "at most are taken" if remote.bytes is None else "are known of it: it is another file"
            raise WeightsError(f"{remote.url} has {total:,} bytes now, and {most:,} {limit}")
        if start == 0:
            etag.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
            version = answer.headers.get("ETag", "")
            if not version or version.startswith("W/"):  # a weak one does not stand for bytes
                version = answer.headers.get("Last-Modified", "")
            if version:
                etag.write_text(version)
        _copy(answer, part, start, total, most, say)


def _open(request: urllib.request.Request, part: Path) -> http.client.HTTPResponse | None:
    """The server's answer; None where it says that all is there already. Raises _CutError and WeightsError."""
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        answer: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # nothing follows
                if error.headers.get("Content-Range") == f"bytes */{_size(part)}":
                    return None
                _etag(part).unlink(missing_ok=True)
                raise _CutError("the server has another file now") from error
            if error.code in (408, 429) or error.code >= 500:
                raise _CutError(f"the server says {error.code} {error.reason}") from error
            said = f"the server says {error.code} {error.reason}"
            raise WeightsError(f"{request.full_url} cannot be fetched: {said}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _CutError(_reason(error)) from error
    return answer


def _total(answer: http.client.HTTPResponse, start: int) -> int | None:
    """The size of the whole file, None where the server does not say. Raises _CutError where it sends another part."""
    if start == 0:
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    if not found or int(found[1]) != start:
        raise _CutError("the server sent a different part of the file than was asked for")
    return int(found[2])


def _copy(answer: Any, part: Path, start: int, total: int | None, most: int, say: Say) -> None:
    done, shown = start, time.monotonic()
    with part.open("ab") as to:
        while True:
            try:
                chunk = answer.read(CHUNK)
            except (http.client.HTTPException, OSError) as error:
                raise _CutError(_reason(error)) from error
            if not chunk:
                break
            done += len(chunk)
            if done > most:
                raise WeightsError(f"{answer.url} goes on after {most:,} bytes: it is another file")
            to.write(chunk)
            if time.monotonic() > shown + 5:
                shown = time.monotonic()
                of = f" of {total / 1e6:.0f}" if total else ""
                say(f"{part.stem}: {done / 1e6:.0f}{of} MB")
    if total is not None and done < total:
        raise _CutError(f"the connection was cut off after {done:,} of {total:,} bytes")


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason or type(reason).__name__)
