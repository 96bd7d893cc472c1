"""Zip files with one member, as extract files may be: written and read as streams, always the same bytes for a content.

The standard library's zipfile reads them, but cannot be told to compress with isal, which is ten times as fast
(docs/decisions/0013-a-zip-writer-of-our-own.md).
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from typing import TYPE_CHECKING, Self

from isal import isal_zlib

from ccs_dacs_pipeline.folders.local import folder_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from ccs_dacs_pipeline.folders import TemporaryFile

_EXTENSION = ".zip"
_LEVEL = 2
_RAW = -zlib.MAX_WBITS
_BLOCK_BYTES = 1024 * 1024
_IN_MEMORY_BYTES = 8 * 1024 * 1024
# What stands round the compressed content: two headers of 30 and 46 bytes, each with a name, and an end of 22.
_CONTAINER_BYTES = 30 + 46 + 22 + 2 * 255
# How much isal makes of a content that cannot be compressed: measured at most 0.71 per mille, and 5 bytes.
_LOSS_SHARE, _LOSS_BYTES = 1000, 16

_VERSION = 20
_UNIX = 3 << 8
_PLAIN_FILE = 0o100644 << 16
_UTF8_NAME = 0x800
# The first moment that a zip can carry, so that a repeated attempt gives the same bytes.
_TIME, _DATE = 0, 0x21


class ZipError(Exception):
    """A zip file is damaged or of another form. The message names the member and the way out."""


def member_of(name: str) -> str | None:
    """Returns the name of the member of the zip file `name`, None when the file is no zip."""
    return name.removesuffix(_EXTENSION) if name.endswith(_EXTENSION) else None


def content_limit(file_bytes: int) -> int:
    """Returns how many bytes a content may have for a zip file of at most `file_bytes`, however badly it compresses."""
    return (file_bytes - _CONTAINER_BYTES - _LOSS_BYTES) * _LOSS_SHARE // (_LOSS_SHARE + 1)


class ZippedContent:
    """The content of a zip file on its way into a folder; a context manager.

    The compressed bytes wait in a local temporary file, beyond a few MiB outside of memory: the member's name stands
    before them, and is only known once the content has come to its end.
    """

    def __init__(self, file: TemporaryFile) -> None:
        self._file = file
        self._compressor = isal_zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
        self._spool = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - `__exit__` does
        self._pending = bytearray()
        self._crc = self._bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Appends `data` to the content.

        Raises:
            FolderFull: the local folder for temporary files has no room left.
        """
        self._crc = isal_zlib.crc32(data, self._crc)
        self._bytes += len(data)
        self._pending += data
        # In blocks of one size, since what isal makes of a content depends on how it is cut.
        while len(self._pending) >= _BLOCK_BYTES:
            self._keep(self._compressor.compress(self._pending[:_BLOCK_BYTES]))
            del self._pending[:_BLOCK_BYTES]

    def finish(self, member: str) -> None:
        """Writes the whole zip file, its content under the name `member`, into the folder's file.

        Raises:
            FolderError: the folder, or the one for temporary files, fails.
        """
        self._keep(self._compressor.compress(self._pending) + self._compressor.flush())
        packed = self._spool.tell()
        self._file.write(_header(member, self._crc, packed, self._bytes))
        self._spool.seek(0)
        while block := self._spool.read(_BLOCK_BYTES):
            self._file.write(block)
        self._file.write(_directory(member, self._crc, packed, self._bytes))

    def _keep(self, data: bytes) -> None:
        with folder_errors(tempfile.gettempdir()):
            self._spool.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()


def unzipped(read: Callable[[int], bytes], member: str) -> Iterator[bytes]:
    """Yields the content of a zip file as this module writes it, and checks every byte of its container.

    Args:
        read: gives at most so many bytes, none at the file's end; nothing is read twice.
        member: the name that its only member must have.

    Raises:
        ZipError: the file is cut off, damaged, or another kind of zip.
    """
    header = _exactly(read, len(_header(member, 0, 0, 0)))
    deflate = zlib.decompressobj(_RAW)
    crc = size = taken = 0
    while not deflate.eof:
        data = deflate.unconsumed_tail or read(_BLOCK_BYTES)
        if not data:
            raise _damaged(member)
        try:
            content = deflate.decompress(data, _BLOCK_BYTES)
        except zlib.error:
            raise _damaged(member) from None
        # At the end zlib may give what follows as both: it leaves the tail as it was cut off before.
        taken += len(data) - len(deflate.unused_data if deflate.eof else deflate.unconsumed_tail)
        crc, size = zlib.crc32(content, crc), size + len(content)
        if content:
            yield content
    directory = _directory(member, crc, taken, size)
    rest = deflate.unused_data + _exactly(read, len(directory) + 1 - len(deflate.unused_data))
    if header != _header(member, crc, taken, size) or rest != directory:
        raise _damaged(member)


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    """Reads `size` bytes, fewer only at the file's end."""
    found = b""
    while size > len(found) and (data := read(size - len(found))):
        found += data
    return found


def _damaged(member: str) -> ZipError:
    return ZipError(
        f"The zip file of {member} is cut off or damaged, or was not written by this program. Materialize its extract "
        "asset again, which writes or restores it."
    )


def _common(member: str, crc: int, packed: int, size: int) -> bytes:
    """What both headers say: version, flags, method, time, checksum, sizes, length of the name, no extra field."""
    flags = 0 if member.isascii() else _UTF8_NAME
    length = len(member.encode())
    return struct.pack("<5H3I2H", _VERSION, flags, zlib.DEFLATED, _TIME, _DATE, crc, packed, size, length, 0)


def _header(member: str, crc: int, packed: int, size: int) -> bytes:
    return b"PK\x03\x04" + _common(member, crc, packed, size) + member.encode()


def _directory(member: str, crc: int, packed: int, size: int) -> bytes:
    """The directory with its only entry, no comment, first disk, and the end that says where it stands."""
    made_by = struct.pack("<H", _UNIX | _VERSION)
    place = struct.pack("<3H2I", 0, 0, 0, _PLAIN_FILE, 0)
    entry = b"PK\x01\x02" + made_by + _common(member, crc, packed, size) + place + member.encode()
    start = len(_header(member, crc, packed, size)) + packed
    return entry + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, len(entry), start, 0)
