"""Open checkpoints by name: `%(prog)s` lists them, `%(prog)s NAME OUT` fetches one and exports it for `--weights OUT`.

Connections are opened to the listed addresses alone. Nothing in what is fetched is run. If the connection breaks, what
has arrived is kept: repeat the command to go on.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..card_file import read_card
from ..errors import WeightsError
from ..options import given_path
from .download import check, download
from .plain import read_json
from .program import or_exit
from .registry import FLARE, OWN, Entry, Part, entries, entry
from .unpack import unpack
from .write import DATASET, workshop

DOWNLOADS = ".downloads"  # in OUT, gone when a network is exported


def fetch(asked: Entry, out: Path, *, labels: str = OWN, given: Path | None = None) -> list[Path]:
    """Fetch the networks of an entry and export them to folders in `out`. Returns these.

    labels  OWN: values as its authors have them; FLARE: those of FLARE, and background where it has none. Networks
            without any label then are left out
    given   a folder that has the files already; nothing is fetched then
    Networks that were exported before are kept. Raises WeightsError if a file is not available, is not the one known or
    not a network that inference can run, OutputError if something cannot be written.
    """
    wanted = asked.wanted(labels)
    if not wanted:
        names = ", ".join(asked.networks)
        raise WeightsError(
            f"no label of {names} is one of FLARE's: fetch it without --labels flare, with its own values"
        )
    for name, part in wanted.items():
        folder = out / name
        values = part.values(labels)
        if _is_there(folder, asked, values):
            print(f"{folder}: exists already")
        else:
            _fetch_one(asked, part, folder, values, given)
    return [out / name for name in wanted]


def _is_there(folder: Path, asked: Entry, values: Mapping[str, int]) -> bool:
    """Whether a folder holds this network, exported with these values."""
    try:
        card = read_card(folder)
    except WeightsError:
        return False
    return {label.name: label.value for label in card.labels[1:]} == values and card.trained_on == _origin(asked)


def _origin(asked: Entry) -> str:
    return f"{asked.trained_on}. {asked.licence}, {asked.page}"


def _fetch_one(asked: Entry, part: Part, folder: Path, values: Mapping[str, int], given: Path | None) -> None:
    from . import needs  # noqa: F401  # isort: skip
    from .convert import export, print_card  # PyTorch: a list needs none
    from .guide import look_near

    downloads = folder.parent / DOWNLOADS / folder.name
    with workshop(folder) as made:
        for remote in part.files:
            file = downloads / remote.name if given is None else _given(given, remote.name)
            if given is None:
                print(f"{remote.url} -> {file}")
                download(remote, file, print)
            try:
                check(remote, file, print)
                if remote.place is None:
                    unpack(file, made)
            except WeightsError:
                if given is None:
                    file.unlink()  # or a second call would find it again
                raise
            if remote.place is not None:
                (made / remote.place).parent.mkdir(exist_ok=True)
                shutil.copyfile(file, made / remote.place)
        try:
            _complete(made / DATASET, part, asked.step)
            export(made, folder, fold="all", orientation=asked.orientation, values=values, trained_on=_origin(asked))
        except WeightsError as error:  # names a folder that is gone by now
            origin = file if remote.place is None else given or downloads
            raise WeightsError(str(error).replace(str(made), str(origin))) from error
    print_card(folder)
    if part.near:
        look_near(folder, part.near)
        print(f"It looks near these alone: {', '.join(part.near)}. --plan dense looks everywhere.")
    shutil.rmtree(downloads, ignore_errors=True)
    if given is None and not any(downloads.parent.iterdir()):
        downloads.parent.rmdir()


def _given(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise WeightsError(f"{folder / name} is missing")
    return folder / name


def _complete(dataset: Path, part: Part, step: float | None) -> None:
    """Give the labels the names that the registry has, and the windows its step. Raises WeightsError where there are
    more labels or fewer."""
    fields = read_json(dataset)
    found = fields.get("labels")
    if isinstance(found, dict):
        found.pop("ignore", None)  # voxels that the training passed over: no channel is theirs
    if not isinstance(found, dict) or sorted(map(str, found.values())) != sorted(map(str, range(len(part.labels) + 1))):
        raise WeightsError(f"{dataset} has other labels than the {len(part.labels)} known here: it is another network")
    named = {name: index for index, name in enumerate(("background", *part.labels))}
    own = {"labels": named} | ({} if step is None else {"step": step})
    dataset.write_text(json.dumps(fields | own))


def _list() -> None:
    for name, one in entries().items():
        print(f"{name} ({one.size}, {one.licence}, {one.page})\n    {one.segments}")
    print("--list NAME has the addresses, and what to cite.")


def _show(name: str) -> None:
    one = entry(name)
    print(f"{name}: {one.segments}\n{one.size}, {one.licence}, {one.page}\ncite: {one.cite}\n{one.trained_on}")
    for network, part in one.networks.items():
        labels = [f"{value} {label}" for label, value in part.values(OWN).items() if value]
        print(f"network {network}: {', '.join(labels)}")
        for remote in part.files:
            print(f"    {remote.url}")


def run(options: argparse.Namespace) -> None:
    if options.name is None:
        _list()
    elif options.list:
        _show(options.name)
    else:
        asked = entry(options.name)
        fetch(asked, options.out, labels=options.labels, given=options.given)
        print(f"Licence {asked.licence}; please cite {asked.cite}")


def main() -> None:
    package = (__package__ or "").partition(".")[0]
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}.export.fetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a name from the list")
    parser.add_argument("out", nargs="?", type=given_path, metavar="OUT", help="folder of networks, created if missing")
    parser.add_argument(
        "--list", action="store_true", help="list all names; with NAME, its labels, addresses and what to cite"
    )
    parser.add_argument(
        "--labels", choices=(OWN, FLARE), default=OWN, help="label values: its own (default) or FLARE's"
    )
    parser.add_argument(
        "--from", dest="given", type=given_path, metavar="FOLDER", help="take downloaded files from here"
    )
    options = parser.parse_args()
    if options.name and options.out is None and not options.list:
        parser.error("give the folder OUT as well")
    or_exit(run, options)


if __name__ == "__main__":
    main()
