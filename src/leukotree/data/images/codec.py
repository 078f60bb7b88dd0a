"""One image of any common kind -> the square RGB JPEG that a shard holds, and back."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from leukotree.data.images import digests, jpegfile, kinds, tiff
from leukotree.data.images.kinds import BrokenImage, bounded
from leukotree.data.images.pixels import upright
from leukotree.errors import InputError, one_line

MAX_BYTES = 10**9
"""A larger file is refused unread: it could only hold an image that is too large."""
_START, _SCAN, _APP1 = b"\xff\xd8", b"\xff\xda", b"\xff\xe1"  # markers of a JPEG


def decode(jpeg: bytes, buffer: np.ndarray | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a JPEG, in `buffer` if one of H*W*3 bytes is given. Raises BrokenImage if the
    JPEG is damaged or cut short in any way, or larger than the buffer, or than image_kinds.MAX_PIXELS where
    there is none."""
    try:
        if buffer is None:
            bounded(*extent(jpeg))
        return simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=buffer)
    except ValueError as error:
        raise BrokenImage(one_line(error)) from error


def extent(jpeg: bytes) -> tuple[int, int]:
    """Width and height in pixels, from a JPEG's header alone. Raises BrokenImage if there is none."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError as error:
        raise BrokenImage(one_line(error)) from error
    return width, height


def square(path: str | Path, size: int, quality: int, digest: str | None = None) -> bytes:
    """The whole image resized to size x size pixels (aspect ratio given up, as in the paper), as RGB JPEG
    without chroma subsampling. A baseline RGB JPEG of that size keeps its coded pixels; no metadata of the
    source is in the result.

    Raises BrokenImage, and InputError for a file whose bytes have not the `digest` (see `digests`), if one is
    given."""
    try:
        with open(path, "rb") as file:
            size_in_bytes = os.fstat(file.fileno()).st_size
            if size_in_bytes > MAX_BYTES:
                raise BrokenImage(f"over {MAX_BYTES} bytes")
            data = file.read(
                size_in_bytes
            )  # no more: a device has no end, and as many are allocated as are asked for
        if digest is not None and digests.of(data) != digest:
            raise InputError(f"{path}: was changed while it was packed; run the same command again")
        pixels = _scaled(data, size) if _plain(data, size) else _opened(data, size)
        if pixels is None:
            if (bare := _bare(data)) is not None:
                return bare
            pixels = _scaled(data, size)
        return simplejpeg.encode_jpeg(resize(pixels, size), quality, "RGBX", "444")
    except (BrokenImage, InputError):
        raise
    except UnidentifiedImageError as error:
        raise BrokenImage(tiff.unsupported(data) or kinds.stranger(data)) from error
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        if isinstance(error, OSError) and error.strerror:
            raise BrokenImage(error.strerror) from error
        raise BrokenImage(f"damaged or cut short ({one_line(error)}); copy the file again") from error


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 4) uint8 RGBX, writable and contiguous -> (size, size, 4), by Pillow's bicubic filter, which
    does not alias.

    PyTorch has that filter in vector code, in integers: five times as fast as Pillow, and the same bits on
    every processor. It takes four channels faster than three.
    """
    height, width, channels = pixels.shape
    if (height, width) == (size, size):
        return pixels
    import torch  # a second, which those who only read shards save

    # (1, 4, H, W), channels last in memory: nothing is copied on the way in or out.
    batch = torch.from_numpy(pixels.reshape(1, height, width, channels).transpose(0, 3, 1, 2))
    resized = torch.nn.functional.interpolate(batch, size=(size, size), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized.numpy()[0].transpose(1, 2, 0))


def _plain(data: bytes, size: int) -> bool:
    """Whether this is a JPEG to be decoded and resized, nothing else: seen sooner than Pillow has opened
    it."""
    if not data.startswith(_START):
        return False
    at = len(_START)
    # From segment to segment up to the first scan. Exif and XMP, which may say that the picture is to be
    # turned, are APP1.
    while (marker := data[at : at + 2])[:1] == b"\xff" and marker not in (_SCAN, _APP1):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if marker != _SCAN:
        return False
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    return colours == "YCbCr" and (height, width) != (size, size) and height * width <= kinds.MAX_PIXELS


def _scaled(data: bytes, size: int) -> np.ndarray:
    """(H, W, 4) RGBX of a JPEG, decoded strictly, as Pillow does not.

    The decoder scales a large image down cheaply. Twice the target keeps the filter of `resize` in charge of
    the result, and scales between 1 and 1/2, such as 7/8, cost more time than they save, and blur.
    """
    return simplejpeg.decode_jpeg(data, "RGBX", min_height=2 * size, min_width=2 * size, min_factor=2)


def _bare(data: bytes) -> bytes | None:
    """The file without metadata, where that leaves every pixel as it is."""
    bare = jpegfile.without_metadata(data, simplejpeg.decode_jpeg_header(data)[2])
    if bare is None or bare is data:
        return bare
    return (
        bare
        if np.array_equal(simplejpeg.decode_jpeg(bare, "RGB"), simplejpeg.decode_jpeg(data, "RGB"))
        else None
    )


def _opened(data: bytes, size: int) -> np.ndarray | None:
    """Upright (H, W, 4) RGBX of any image, or None if the coded pixels of the file can stand in a shard as
    they are."""
    with Image.open(io.BytesIO(data), formats=tuple(kinds.FORMATS)) as image:
        bounded(image.width, image.height)
        if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
            return np.array(upright(image, data).convert("RGBX"))
        pixels = _scaled(data, size)
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation != 1:
            turned = Image.fromarray(pixels, "RGBX")
            turned.getexif()[ExifTags.Base.Orientation] = orientation
            return np.array(ImageOps.exif_transpose(turned))
        baseline = image.format == "JPEG" and not image.info.get("progressive")
        return None if baseline and image.mode == "RGB" and image.size == (size, size) else pixels
