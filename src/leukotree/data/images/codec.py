"""From an image file of any common format to the square RGB JPEG that a shard holds, and back to pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from leukotree.data import boxes
from leukotree.data.boxes import WHOLE_BOX, Crop
from leukotree.data.images import digests, formats, jpegfile, tiff
from leukotree.data.images.formats import BrokenImage, check_size
from leukotree.data.images.pixels import upright
from leukotree.errors import InputError, one_line

MAX_BYTES = 10**9
"""A larger file is refused before it is read: it could only hold an image that is too large."""
_UNSCALED = 1 << 16
"""A target so large that no image is scaled down while it is decoded."""
_START, _SCAN, _APP1 = b"\xff\xd8", b"\xff\xda", b"\xff\xe1"  # markers of a JPEG


def decode(jpeg: bytes, buffer: np.ndarray | None = None) -> np.ndarray:
    """Return a JPEG as (H, W, 3) uint8 RGB, in `buffer` if one of H*W*3 bytes is given.

    Raises BrokenImage if the JPEG is damaged or cut short, or if it is larger than the buffer. Without a
    buffer the limit is `formats.MAX_PIXELS`.
    """
    try:
        if buffer is None:
            check_size(*extent(jpeg))
        return simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=buffer)
    except ValueError as error:
        raise BrokenImage(one_line(error)) from error


def extent(jpeg: bytes) -> tuple[int, int]:
    """Return (width, height) in pixels from a JPEG's header alone. Raises BrokenImage without a header."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError as error:
        raise BrokenImage(one_line(error)) from error
    return width, height


def square(path: str | Path, size: int, quality: int, digest: str | None = None) -> bytes:
    """Return the whole image as an RGB JPEG of size x size pixels, without chroma subsampling.

    The aspect ratio is not kept, as in the paper. A baseline RGB JPEG of that size keeps its coded pixels.
    The result holds no metadata of the source.

    Raises BrokenImage. Raises InputError if a `digest` is given and the file's bytes have another one (see
    `digests`).
    """
    return square_of(_bytes(path, digest), size, quality)


def crops(
    path: str | Path,
    texts: Sequence[str],
    size: int,
    quality: int,
    digest: str | None = None,
    crop: Crop = WHOLE_BOX,
) -> list[bytes | BrokenImage]:
    """Return the part of the image in each box as such a JPEG, or the reason why there is none.

    The file is read once, and decoded once for all boxes. It is decoded in full: a cell is a small part of
    it.

    Args:
        texts: boxes as `boxes.parse` reads them; "" for the whole image.
        crop: how a box becomes a part.

    Raises InputError as `square`.
    """
    try:
        data = _bytes(path, digest)
        pixels = _whole(data) if any(texts) else np.empty((0, 0, 4), np.uint8)
    except BrokenImage as error:
        return [error for _ in texts]
    parts: list[bytes | BrokenImage] = []
    for text in texts:
        try:
            part = _part(pixels, text, size, quality, crop) if text else square_of(data, size, quality)
            parts.append(part)
        except BrokenImage as error:
            parts.append(error)
    return parts


def upright_size(path: str | Path) -> tuple[int, int] | None:
    """Return (width, height) of an image as it is shown, from its header; None if that is not possible."""
    try:
        with Image.open(path, formats=tuple(formats.FORMATS)) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (image.height, image.width) if turned else image.size
    except Exception:  # for a damaged file decoders raise nearly any exception
        return None


def _bytes(path: str | Path, digest: str | None) -> bytes:
    """Return the content of a file. Raises as `square`."""
    try:
        with open(path, "rb") as file:
            size_in_bytes = os.fstat(file.fileno()).st_size
            if size_in_bytes > MAX_BYTES:
                raise BrokenImage(f"over {MAX_BYTES} bytes")
            # With a limit, since a device file has no end.
            data = file.read(size_in_bytes)
    except (OSError, ValueError) as error:  # ValueError for a path with a null byte
        raise BrokenImage(getattr(error, "strerror", None) or one_line(error)) from error
    if digest is not None and digests.of_bytes(data) != digest:
        raise InputError(f"{path}: was changed while it was packed; run the same command again")
    return data


def square_of(data: bytes, size: int, quality: int) -> bytes:
    """Return the same from the bytes of a file. Raises BrokenImage."""
    with _one_reason(data):
        pixels = _scaled(data, size) if _plain(data, size) else _opened(data, size)
        if pixels is None:
            if (bare := _bare(data)) is not None:
                return bare
            pixels = _scaled(data, size)
        return simplejpeg.encode_jpeg(resize(pixels, size), quality, "RGBX", "444")


def _whole(data: bytes) -> np.ndarray:
    """Return any image upright as (H, W, 4) RGBX, in its own size. Raises BrokenImage."""
    with _one_reason(data):
        pixels = _scaled(data, _UNSCALED) if _plain(data, _UNSCALED) else _opened(data, _UNSCALED)
        return _scaled(data, _UNSCALED) if pixels is None else pixels


def _part(pixels: np.ndarray, text: str, size: int, quality: int, crop: Crop) -> bytes:
    """Return the part of an image in a box as a square JPEG. Raises BrokenImage if nothing is in the box."""
    height, width = pixels.shape[:2]
    if (inside := crop.pixels(boxes.parse(text), width, height)) is None:
        raise BrokenImage(f"box {text!r} lies outside of the image, which is {width} x {height} pixels")
    left, top, right, bottom = inside
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    return simplejpeg.encode_jpeg(resize(part, size), quality, "RGBX", "444")


@contextmanager
def _one_reason(data: bytes) -> Iterator[None]:
    """Turn any error of a decoder into BrokenImage with a reason for people."""
    try:
        yield
    except BrokenImage:
        raise
    except UnidentifiedImageError as error:
        raise BrokenImage(tiff.unsupported(data) or formats.describe_unread(data)) from error
    except Exception as error:  # for a damaged file decoders raise nearly any exception
        if isinstance(error, OSError) and error.strerror:
            raise BrokenImage(error.strerror) from error
        raise BrokenImage(f"damaged or cut short ({one_line(error)}); copy the file again") from error


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return the image as (size, size, 4), resized with Pillow's bicubic filter, which does not alias.

    PyTorch has the same filter in integer vector code. It is five times as fast as Pillow, and gives the same
    bits on every processor. Four channels are faster than three.

    Args:
        pixels: (H, W, 4) uint8 RGBX, writable and contiguous.
        size: width and height of the result in pixels.
    """
    height, width, channels = pixels.shape
    if (height, width) == (size, size):
        return pixels
    import torch  # takes a second to import, which readers of shards do not need

    # (1, 4, H, W), channels last in memory, so that no copy is made.
    batch = torch.from_numpy(pixels.reshape(1, height, width, channels).transpose(0, 3, 1, 2))
    resized = torch.nn.functional.interpolate(batch, size=(size, size), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized.numpy()[0].transpose(1, 2, 0))


def _plain(data: bytes, size: int) -> bool:
    """Return whether the file is a JPEG that only needs decoding and resizing.

    This check is faster than opening the file with Pillow.
    """
    if not data.startswith(_START):
        return False
    start = len(_START)
    # From segment to segment up to the first scan. APP1 holds Exif and XMP, which may give an orientation.
    while (marker := data[start : start + 2])[:1] == b"\xff" and marker not in (_SCAN, _APP1):
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    if marker != _SCAN:
        return False
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    return colours == "YCbCr" and (height, width) != (size, size) and height * width <= formats.MAX_PIXELS


def _scaled(data: bytes, size: int) -> np.ndarray:
    """Return a JPEG as (H, W, 4) RGBX. Damage is an error here, unlike in Pillow.

    The decoder scales a large image down at low cost, to no less than twice the target, so that the filter of
    `resize` decides the result. Scales between 1 and 1/2, such as 7/8, cost more time than they save. They
    also blur.
    """
    return simplejpeg.decode_jpeg(data, "RGBX", min_height=2 * size, min_width=2 * size, min_factor=2)


def _bare(data: bytes) -> bytes | None:
    """Return the file without metadata; None if that would change a pixel, or is not possible."""
    bare = jpegfile.without_metadata(data, simplejpeg.decode_jpeg_header(data)[2])
    if bare is None or bare is data:
        return bare
    before, after = (simplejpeg.decode_jpeg(jpeg, "RGB") for jpeg in (data, bare))
    return bare if np.array_equal(before, after) else None


def _opened(data: bytes, size: int) -> np.ndarray | None:
    """Return any image upright as (H, W, 4) RGBX; None if the coded pixels can go into a shard unchanged."""
    with Image.open(io.BytesIO(data), formats=tuple(formats.FORMATS)) as image:
        check_size(image.width, image.height)
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
