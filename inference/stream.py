"""The bytes of a file, plain or gzip: checked to the last one, and never more than was asked for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from isal import igzip_lib

from inference.errors import ScanError

GZIP = b"\x1f\x8b"
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
    (128, b"DICM", "a DICOM file: give the folder of its series"),
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
    """Reads a regular file from its start to its end, decompressed where it is gzip.

    most   upper bound of the bytes that it can hold, from its size on disk
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._fresh = b""  # read from the file, not yet given to a gzip member
        self._member: igzip_lib.IgzipDecompressor | None = None
        self.garbage = False  # bytes that are no gzip follow the last member
        size = os.fstat(file.fileno()).st_size
        self.gzip = file.read(len(GZIP)) == GZIP
        file.seek(0)
        self.most = size * MOST_DEFLATE if self.gzip else size

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
        """The next 1 to `most` bytes, none at the end. Raises ScanError where the gzip stream is damaged or cut."""
        if not self.gzip:
            return self._file.read(most) or b""
        while self._member is not None or self._next_member():
            assert self._member is not None
            if self._member.needs_input and not self._fresh:
                self._fresh = self._file.read(PIECE)
                if not self._fresh:
                    raise ScanError("is cut off: its gzip stream does not end")
            fresh, self._fresh = self._fresh, b""
            try:
                piece = self._member.decompress(fresh, most)
            except igzip_lib.error as error:  # type: ignore[misc]  # isal's stub calls it a module attribute
                raise ScanError(f"is damaged: its gzip stream does not decode ({error})") from error
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

    def _next_member(self) -> bool:
        """Begin the next gzip member (pigz and bgzip write many), if one follows."""
        while len(self._fresh) < len(GZIP) and (more := self._file.read(PIECE)):
            self._fresh += more
        if not self._fresh.startswith(GZIP):
            self.garbage = bool(self._fresh)
            return False
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        return True


@contextmanager
def open_stream(path: Path) -> Iterator[Stream]:
    """A Stream of `path`. Raises ScanError where it is no regular file, empty, unreadable, or changes meanwhile."""
    try:
        # O_NONBLOCK: a FIFO named like a scan must not hold the run up for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with FileIO(descriptor) as file:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise ScanError("is not a regular file")
            if before.st_size == 0:
                raise ScanError("is empty (0 bytes)")
            yield Stream(file)
            after = os.fstat(descriptor)
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise ScanError("changed while it was read")
    except OSError as error:
        raise ScanError(f"cannot be read: {error.strerror or error}") from error


def looks_like(head: bytes) -> str | None:
    """What a file that begins with `head` is, where it is something well known."""
    for at, signature, name in KNOWN:
        part = head[at : at + len(signature)]
        if part == signature or (signature.islower() and part.lower() == signature):
            return name
    return None
