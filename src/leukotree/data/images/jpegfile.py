"""Remove from a JPEG file what does not decide its pixels.

Names, dates and record numbers of the source must not get into shards.
"""

from __future__ import annotations

import re

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA
_KEPT = {0xC0, 0xC1, 0xC4, _SCAN, 0xDB, 0xDD}
"""Markers of sequential JPEGs with Huffman codes: frames, tables, scans, restart intervals.

Source: ITU T.81, table B.1.
"""
_METADATA = {*range(0xE0, 0xF0), 0xFE}
"""APP0 to APP15 (JFIF, Exif, XMP, ICC, IPTC, Adobe, formats of camera makers) and comments."""
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""The marker that ends the coded data of a scan: neither a stuffed zero nor a restart marker."""
_COLOURS = {
    # As libjpeg writes it: no density, no thumbnail.
    "YCbCr": b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00",
    "RGB": b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00",  # transform 0
}
"""Colour space -> the segment that tells a decoder how to read three components."""


def without_metadata(data: bytes, colours: str) -> bytes | None:
    """Return the same coded image without application segments, comments and bytes after its end.

    Args:
        data: a whole JPEG file.
        colours: what its three components are, "YCbCr" or "RGB". The result says so in one standard segment.

    Returns `data` itself if there is nothing to remove, and None if the file holds an unknown segment.
    """
    if colours not in _COLOURS or not data.startswith(_START):
        return None
    position, kept, metadata = len(_START), [], []
    while not data.startswith(_END, position):
        if (segment := _segment(data, position)) is None:
            return None
        marker, start, position = segment
        if marker in _METADATA:
            metadata.append(data[start:position])
            continue
        kept.append(data[start:position])
        if marker == _SCAN:
            if (after := _AFTER_SCAN.search(data, position)) is None:
                return None
            kept.append(data[position : after.start()])
            position = after.start()
    if position + len(_END) == len(data) and all(segment == _COLOURS[colours] for segment in metadata):
        return data
    return b"".join((_START, _COLOURS[colours], *kept, _END))


def _segment(data: bytes, position: int) -> tuple[int, int, int] | None:
    """Return (marker, start without fill bytes, end) of the segment at a position; None if it is unknown."""
    start = position
    while data[start : start + 2] == b"\xff\xff":  # fill bytes
        start += 1
    if data[start : start + 1] != b"\xff" or len(data) < start + 4:
        return None
    marker, length = data[start + 1], int.from_bytes(data[start + 2 : start + 4], "big")
    end = start + 2 + length
    return (marker, start, end) if marker in _KEPT | _METADATA and length >= 2 and end < len(data) else None
