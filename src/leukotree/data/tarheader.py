"""Tar headers of plain files (ustar, POSIX.1-1988): written, recognised, and what is wrong with one."""

from __future__ import annotations

import tarfile

MAX_NAME = 99
"""Bytes of a name; what follows it in the header is a zero."""
_SIZE, _CHECKSUM, _TYPE = slice(124, 135), slice(148, 154), slice(156, 157)
"""Where a header holds the bytes of its file, and the sum of its own bytes, both in octal; and the kind of
file."""


def _empty() -> bytes:
    info = tarfile.TarInfo("")
    info.mode = 0o444
    return info.tobuf(tarfile.USTAR_FORMAT)


_EMPTY = _empty()
"""That of an empty, nameless file which anybody may read, of no owner and no time."""
_REST = int(_EMPTY[_CHECKSUM], 8) - sum(_EMPTY[_SIZE])
"""The part of the sum that is the same for all files."""


def member(name: str, content: bytes) -> bytes:
    """A file as it stands in a tar: header, content, and zeros up to the end of the block; the bytes of
    WebDataset's TarWriter.

    From a header made once: `tarfile` makes each anew, and while it does, threads that decode wait for the
    interpreter. Raises ValueError for a name over MAX_NAME bytes.
    """
    encoded, size = name.encode(), b"%011o" % len(content)
    if len(encoded) > MAX_NAME:
        raise ValueError(f"{name!r}: a name in a tar may have {MAX_NAME} bytes")
    header = bytearray(_EMPTY)
    header[: len(encoded)], header[_SIZE] = encoded, size
    header[_CHECKSUM] = b"%06o" % (_REST + sum(encoded) + sum(size))
    return b"".join((header, content, bytes(-len(content) % tarfile.BLOCKSIZE)))


def ending(length: int) -> bytes:
    """What a tar ends with whose members take `length` bytes: two blocks of zeros, and more up to the end of
    a record."""
    end = bytes(2 * tarfile.BLOCKSIZE)
    return end + bytes(-(length + len(end)) % tarfile.RECORDSIZE)


def names(header: bytes, name: str) -> bool:
    """Whether a header is that of the plain file `name`; at no cost, where `fault` says what is wrong."""
    return header.startswith(f"{name}\0".encode()) and header[_TYPE] == tarfile.REGTYPE


def fault(header: bytes, name: str, length: int) -> str:
    """What is wrong with a header in front of the plain file `name` of `length` bytes, in one line; empty
    where nothing is."""
    try:
        found = tarfile.TarInfo.frombuf(header, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return "no tar header stands in front of it"
    if found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        return "it is not a plain file"
    if (found.name, found.size) != (name, length):
        return f"{found.name!r} of {found.size} bytes stands in its place"
    return ""
