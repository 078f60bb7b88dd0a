"""TIFF details that Pillow does not check: which page is the picture, which bits are used, damaged strips."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from PIL import TiffTags
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COLORMAP,
    COMPRESSION,
    EXTRASAMPLES,
    FILLORDER,
    IMAGEDESCRIPTION,
    JPEGTABLES,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    STRIPBYTECOUNTS,
    STRIPOFFSETS,
    TILEBYTECOUNTS,
    TILEOFFSETS,
    YCBCRSUBSAMPLING,
    ImageFileDirectory_v2,
    TiffImageFile,
)

from leukotree.data.images import damage
from leukotree.data.images.formats import BrokenImage

_PAGE_KIND, _OLD_PAGE_KIND = 254, 255  # tags NewSubfileType and SubfileType
_MOST, _SUB_PAGES = 281, 330  # tags MaxSampleValue and SubIFDs
_REDUCED, _MASK = 1, 4  # bits of _PAGE_KIND
_NONE, _OLD_JPEG, _JPEG, _DEFLATE = 1, 6, 7, (8, 32946)  # values of COMPRESSION
_WHITE_IS_ZERO, _PALETTE, _YCBCR, _AS_SHOWN = 0, 3, 6, (1, 2, 3, 5)  # values of PHOTOMETRIC_INTERPRETATION
_PREMULTIPLIED = 1  # a value of EXTRASAMPLES
_NUMBERS = {2: "signed numbers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}
_EIGHT = "save it with 8 bits"


def choose_page(image: TiffImageFile) -> None:
    """Go to the only page that the file does not mark as thumbnail or mask.

    Raises BrokenImage if there are several such pages, or none.
    """
    try:
        count = image.n_frames
    except SyntaxError as error:
        raise BrokenImage(
            f"several pages, one of a kind that is not read ({error}); save the picture alone"
        ) from error
    pages = max(count, _imagej_pages(image.tag_v2))
    if pages == 1:
        if _is_reduced(image.tag_v2) and _SUB_PAGES in image.tag_v2:
            raise BrokenImage(
                "the page is a thumbnail of an image inside, as in a camera's raw file; export the image"
            )
        return
    pictures = []
    for number in range(count):
        image.seek(number)
        if not _is_reduced(image.tag_v2) and not image.tag_v2.get(_PAGE_KIND, 0) & _MASK:
            pictures.append(number)
    if len(pictures) != 1 or pages != count:
        raise BrokenImage(f"{pages} pages; save the picture alone as one page, or channels together as RGB")
    image.seek(pictures[0])


def check(image: TiffImageFile, data: bytes) -> None:
    """Raise BrokenImage for a page that Pillow would read wrongly, or whose strips are damaged."""
    fields = image.tag_v2
    if reason := _misread(fields):
        raise BrokenImage(reason)
    compression = fields.get(COMPRESSION, _NONE)
    if compression == _OLD_JPEG:
        raise BrokenImage(
            "JPEG compression of the old kind (6), in which damage is not detected; save it again"
        )
    if compression == _JPEG:
        tables = bytes(fields.get(JPEGTABLES, b"")).removesuffix(b"\xff\xd9")
        for strip in _strips(fields, data):
            damage.check_jpeg(tables + strip[2:] if tables else strip)
    elif compression in _DEFLATE:
        for strip in _strips(fields, data):
            damage.check_deflate(strip)


def unsupported(data: bytes) -> str:
    """Return why Pillow does not open the first page of a TIFF, or "" if its fields do not show why."""
    try:
        fields = ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])  # BigTIFF
        file = io.BytesIO(data)
        file.seek(fields.next)
        fields.load(file)
        if reason := _misread(fields):
            return reason
        names = {number: name for name, number in TiffTags.lookup(PHOTOMETRIC_INTERPRETATION).enum.items()}
        colours = fields[PHOTOMETRIC_INTERPRETATION]
        bits = _numbers(fields, BITSPERSAMPLE, 1)
    except Exception:  # a damaged header raises nearly any exception
        return ""
    channels = f"{len(bits)} channel(s) of {max(bits)} bits, colours as {names.get(colours, colours)}"
    return f"{channels}; save it as RGB with 8 bits"


def stored_bits(image: TiffImageFile) -> int:
    """Return the bits of a value as it is stored in the file."""
    return max(_numbers(image.tag_v2, BITSPERSAMPLE, 1))


def used_bits(image: TiffImageFile) -> int:
    """Return the bits of a value that are used. MaxSampleValue may give fewer than stored (4095: 12 bits)."""
    stored, most = stored_bits(image), max(_numbers(image.tag_v2, _MOST, 0))
    # Any other value may be the highest of this image alone. Images of a set must not be scaled by that.
    return most.bit_length() if 255 <= most < 1 << stored and most & (most + 1) == 0 else stored


def white_is_zero(image: TiffImageFile) -> bool:
    """Return whether the lowest value is white. Pillow inverts such images of 8 bits, but not those of 16."""
    return int(image.tag_v2.get(PHOTOMETRIC_INTERPRETATION, _WHITE_IS_ZERO)) == _WHITE_IS_ZERO


def _misread(fields: ImageFileDirectory_v2) -> str:
    """Return why Pillow would read wrong pixels, or ""."""
    colours, bits = fields.get(PHOTOMETRIC_INTERPRETATION), _numbers(fields, BITSPERSAMPLE, 1)
    raw = fields.get(COMPRESSION, _NONE) == _NONE
    for number in _numbers(fields, SAMPLEFORMAT, 1):
        if number in _NUMBERS:
            return f"{_NUMBERS[number]} of {max(bits)} bits have no fixed range of brightness; {_EIGHT}"
    if max(bits) >= 32:
        return f"whole numbers of {max(bits)} bits have no fixed range of brightness; {_EIGHT}"
    if raw and fields.get(PLANAR_CONFIGURATION, 1) == 2 and not _simple_planes(fields, bits):
        return (
            f"channels of {max(bits)} bits in planes, uncompressed, are not read; "
            "save it as RGB with 8 bits, without planes"
        )
    if raw and colours == _YCBCR and tuple(fields.get(YCBCRSUBSAMPLING, (2, 2))) != (1, 1):
        return "uncompressed YCbCr with fewer colours than pixels is not read; save it as RGB"
    if colours == _PALETTE and 0 < max(fields.get(COLORMAP, (0,))) < 256:
        return "a palette with colours of 8 bits where TIFF has 16, so nearly black; save it as RGB"
    return ""


def _simple_planes(fields: ImageFileDirectory_v2, bits: tuple[int, ...]) -> bool:
    """Return whether Pillow reads these uncompressed planes correctly: 8-bit channels without conversion."""
    colours, extra = fields.get(PHOTOMETRIC_INTERPRETATION), fields.get(EXTRASAMPLES, ())
    as_shown = colours in _AS_SHOWN and _PREMULTIPLIED not in extra
    return as_shown and set(bits) == {8} and fields.get(FILLORDER, 1) == 1


def _strips(fields: ImageFileDirectory_v2, data: bytes) -> Iterator[bytes]:
    """Yield the compressed strips or tiles of a page."""
    in_strips = STRIPOFFSETS in fields
    tags = (STRIPOFFSETS, STRIPBYTECOUNTS) if in_strips else (TILEOFFSETS, TILEBYTECOUNTS)
    offsets, lengths = (fields.get(tag, ()) for tag in tags)
    if not offsets or len(offsets) != len(lengths):
        raise BrokenImage("damaged: the table of strips is incomplete; copy the file again")
    for offset, length in zip(offsets, lengths, strict=True):
        if not 0 < offset < offset + length <= len(data):
            raise BrokenImage("damaged or cut short: a strip lies beyond the end; copy the file again")
        yield data[offset : offset + length]


def _is_reduced(fields: ImageFileDirectory_v2) -> bool:
    return bool(fields.get(_PAGE_KIND, 0) & _REDUCED) or fields.get(_OLD_PAGE_KIND) == 2


def _imagej_pages(fields: ImageFileDirectory_v2) -> int:
    """Return how many pages ImageJ announces. Those after the first may have no fields of their own."""
    text = str(fields.get(IMAGEDESCRIPTION, ""))
    announced = re.search(r"^images=([0-9]{1,9})\s*$", text, re.MULTILINE)
    return int(announced[1]) if announced and text.startswith("ImageJ=") else 1


def _numbers(fields: ImageFileDirectory_v2, tag: int, default: int) -> tuple[int, ...]:
    value = fields.get(tag, default)
    return value if isinstance(value, tuple) else (value,)
