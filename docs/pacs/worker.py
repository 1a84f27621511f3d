"""Segments every CT series that an Orthanc server gets, and sends the DICOM SEG back to it. Standard library only.

    python3 docs/pacs/worker.py http://localhost:8042 -- viscera [flags]

What comes after -- is the command with its flags; INPUTS, OUTPUTS and --format are added. ORTHANC_USER and
ORTHANC_PASSWORD in the environment are those of the server. See docs/pacs.md.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

FORMATS = {"seg": "seg.dcm", "rtstruct": "rtstruct.dcm", "sr": "sr.dcm"}
FEWEST = 8  # slices of a volume
TIMEOUT = 60.0  # s for an answer of the server
NOT_THE_SERIES = 401, 502, 503  # wrong password, or a server that is not there yet: every series would fail


class Server:
    """Orthanc's REST API (orthanc.uclouvain.be/book/users/rest.html)."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        user, password = os.environ.get("ORTHANC_USER", ""), os.environ.get("ORTHANC_PASSWORD", "")
        code = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.headers = {"Authorization": f"Basic {code}"} if user else {}

    def ask(self, path: str, data: bytes | None = None) -> bytes:
        """The answer to GET, or with data to POST. Raises URLError."""
        with urlopen(Request(self.address + path, data, self.headers), timeout=TIMEOUT) as answer:
            return bytes(answer.read())

    def json(self, path: str, data: bytes | None = None) -> Any:
        return json.loads(self.ask(path, data))

    def stable_series(self, since: int) -> Iterator[tuple[int, str | None]]:
        """Numbers of changes after `since`, and the series that became complete with each, if one did."""
        while True:
            found = self.json(f"/changes?since={since}&limit=100")
            for change in found["Changes"]:
                since = change["Seq"]
                yield since, change["ID"] if change["ChangeType"] == "StableSeries" else None
            if found["Done"]:
                return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="address of Orthanc, such as http://localhost:8042")
    parser.add_argument("command", nargs="+", help="after --: viscera with its flags")
    parser.add_argument("--formats", type=names, default="seg", help="what is sent back, of seg, rtstruct and sr (seg)")
    parser.add_argument("--state", type=Path, default=Path("worker.state"), help="file that holds what was done")
    parser.add_argument("--once", action="store_true", help="end when nothing is left to do")
    parser.add_argument("--wait", type=float, default=5.0, help="seconds between two looks at the server (5)")
    given = parser.parse_args()
    server, failed = Server(given.server), 0
    seen = int(given.state.read_text()) if given.state.exists() else 0
    while True:
        try:
            for number, series in server.stable_series(seen):
                if series and not attempt(server, series, given.command, given.formats):
                    failed += 1
                seen = number
                remember(given.state, seen)
        except (URLError, OSError) as error:  # restarted, or not there yet: the series is tried again
            print(f"{given.server}: {error}", file=sys.stderr, flush=True)
            if given.once:
                return 1
        if given.once:
            return 1 if failed else 0
        time.sleep(given.wait)


def names(text: str) -> list[str]:
    """Of FORMATS. Refused here, since the command would refuse them series by series."""
    found = text.split(",")
    if unknown := [name for name in found if name not in FORMATS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(FORMATS)}")
    if "sr" in found and "seg" not in found:
        raise argparse.ArgumentTypeError("sr refers to the segments of a DICOM SEG: name seg as well")
    return found


def remember(state: Path, number: int) -> None:
    part = state.with_name(state.name + ".part")
    part.write_text(str(number))
    part.replace(state)


def attempt(server: Server, series: str, command: list[str], formats: list[str]) -> bool:
    """As `segment`; False as well where the server refuses what concerns this series alone: it was deleted meanwhile,
    or what was made of it is not taken."""
    try:
        return segment(server, series, command, formats)
    except HTTPError as error:
        if error.code in NOT_THE_SERIES:
            raise
        print(f"series {series}: {error}", file=sys.stderr, flush=True)
        return False


def segment(server: Server, series: str, command: list[str], formats: list[str]) -> bool:
    """Segment one series and send back what was made; False where that failed. Raises URLError."""
    about = server.json(f"/series/{series}")
    if about["MainDicomTags"].get("Modality") != "CT" or len(about["Instances"]) < FEWEST:
        return True  # what this worker sends comes by here, too
    with TemporaryDirectory() as folder:
        slices, out = Path(folder, "series"), Path(folder, "out")
        slices.mkdir()
        for number, instance in enumerate(about["Instances"]):
            (slices / f"{number:05}.dcm").write_bytes(server.ask(f"/instances/{instance}/file"))
        done = subprocess.run(
            [*command, str(slices), str(out), "--format", ",".join(formats), "--hash-names"], check=False
        )
        made = [path for name in formats for path in sorted(out.glob(f"*.{FORMATS[name]}"))]
        for path in made:
            server.ask("/instances", path.read_bytes())
    print(f"series {series}: exit code {done.returncode}, {len(made)} sent", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
