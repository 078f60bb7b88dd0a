"""Checks for damaged compressed data that Pillow and libtiff do not report."""

from __future__ import annotations

import io
import zlib

import simplejpeg
from PIL import Image

from leukotree.data.images.formats import BrokenImage, check_size
from leukotree.errors import one_line

_CHUNK = 1 << 20
"""Bytes that are decompressed at a time."""


def check_jpeg(data: bytes) -> None:
    """Raise BrokenImage for a damaged JPEG. Pillow and libtiff fill the damaged part with grey."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        check_size(width, height)
        simplejpeg.decode_jpeg(data, "CMYK" if colours in ("CMYK", "YCCK") else "GRAY")
    except ValueError as error:
        raise BrokenImage(f"damaged: {one_line(error)}; copy the file again") from error


def check_deflate(data: bytes) -> None:
    """Raise BrokenImage for damaged deflate data or a wrong checksum.

    libtiff stops before the checksum once it has as many bytes as it needs.
    """
    decompressor, rest = zlib.decompressobj(), data
    while not decompressor.eof:
        try:
            content = decompressor.decompress(rest, _CHUNK)
        except zlib.error as error:
            raise BrokenImage(f"damaged: {one_line(error)}; copy the file again") from error
        rest = decompressor.unconsumed_tail
        if not content and not rest and not decompressor.eof:
            raise BrokenImage("damaged: compressed bytes end too soon; copy the file again")


def check_png(data: bytes) -> None:
    """Compare the checksums of a PNG, which loading does not. Raises nearly any exception for damage."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as copy:
        copy.verify()
