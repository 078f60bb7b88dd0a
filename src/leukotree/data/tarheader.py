"""Tar headers of plain files (ustar, POSIX.1-1988): write them, recognise them, and describe their faults."""

from __future__ import annotations

import tarfile

MAX_NAME = 99
"""Longest name in bytes; a zero follows it in the header."""
_SIZE, _CHECKSUM, _TYPE = slice(124, 135), slice(148, 154), slice(156, 157)
"""Positions in a header: size of the file and sum of the header's bytes, both in octal; kind of file."""


def _empty() -> bytes:
    info = tarfile.TarInfo("")
    info.mode = 0o444
    return info.tobuf(tarfile.USTAR_FORMAT)


_EMPTY = _empty()
"""Header of an empty file without name, owner and time, which anybody may read."""
_REST = int(_EMPTY[_CHECKSUM], 8) - sum(_EMPTY[_SIZE])
"""The part of the checksum that is the same for all files."""


def member(name: str, content: bytes) -> bytes:
    """Return a file as it is in a tar: header, content, and zeros up to the end of the block.

    The bytes are those of WebDataset's TarWriter. The header is filled into a template: `tarfile` builds each
    header from nothing, and meanwhile decoding threads wait for the interpreter.

    Raises ValueError for a name over MAX_NAME bytes.
    """
    encoded, size = name.encode(), b"%011o" % len(content)
    if len(encoded) > MAX_NAME:
        raise ValueError(f"{name!r}: a name in a tar may have {MAX_NAME} bytes")
    header = bytearray(_EMPTY)
    header[: len(encoded)], header[_SIZE] = encoded, size
    header[_CHECKSUM] = b"%06o" % (_REST + sum(encoded) + sum(size))
    return b"".join((header, content, bytes(-len(content) % tarfile.BLOCKSIZE)))


def ending(length: int) -> bytes:
    """Return the end of a tar whose members take `length` bytes: two zero blocks, filled up to a record."""
    end = bytes(2 * tarfile.BLOCKSIZE)
    return end + bytes(-(length + len(end)) % tarfile.RECORDSIZE)


def names(header: bytes, name: str) -> bool:
    """Return whether a header is that of the plain file `name`. Fast, unlike `fault`."""
    return header.startswith(f"{name}\0".encode()) and header[_TYPE] == tarfile.REGTYPE


def fault(header: bytes, name: str, length: int) -> str:
    """Return what is wrong with the header of a plain file `name` of `length` bytes, in one line, or ""."""
    try:
        info = tarfile.TarInfo.frombuf(header, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return "there is no tar header before it"
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        return "it is not a plain file"
    if (info.name, info.size) != (name, length):
        return f"{info.name!r} of {info.size} bytes is in its place"
    return ""
