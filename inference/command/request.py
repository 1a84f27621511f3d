"""What the command line asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..names import FORMATS, LAYOUTS
from ..options import Options
from .part import Part


@dataclass(frozen=True)
class Request:
    """One call of the command.

    names       of cases: only these
    scans       pattern of the paths of scans below INPUTS; None: those of INPUTS itself
    name_by     the tag by whose value scans of DICOM are named
    part        of those, the cases of this part; None: all
    formats     of the label maps, of names.FORMATS, and those of FOLDERS that are asked for
    layout      of the outputs, of names.LAYOUTS
    resume      keep labels that fit
    empty       a failed case gets an empty label map
    timeout     s without progress after which a case fails
    workers     processes that segment at the same time, at most; None: as many as pay
    scheduler   of Dask, whose workers segment: "local", "slurm" or an address; None: processes of this command
    progress    how it is reported, of progress.KINDS
    json        file of all records
    sidecar     write records beside the labels, summary.json and measurements.csv
    hash_names  in logs and records
    """

    inputs: Path
    outputs: Path
    options: Options
    names: tuple[str, ...] = ()
    scans: str | None = None
    name_by: str | None = None
    part: Part | None = None
    formats: tuple[str, ...] = FORMATS[:1]
    layout: str = LAYOUTS[0]
    resume: bool = False
    empty: bool = False
    timeout: float = 600.0
    workers: int | None = 1
    scheduler: str | None = None
    progress: str = "text"
    json: Path | None = None
    sidecar: bool = True
    hash_names: bool = False
