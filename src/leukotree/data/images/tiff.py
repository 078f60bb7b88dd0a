"""What TIFF leaves open and Pillow passes over: which page is the picture, which bits are used, and whether
strips are whole."""

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
from leukotree.data.images.kinds import BrokenImage

_PAGE_KIND, _OLD_PAGE_KIND, _MOST, _SUB_PAGES = (
    254,
    255,
    281,
    330,
)  # NewSubfileType, SubfileType, MaxSampleValue, SubIFDs
_REDUCED, _MASK = 1, 4  # bits of _PAGE_KIND
_NONE, _OLD_JPEG, _JPEG, _DEFLATE = 1, 6, 7, (8, 32946)  # values of COMPRESSION
_WHITE_IS_ZERO, _PALETTE, _YCBCR, _AS_SHOWN = 0, 3, 6, (1, 2, 3, 5)  # values of PHOTOMETRIC_INTERPRETATION
_PREMULTIPLIED = 1  # a value of EXTRASAMPLES
_NUMBERS = {2: "signed numbers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}
_EIGHT = "save it with 8 bits"


def choose_page(image: TiffImageFile) -> None:
    """Go to the only page that is no thumbnail or mask by the file's own word. Raises BrokenImage where
    several are left."""
    try:
        count = image.n_frames
    except SyntaxError as error:
        raise BrokenImage(
            f"several pages, one of a kind that is not read ({error}); save the picture alone"
        ) from error
    pages = max(count, _stacked(image.tag_v2))
    if pages == 1:
        if _is_reduced(image.tag_v2) and _SUB_PAGES in image.tag_v2:
            raise BrokenImage(
                "the page is a thumbnail of an image inside, as in a camera's raw file; export the image"
            )
        return
    whole = []
    for number in range(count):
        image.seek(number)
        if not _is_reduced(image.tag_v2) and not image.tag_v2.get(_PAGE_KIND, 0) & _MASK:
            whole.append(number)
    if len(whole) != 1 or pages != count:
        raise BrokenImage(f"{pages} pages; save the picture alone as one page, or channels together as RGB")
    image.seek(whole[0])


def check(image: TiffImageFile, data: bytes) -> None:
    """Raises BrokenImage for a page that Pillow would read otherwise than it is meant, or whose strips are
    damaged."""
    fields = image.tag_v2
    if reason := _misread(fields):
        raise BrokenImage(reason)
    compression = fields.get(COMPRESSION, _NONE)
    if compression == _OLD_JPEG:
        raise BrokenImage("JPEG compression of the old kind (6), whose damage is not seen; save it again")
    if compression == _JPEG:
        tables = bytes(fields.get(JPEGTABLES, b"")).removesuffix(b"\xff\xd9")
        for strip in _strips(fields, data):
            damage.check_jpeg(tables + strip[2:] if tables else strip)
    elif compression in _DEFLATE:
        for strip in _strips(fields, data):
            damage.check_deflate(strip)


def unsupported(data: bytes) -> str:
    """Why Pillow does not open the first page of a TIFF, or "" where its fields do not say."""
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
    except Exception:  # a damaged header, of whichever kind
        return ""
    return f"{len(bits)} channel(s) of {max(bits)} bits, colours as {names.get(colours, colours)}; save it as RGB with 8 bits"


def stored_bits(image: TiffImageFile) -> int:
    """Bits of a value as it lies in the file."""
    return max(_numbers(image.tag_v2, BITSPERSAMPLE, 1))


def used_bits(image: TiffImageFile) -> int:
    """Bits of a value that are in use: fewer than stored where MaxSampleValue says so, as 4095 says 12."""
    stored, most = stored_bits(image), max(_numbers(image.tag_v2, _MOST, 0))
    # Any other value may be the highest of this image alone, by which no image of a set may be scaled.
    return most.bit_length() if 255 <= most < 1 << stored and most & (most + 1) == 0 else stored


def white_is_zero(image: TiffImageFile) -> bool:
    """Whether the lowest value is white; Pillow turns those of 8 bits around, and leaves those of 16."""
    return int(image.tag_v2.get(PHOTOMETRIC_INTERPRETATION, _WHITE_IS_ZERO)) == _WHITE_IS_ZERO


def _misread(fields: ImageFileDirectory_v2) -> str:
    """Why the pixels are not what Pillow would take them for, or ""."""
    colours, bits = fields.get(PHOTOMETRIC_INTERPRETATION), _numbers(fields, BITSPERSAMPLE, 1)
    raw = fields.get(COMPRESSION, _NONE) == _NONE
    for number in _numbers(fields, SAMPLEFORMAT, 1):
        if number in _NUMBERS:
            return f"{_NUMBERS[number]} of {max(bits)} bits have no fixed range of brightness; {_EIGHT}"
    if max(bits) >= 32:
        return f"whole numbers of {max(bits)} bits have no fixed range of brightness; {_EIGHT}"
    if raw and fields.get(PLANAR_CONFIGURATION, 1) == 2 and not _simple(fields, bits):
        return f"channels of {max(bits)} bits in planes, uncompressed, are not read; save it as RGB with 8 bits, without planes"
    if raw and colours == _YCBCR and tuple(fields.get(YCBCRSUBSAMPLING, (2, 2))) != (1, 1):
        return "uncompressed YCbCr with fewer colours than pixels is not read; save it as RGB"
    if colours == _PALETTE and 0 < max(fields.get(COLORMAP, (0,))) < 256:
        return "a palette with colours of 8 bits where TIFF has 16, so nearly black; save it as RGB"
    return ""


def _simple(fields: ImageFileDirectory_v2, bits: tuple[int, ...]) -> bool:
    """Whether each channel is 8 bits as they are shown: Pillow reads no other uncompressed planes rightly."""
    shown = fields.get(PHOTOMETRIC_INTERPRETATION) in _AS_SHOWN and _PREMULTIPLIED not in fields.get(
        EXTRASAMPLES, ()
    )
    return shown and set(bits) == {8} and fields.get(FILLORDER, 1) == 1


def _strips(fields: ImageFileDirectory_v2, data: bytes) -> Iterator[bytes]:
    """The compressed strips or tiles of a page."""
    offsets, counts = (
        (STRIPOFFSETS, STRIPBYTECOUNTS) if STRIPOFFSETS in fields else (TILEOFFSETS, TILEBYTECOUNTS)
    )
    places, lengths = fields.get(offsets, ()), fields.get(counts, ())
    if not places or len(places) != len(lengths):
        raise BrokenImage("damaged: the table of strips is not whole; copy the file again")
    for place, length in zip(places, lengths, strict=True):
        if not 0 < place < place + length <= len(data):
            raise BrokenImage("damaged or cut short: a strip lies beyond the end; copy the file again")
        yield data[place : place + length]


def _is_reduced(fields: ImageFileDirectory_v2) -> bool:
    return bool(fields.get(_PAGE_KIND, 0) & _REDUCED) or fields.get(_OLD_PAGE_KIND) == 2


def _stacked(fields: ImageFileDirectory_v2) -> int:
    """Pages that ImageJ announces: those after the first may have no fields of their own."""
    text = fields.get(IMAGEDESCRIPTION, "")
    announced = (
        re.search(r"^images=([0-9]{1,9})\s*$", text, re.MULTILINE)
        if str(text).startswith("ImageJ=")
        else None
    )
    return int(announced[1]) if announced else 1


def _numbers(fields: ImageFileDirectory_v2, tag: int, default: int) -> tuple[int, ...]:
    value = fields.get(tag, default)
    return value if isinstance(value, tuple) else (value,)
