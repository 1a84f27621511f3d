"""NIfTI-1 and NIfTI-2 headers: every check that needs no voxel, and the header of the label map.

The tables are those of nifti1.h and nifti2.h (nifti.nimh.nih.gov); nibabel knows the fields and data types.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header, data_type_codes
from nibabel.nifti2 import Nifti2Header
from nibabel.quaternions import quat2mat

from ...errors import JOIN, ScanError
from ...scan import SHEAR, Grid, Spacing, check_grid, shear, times
from ..stream import looks_like

# By size of the header: where the magic bytes are, and what they are.
MAGIC = {348: (344, b"n+1\0"), 540: (4, b"n+2\0\r\n\x1a\n")}
LONGEST = 540
EXTENDER = 4  # bytes after the header that say whether extensions follow
MOST_EXTENSIONS = 64 << 20
SCALARS = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}  # data types that hold one real number of at most 64 bits
MATRICES_AND_VECTORS = range(1004, 1012)  # intent codes
MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # by code of the unit of length: unknown, m, mm, micron
HALF_TURN = 1e-7  # square of a quaternion's first number below which it is 0 (nifti_quatern_to_mat44, nifti1_io.c)
SAME = 1e-3  # relative difference of lengths below which two spacings are one
PAIR = (
    "is one half of a pair of .hdr and .img, which is not read; a NIfTI pair is made one file by "
    "python -c \"import nibabel; nibabel.save(nibabel.load('X.hdr'), 'X.nii.gz')\", ANALYZE 7.5 has no orientation"
)
TEXTS = ("data_type", "db_name", "descrip", "aux_file", "intent_name")  # can hold patient data


@dataclass(frozen=True)
class Header:
    """What a NIfTI header says about the voxels and where they lie.

    fields    of the header as nibabel names them, in the file's own byte order
    grid      of the voxels; x is the fastest axis
    offset    bytes from the start of the file to the first voxel
    scaling   slope and intercept, None where the voxels are stored as they are
    warnings  what was odd about it
    """

    fields: Nifti1Header
    grid: Grid
    offset: int
    scaling: tuple[float, float] | None
    warnings: tuple[str, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored voxels, in the file's byte order."""
        return np.dtype(self.fields.get_data_dtype())

    @property
    def voxel_bytes(self) -> int:
        """That the voxels take in the file."""
        return prod(self.grid.shape) * self.dtype.itemsize


def label_header(grid: Grid, origin: Any, slope: float = 1) -> bytes:
    """The header of a label map up to its first voxel: geometry as it stands, uint8, no texts.

    origin  the Header of a scan that was read from NIfTI; anything else: a header is made from the grid
    slope   what a stored 1 means
    """
    fields = origin.fields.copy() if isinstance(origin, Header) else _made(grid)
    for name in TEXTS:
        if name in fields.structarr.dtype.names:
            fields[name] = b""
    fields["datatype"], fields["bitpix"] = 2, 8
    fields["scl_slope"], fields["scl_inter"] = slope, 0
    fields["cal_min"] = fields["cal_max"] = 0
    size = int(fields["sizeof_hdr"])
    fields["vox_offset"] = size + EXTENDER
    return bytes(fields.binaryblock) + bytes(EXTENDER)


def _made(grid: Grid) -> Nifti1Header:
    square = shear(grid) <= SHEAR
    fields = Nifti1Header()
    fields.set_data_shape(grid.shape[::-1])
    fields.set_qform(grid.affine, "scanner" if square else "unknown")  # a quaternion has no shear
    fields.set_sform(grid.affine, "scanner")
    fields.set_xyzt_units("mm")
    fields["magic"] = b"n+1"
    return fields


def parse(block: bytes) -> Header:
    """The header in the first LONGEST bytes of a file. Raises ScanError where no CT can come of it."""
    warnings: list[str] = []
    fields = _fields(block)
    shape = _shape(fields)
    code = int(fields["datatype"])
    if code not in SCALARS:
        label = data_type_codes.label[code] if code in data_type_codes.code else f"code {code}"
        raise ScanError(f"holds data of type {label}: CT is one real number per voxel")
    if int(fields["intent_code"]) in MATRICES_AND_VECTORS:
        raise ScanError(f"holds vectors or matrices (intent code {int(fields['intent_code'])}), not a CT")
    bits = fields.get_data_dtype().itemsize * 8
    if int(fields["bitpix"]) != bits:
        warnings.append(
            f"the header says {int(fields['bitpix'])} bits a voxel, its data type has {bits}: taken as {bits}"
        )
    offset = _offset(fields, warnings)
    scaling = _scaling(fields, warnings)
    affine, spacing = _affine(fields, warnings)
    grid = Grid(shape[::-1], affine, spacing)
    warnings += check_grid(grid)
    return Header(fields, grid, offset, scaling, tuple(warnings))


def _fields(block: bytes) -> Nifti1Header:
    for size, kind in ((348, Nifti1Header), (540, Nifti2Header)):
        for order, mark in (("little", "<"), ("big", ">")):
            if int.from_bytes(block[:4], order) == size:  # type: ignore[arg-type]
                if len(block) < size:
                    raise ScanError(f"is cut off: {len(block)} bytes are less than its header")
                at, magic = MAGIC[size]
                found = block[at : at + len(magic)]
                if found[:3] in (b"ni1", b"ni2"):
                    raise ScanError(PAIR)
                if found != magic:
                    raise ScanError("is not NIfTI (the magic bytes are wrong; ANALYZE 7.5 has no orientation)")
                return kind(block[:size], endianness=mark, check=False)
    if not block:
        raise ScanError("is empty: its gzip stream holds nothing")
    what = looks_like(block)
    if what:
        raise ScanError(f"is not NIfTI: it looks like {what}")
    raise ScanError("is not NIfTI: it does not begin with a NIfTI header")


def _shape(fields: Nifti1Header) -> tuple[int, int, int]:
    dims = [int(dim) for dim in fields["dim"]]
    count, sizes = dims[0], dims[1 : dims[0] + 1]
    if not 1 <= count <= 7:
        raise ScanError(f"has {count} dimensions by its header: broken")
    if min(sizes) < 1:
        raise ScanError(f"has the size {times(sizes)} by its header: broken")
    if count < 3:
        single = times([*sizes, 1, 1][:3])
        text = f"is {count}-D ({times(sizes)}): a scan has three dimensions, a single plane {single} voxels; {JOIN}"
        raise ScanError(text)
    if max(sizes[3:], default=1) > 1:
        raise ScanError(f"is {count}-D ({times(sizes)}): one CT of three dimensions is needed")
    return sizes[0], sizes[1], sizes[2]


def _offset(fields: Nifti1Header, warnings: list[str]) -> int:
    least = int(fields["sizeof_hdr"]) + EXTENDER
    offset = float(fields["vox_offset"])
    if offset == 0:
        warnings.append(f"the header says that voxels begin at byte 0: taken from byte {least}")
        return least
    if not least <= offset <= least + MOST_EXTENSIONS or offset % 16:
        raise ScanError(f"has its voxels at byte {offset:g} by its header: broken")
    return int(offset)


def _scaling(fields: Nifti1Header, warnings: list[str]) -> tuple[float, float] | None:
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    if np.isnan(slope) and np.isnan(inter):  # how nibabel writes "none"
        return None
    if not np.isfinite(inter):
        raise ScanError(f"has the intercept {inter:g}: HU cannot be computed")
    if slope == 0 or not np.isfinite(slope):
        if slope != 0 or inter != 0:
            warnings.append(f"slope {slope:g} means no scaling: intercept {inter:g} is not applied")
        return None
    if (slope, inter) == (1, 0):
        return None
    return slope, inter


def _affine(fields: Nifti1Header, warnings: list[str]) -> tuple[np.ndarray, Spacing | None]:
    """sform before qform before pixdim alone (the order of nifti1.h), the first that is whole; in mm. Beside it pixdim
    where that is its spacing, which is what other readers take."""
    pixdim = np.asarray(fields["pixdim"], np.float64)[1:4]
    positive = bool(np.isfinite(pixdim).all() and (pixdim > 0).all())
    unit = int(fields["xyzt_units"]) & 7
    if unit not in MM:
        warnings.append(f"the header's unit of length has the code {unit}, which means none: taken as mm")
    scale = MM.get(unit, 1.0)

    sform = np.vstack([np.asarray(fields[row], np.float64) for row in ("srow_x", "srow_y", "srow_z")] + [[0, 0, 0, 1]])
    has_sform, has_qform = int(fields["sform_code"]) > 0, int(fields["qform_code"]) > 0
    sform_whole = has_sform and _whole(sform)
    qform = _qform(fields, pixdim) if has_qform and positive else None
    if sform_whole:
        affine = sform
        spacing = np.linalg.norm(sform[:3, :3], axis=0)
        if not positive or not np.allclose(spacing, pixdim, rtol=SAME, atol=0):
            warnings.append(f"sform spacing {times(spacing)} and pixdim {times(pixdim)} disagree: sform's is taken")
        if qform is not None and not np.allclose(qform[:3, :3] / pixdim, sform[:3, :3] / spacing, atol=SHEAR):
            warnings.append("sform and qform give the axes other directions: sform's are taken")
    elif qform is not None:
        affine = qform
        if has_sform:
            warnings.append("the sform is broken: the qform is taken")
    elif has_sform or has_qform:
        raise ScanError("has a broken orientation: neither sform nor qform can be used")
    elif not positive:
        raise ScanError(f"has the spacing {times(pixdim)} and no orientation: broken")
    else:
        warnings.append("the header gives no orientation: axes taken as a scanner stores them (LPS)")
        affine = np.diag([-pixdim[0], -pixdim[1], pixdim[2], 1])
    affine = affine.copy()
    affine[:3] *= scale
    x, y, z = (float(mm) for mm in pixdim * scale)
    same = positive and np.allclose(np.linalg.norm(affine[:3, :3], axis=0), (x, y, z), rtol=SAME, atol=0)
    return affine, (z, y, x) if same else None


def _qform(fields: Nifti1Header, pixdim: np.ndarray) -> np.ndarray | None:
    """(4, 4) in the header's unit, None where the quaternion is no rotation."""
    b, c, d = (float(fields[name]) for name in ("quatern_b", "quatern_c", "quatern_d"))
    square = b * b + c * c + d * d
    if not square <= 1 + 1e-4:  # a NaN is not, and float32 can be a little above 1
        return None
    # The root of what float32 has rounded would tilt a scan that is half a turn away by 0.02 degrees.
    rest = 1 - square if 1 - square >= HALF_TURN else 0.0
    handed = -1 if float(fields["pixdim"][0]) < 0 else 1
    affine = np.eye(4)
    affine[:3, :3] = quat2mat([np.sqrt(rest), b, c, d]) * pixdim * [1, 1, handed]
    affine[:3, 3] = [float(fields[name]) for name in ("qoffset_x", "qoffset_y", "qoffset_z")]
    return affine if _whole(affine) else None


def _whole(affine: np.ndarray) -> bool:
    """Finite, and no axis is lost in the others."""
    if not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((lengths > 0).all() and abs(np.linalg.det(affine[:3, :3] / lengths)) > 0.1)
