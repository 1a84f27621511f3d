"""The bytes of a file, plain or gzip: checked to the last one, and never more than was asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from isal import igzip_lib

from ..errors import ScanError
from .opening import open_file
from .sources import DICM

GZIP = b"\x1f\x8b"
FLAGS = {"gzip": igzip_lib.DECOMP_GZIP, "zlib": igzip_lib.DECOMP_ZLIB}
MOST_DEFLATE = 1032  # deflate stores at best 258 bytes in two bits
PIECE = 1 << 20
MOST_SURPLUS = 16 << 20

# What gets renamed to .nii.gz by mistake: where its signature is, the signature, its name.
KNOWN = (
    (0, GZIP, "gzip inside gzip: it was compressed twice"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"BM", "a BMP picture"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (*DICM, "a DICOM file: give the folder of its series"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\xfd7zXZ", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (0, b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with git lfs pull"),
    (0, b"<!doctype", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"<?xml", "an XML file"),
    (0, b"nrrd", "an NRRD file: name it .nrrd"),
    (0, b"objecttype", "a MetaImage file: name it .mha"),
    (0, b"%PDF", "a PDF file"),
)


class Stream:
    """Reads a regular file from byte `start` to its end, decompressed.

    packing  "raw", "gzip" or "zlib"; by default gzip if it looks so, else raw
    most     upper bound of the bytes that it can hold, from its size on disk
    """

    def __init__(self, file: FileIO, start: int = 0, packing: str | None = None) -> None:
        self._file = file
        self._fresh = b""  # read from the file, not yet given to a member
        self._member: igzip_lib.IgzipDecompressor | None = None
        self._members = 0  # begun: gzip may have many, zlib has one
        self.garbage = False  # bytes that are not gzip follow the last member
        size = os.fstat(file.fileno()).st_size
        file.seek(start)
        self.packing = packing or ("gzip" if file.read(len(GZIP)) == GZIP else "raw")
        file.seek(start)
        self.most = size if self.packing == "raw" else size * MOST_DEFLATE

    def read_into(self, target: memoryview) -> int:
        """Fill `target` (bytes) as far as the stream goes; returns how many bytes that were."""
        at = 0
        while at < len(target):
            piece = self.read(min(len(target) - at, PIECE))
            if not piece:
                break
            target[at : at + len(piece)] = piece
            at += len(piece)
        return at

    def read(self, most: int) -> bytes:
        """The next 1 to `most` bytes, none at the end. Raises ScanError where the packed stream is damaged or cut."""
        if self.packing == "raw":
            return self._file.read(most) or b""
        while self._member is not None or self._next_member():
            assert self._member is not None
            if self._member.needs_input and not self._fresh:
                self._fresh = self._file.read(PIECE)
                if not self._fresh:
                    raise ScanError(f"is cut off: its {self.packing} stream does not end")
            fresh, self._fresh = self._fresh, b""
            try:
                piece = self._member.decompress(fresh, most)
            except igzip_lib.error as error:  # type: ignore[misc]  # isal's stub calls it a module attribute
                raise ScanError(f"is damaged: its {self.packing} stream does not decode ({error})") from error
            if self._member.eof:
                self._fresh, self._member = self._member.unused_data, None
            if piece:
                return bytes(piece)
        return b""

    def surplus(self) -> int:
        """Read on to the end, or until more than MOST_SURPLUS bytes came; returns how many came."""
        count = 0
        while count <= MOST_SURPLUS and (piece := self.read(PIECE)):
            count += len(piece)
        return count

    def after_voxels(self) -> list[str]:
        """Read on to the end, for the checksum; what follows the voxels is a warning."""
        surplus = self.surplus()
        if surplus > MOST_SURPLUS:
            return [f"more than {MOST_SURPLUS >> 20} MiB follow the voxels: left unread, and the checksum unchecked"]
        if surplus:
            return [f"{surplus} bytes follow the voxels: left out"]
        return [f"bytes after the {self.packing} stream are ignored"] if self.garbage else []

    def _next_member(self) -> bool:
        """Begin the next member (pigz and bgzip write many), if one follows."""
        while len(self._fresh) < len(GZIP) and (more := self._file.read(PIECE)):
            self._fresh += more
        if not (self._fresh.startswith(GZIP) if self.packing == "gzip" else self._members == 0):
            self.garbage = bool(self._fresh)
            return False
        self._members += 1
        self._member = igzip_lib.IgzipDecompressor(flag=FLAGS[self.packing])
        return True


@contextmanager
def open_stream(path: Path, start: int = 0, packing: str | None = None) -> Iterator[Stream]:
    """A Stream of `path`. Raises ScanError as open_file does."""
    with open_file(path) as file:
        yield Stream(file, start, packing)


def looks_like(head: bytes) -> str | None:
    """What a file that begins with `head` is, where it is something well known."""
    for at, signature, name in KNOWN:
        part = head[at : at + len(signature)]
        if part == signature or (signature.islower() and part.lower() == signature):
            return name
    return None
