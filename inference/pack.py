"""Networks in one file, to send and to keep: `%(prog)s WEIGHTS FILE`, and then `--weights FILE`.

The file is a ZIP archive of the networks in the folder WEIGHTS: graphs, cards with the sha256 of every graph, and what
their labels are in SNOMED CT, as labels.json. It holds no pickle, and using it takes no PyTorch. The same networks make
the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from .card import Card
from .card_file import FILE_NAME, read_card
from .cards import EXPORT_FIRST, networks_in, no_network, with_earlier
from .errors import OutputError, VisceraError, WeightsError, end_tidily, shown
from .labels import structures
from .options import given_path

SOURCES = ("plans.json", "dataset.json")  # of an export, for the way back to nnU-Net
LABELS = "labels.json"
MOST_BYTES = 8 << 30  # of all files in an archive
CHECKPOINT = "is a checkpoint: export the folder of its model, then give the folder that the network is in"
# What is given in place of a folder of networks, by ending.
MISTAKEN = {
    ".pth": CHECKPOINT,
    ".pt": CHECKPOINT,
    ".model": CHECKPOINT,
    ".onnx": "is a graph, part of a network: give the folder that the network's folder is in",
}
WHEN = (1980, 1, 1, 0, 0, 0)  # the same for every file, so that the same networks make the same bytes


def pack(weights: Path, file: Path) -> list[Card]:
    """Write the networks in a folder to `file`, whole or not at all. Returns their cards.

    Raises WeightsError where there is none or one is damaged, OutputError where the file cannot be written, or is there
    already and is anything but an earlier file of networks.
    """
    found = [read_card(weights / name) for name in networks_in(weights)]
    if not found:
        raise WeightsError(no_network(weights))
    if os.path.lexists(file) and not _is_packed(file):
        raise OutputError(f"{file} exists already and is not a file of networks: choose another name")
    cards = list({card.name: card for card in with_earlier(found)}.values())
    part = file.with_name(f".{file.name}.part")
    try:
        with zipfile.ZipFile(part, "w") as archive:
            for card in cards:
                sources = (card.folder / name for name in SOURCES)
                graphs = (card.file(name) for name in sorted(card.files))
                for path in (card.folder / FILE_NAME, *filter(Path.is_file, sources), *graphs):
                    entry = zipfile.ZipInfo(f"{card.name}/{path.name}", WHEN)
                    with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as to:
                        shutil.copyfileobj(source, to)
            archive.writestr(zipfile.ZipInfo(LABELS, WHEN), json.dumps(_labels(cards), indent=2) + "\n")
        part.replace(file)
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):  # where nothing could be written nothing is there
            part.unlink(missing_ok=True)
    return cards


def _is_packed(file: Path) -> bool:
    """Whether it is a file of networks, which another one may replace."""
    try:
        if not file.is_file():  # a pipe would be waited for
            return False
        with zipfile.ZipFile(file) as archive:
            return LABELS in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _labels(cards: list[Card]) -> dict[str, list[dict[str, object]]]:
    """Network -> its labels, with titles, colours and codes."""
    return {card.name: [asdict(one) for one in structures(card.names)] for card in cards}


@contextmanager
def unpacked(weights: Path) -> Iterator[Path]:
    """The folder of the networks in a file that `pack` made, gone at the end; `weights` itself where it is no file.

    Raises WeightsError where the file is something else or damaged, or cannot be unpacked.
    """
    if not weights.is_file():
        yield weights
        return
    if why := MISTAKEN.get(weights.suffix):
        raise WeightsError(f"{weights} {why}")
    try:
        folder = Path(tempfile.mkdtemp(prefix="viscera-weights-"))
    except OSError as error:
        raise WeightsError(f"{weights} cannot be unpacked: {error.strerror}; unpack it and give its folder") from error
    try:
        _unpack(weights, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(file: Path, folder: Path) -> None:
    """Take out of an archive what its cards name, and nothing else. Digests are checked when a network is loaded."""
    try:
        with zipfile.ZipFile(file) as archive:
            every = archive.namelist()
            if sum(info.file_size for info in archive.infolist()) > MOST_BYTES:
                raise WeightsError(f"{file} would unpack to more than {MOST_BYTES >> 30} GB")
            names = [name.removesuffix(f"/{FILE_NAME}") for name in every if name.endswith(f"/{FILE_NAME}")]
            if not names and any(name.endswith(("/plans.json", "/plans.pkl")) for name in every):
                raise WeightsError(f"{file} is an archive of nnU-Net: unpack it, {EXPORT_FIRST}")
            if not names:
                raise WeightsError(f"{file} holds no network: NAME/{FILE_NAME} was looked for")
            for name in names:
                _take(archive, folder, name, FILE_NAME)
            for name in names:  # now, since the card of one may need that of another
                wanted = [*read_card(folder / name).files, *(one for one in SOURCES if f"{name}/{one}" in every)]
                for one in wanted:
                    _take(archive, folder, name, one)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:  # RuntimeError: encrypted
        raise WeightsError(f"{file} is damaged or not a file of networks: {error}") from error
    except OSError as error:
        raise WeightsError(f"{file} cannot be unpacked: {error.strerror or error}") from error


def _take(archive: zipfile.ZipFile, folder: Path, network: str, name: str) -> None:
    """Write one file of a network, or of its guide, to the folder, if it has a name that stays within."""
    for part in (*network.split("/"), name):
        if part in ("", ".", "..") or set(part) & set("/\\:\0"):
            raise WeightsError(f"{archive.filename} holds {shown(part)}, which is not the name of a file or a network")
    try:
        source = archive.open(f"{network}/{name}")
    except KeyError as error:
        raise WeightsError(f"{archive.filename} is incomplete: {network}/{name} is missing") from error
    (folder / network).mkdir(parents=True, exist_ok=True)
    with source, (folder / network / name).open("xb") as to:
        shutil.copyfileobj(source, to)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.pack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=given_path, metavar="WEIGHTS", help="folder of exported networks")
    parser.add_argument("file", type=given_path, metavar="FILE", help="the archive, such as liver.zip")
    arguments = parser.parse_args()
    try:
        cards = pack(arguments.weights, arguments.file)
    except VisceraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    size = arguments.file.stat().st_size
    print(f"{arguments.file}: {', '.join(card.name for card in cards)}; {size / 1e6:.1f} MB")


if __name__ == "__main__":
    end_tidily()
    main()
