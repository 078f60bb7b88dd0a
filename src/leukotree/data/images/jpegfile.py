"""A JPEG file without what does not decide its pixels: names, dates and record numbers of the source stay out
of shards."""

from __future__ import annotations

import re

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA
_KEPT = {0xC0, 0xC1, 0xC4, _SCAN, 0xDB, 0xDD}
"""Markers of sequential pictures with Huffman codes, of their tables, scans and restart intervals (ITU T.81,
table B.1)."""
_METADATA = {*range(0xE0, 0xF0), 0xFE}
"""APP0 to APP15 (JFIF, Exif, XMP, ICC, IPTC, Adobe, makers' own) and comments."""
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""The marker that ends the coded data of a scan: neither a stuffed zero nor a restart."""
_COLOURS = {
    "YCbCr": b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00",  # as libjpeg writes it: no density, no thumbnail
    "RGB": b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00",  # transform 0
}
"""The one segment that tells a decoder how to read three components."""


def without_metadata(data: bytes, colours: str) -> bytes | None:
    """The same coded picture with no application segment, comment or byte behind its end.

    Args:
        data: a whole JPEG file.
        colours: what its three components are, "YCbCr" or "RGB"; one standard segment says so in the result.

    Returns `data` itself where it holds nothing of the kind, None where the file holds something that is not
    known here.
    """
    if colours not in _COLOURS or not data.startswith(_START):
        return None
    at, pieces, metadata = len(_START), [], []
    while not data.startswith(_END, at):
        if (segment := _segment(data, at)) is None:
            return None
        marker, start, at = segment
        if marker in _METADATA:
            metadata.append(data[start:at])
            continue
        pieces.append(data[start:at])
        if marker == _SCAN:
            if (after := _AFTER_SCAN.search(data, at)) is None:
                return None
            pieces.append(data[at : after.start()])
            at = after.start()
    if at + len(_END) == len(data) and not any(segment != _COLOURS[colours] for segment in metadata):
        return data
    return b"".join((_START, _COLOURS[colours], *pieces, _END))


def _segment(data: bytes, at: int) -> tuple[int, int, int] | None:
    """(marker, where it starts without fill bytes, where its segment ends) of the segment at a place; None
    for anything else."""
    start = at
    while data[start : start + 2] == b"\xff\xff":  # fill bytes
        start += 1
    if data[start : start + 1] != b"\xff" or len(data) < start + 4:
        return None
    marker, length = data[start + 1], int.from_bytes(data[start + 2 : start + 4], "big")
    end = start + 2 + length
    return (marker, start, end) if marker in _KEPT | _METADATA and length >= 2 and end < len(data) else None
