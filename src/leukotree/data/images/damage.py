"""Damage to compressed bytes that Pillow and libtiff pass over."""

from __future__ import annotations

import io
import zlib

import simplejpeg
from PIL import Image

from leukotree.data.images.kinds import BrokenImage, bounded
from leukotree.errors import one_line

_CHUNK = 1 << 20
"""Bytes that are inflated at a time."""


def check_jpeg(data: bytes) -> None:
    """Decode strictly: Pillow and libtiff fill what is damaged with grey. Raises BrokenImage."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        bounded(width, height)
        simplejpeg.decode_jpeg(data, "CMYK" if colours in ("CMYK", "YCCK") else "GRAY")
    except ValueError as error:
        raise BrokenImage(f"damaged: {one_line(error)}; copy the file again") from error


def check_deflate(data: bytes) -> None:
    """Compare the checksum, which libtiff passes over once it has as many bytes as it needs. Raises
    BrokenImage."""
    inflater, left = zlib.decompressobj(), data
    while not inflater.eof:
        try:
            content = inflater.decompress(left, _CHUNK)
        except zlib.error as error:
            raise BrokenImage(f"damaged: {one_line(error)}; copy the file again") from error
        left = inflater.unconsumed_tail
        if not content and not left and not inflater.eof:
            raise BrokenImage("damaged: compressed bytes end too soon; copy the file again")


def check_png(data: bytes) -> None:
    """Compare the checksums, which loading skips. Raises nearly anything."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as copy:
        copy.verify()
