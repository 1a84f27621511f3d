"""Files from a web server: whole and the right ones, resumed where they were cut off, or an error that says what is
wrong."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.errors import OutputError, WeightsError
from inference.export.download import TRIES, check, download
from inference.export.registry import Remote
from tests.made.web import Web, served

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with served() as web:
        web.files["/a.zip"] = CONTENT
        yield web


def fetched(web: Web, file: Path, **known: object) -> list[str]:
    """Download /a.zip; returns what was said."""
    said: list[str] = []
    remote = Remote(f"{web.address}/a.zip", **known)  # type: ignore[arg-type]
    download(remote, file, said.append, pause=0)
    check(remote, file, said.append)
    return said


def test_a_file_is_written_and_its_unknown_digest_told(web: Web, tmp_path: Path) -> None:
    said = fetched(web, tmp_path / "new" / "a.zip")
    assert (tmp_path / "new" / "a.zip").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.zip"]
    assert hashlib.sha256(CONTENT).hexdigest() in said[-1] and "No digest of it is known" in said[-1]


def test_a_known_digest_is_compared_and_not_told(web: Web, tmp_path: Path) -> None:
    assert not fetched(web, tmp_path / "a", sha256=hashlib.sha256(CONTENT).hexdigest(), bytes=len(CONTENT))
    with pytest.raises(WeightsError, match="damaged or another file: its sha256 is"):
        fetched(web, tmp_path / "b", sha256="0" * 64)


def test_a_cut_connection_is_resumed_where_it_ended(web: Web, tmp_path: Path) -> None:
    web.cuts = [3000, 2000]
    fetched(web, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [wanted for _, wanted in web.asked] == [None, "bytes=3000-", "bytes=5000-"]


def test_a_connection_may_be_cut_often_while_it_brings_something(web: Web, tmp_path: Path) -> None:
    web.cuts = [1000] * (TRIES + 2)
    fetched(web, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_that_sends_another_part_is_not_believed(web: Web, tmp_path: Path) -> None:
    web.cuts, web.shift = [3000], 1
    with pytest.raises(WeightsError, match="the server sent a different part of the file than was asked for"):
        fetched(web, tmp_path / "a.zip")


def test_a_later_call_goes_on(web: Web, tmp_path: Path) -> None:
    web.cuts = [3000] + [0] * TRIES
    with pytest.raises(WeightsError, match="cut off after 3,000 of 10,240 bytes; what has come is kept"):
        fetched(web, tmp_path / "a.zip")
    web.cuts = []
    fetched(web, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert web.asked[-1] == ("/a.zip", "bytes=3000-")


@pytest.mark.parametrize("ranges", [True, False])
def test_another_version_is_fetched_from_its_beginning(web: Web, tmp_path: Path, ranges: bool) -> None:
    """Half of one file and half of the next would be neither."""
    web.cuts = [3000] + [0] * TRIES
    with pytest.raises(WeightsError):
        fetched(web, tmp_path / "a.zip")
    web.files["/a.zip"], web.etag, web.cuts, web.ranges = CONTENT[::-1], '"2"', [], ranges
    fetched(web, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_a_server_that_names_no_version_is_asked_for_the_whole(web: Web, tmp_path: Path, etag: str | None) -> None:
    web.etag, web.cuts = etag, [3000]
    fetched(web, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [wanted for _, wanted in web.asked] == [None, None]


def test_a_file_that_is_complete_but_for_its_name_is_taken(web: Web, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    (tmp_path / "a.zip.part.etag").write_text('"1"')
    fetched(web, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_longer_part_than_the_file_is_thrown_away(web: Web, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT * 2)
    (tmp_path / "a.zip.part.etag").write_text('"1"')
    fetched(web, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(web: Web, tmp_path: Path) -> None:
    web.statuses = [503, 429]
    said = fetched(web, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert said[0] == "a.zip: the server says 503 Service Unavailable, trying again"


def test_what_is_not_there_is_told_once(web: Web, tmp_path: Path) -> None:
    del web.files["/a.zip"]
    with pytest.raises(WeightsError, match=r"/a.zip cannot be fetched: the server says 404 Not Found"):
        fetched(web, tmp_path / "a.zip")
    assert len(web.asked) == 1


def test_no_server_is_told(tmp_path: Path) -> None:
    with served() as web:
        address = web.address
    with pytest.raises(WeightsError, match="cannot be fetched: Connection refused"):
        download(Remote(f"{address}/a.zip"), tmp_path / "a.zip", print, pause=0)


@pytest.mark.parametrize("lengthless", [True, False])
def test_a_file_of_another_size_is_refused(web: Web, tmp_path: Path, lengthless: bool) -> None:
    web.lengthless = lengthless
    message = "goes on after 100 bytes" if lengthless else "has 10,240 bytes now, and 100 are known of it"
    with pytest.raises(WeightsError, match=message):
        fetched(web, tmp_path / "a.zip", bytes=100)
    assert not (tmp_path / "a.zip").exists()
    web.lengthless = True
    with pytest.raises(WeightsError, match=r"has 10,240 bytes, and the file known here has 20,000"):
        fetched(web, tmp_path / "b.zip", bytes=20000)


def test_redirects_are_followed(web: Web, tmp_path: Path) -> None:
    """A release of GitHub leads to another server."""
    web.moved["/a.zip"], web.files["/b"] = f"{web.address}/b", CONTENT
    web.cuts = [3000]
    fetched(web, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert web.asked[-1] == ("/b", "bytes=3000-")


def test_nobody_is_followed_from_https_to_http(web: Web) -> None:
    from urllib.request import Request

    from inference.export.download import _SafeRedirects

    with pytest.raises(WeightsError, match="which is not HTTPS"):
        _SafeRedirects().redirect_request(Request("https://a.org/b"), None, 302, "", {}, f"{web.address}/a.zip")


def test_a_proxy_of_the_environment_is_used(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", web.address)
    monkeypatch.delenv("no_proxy", raising=False)
    web.files["http://nowhere.invalid/a.zip"] = CONTENT
    download(Remote("http://nowhere.invalid/a.zip"), tmp_path / "a.zip", print, pause=0)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_full_disk_and_a_folder_that_cannot_be_made_are_told(web: Web, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written: (Not a directory|File exists)"):
        fetched(web, tmp_path / "file" / "a.zip")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(OutputError, match=r"a.zip cannot be written: File too large"):
            fetched(web, tmp_path / "a.zip")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    fetched(web, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
