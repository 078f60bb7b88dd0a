"""One image of any common kind -> the square RGB JPEG that a shard holds, and back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from leukotree.errors import one_line

MAX_PIXELS = 90_000_000
"""A larger image is refused unread: it would take over 250 MB per worker, or is a decompression bomb."""
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM")  # none that runs another program, as EPS would


class BrokenImage(Exception):
    """A file that is no complete image; the message is the reason, in one line."""


def decode(jpeg: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a JPEG. Raises BrokenImage if it is damaged or cut short in any way."""
    try:
        return simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
    except ValueError as error:
        raise BrokenImage(_one_line(error)) from error


def square(path: str | Path, size: int, quality: int) -> bytes:
    """The whole image resized to size x size pixels (aspect ratio given up, as in the paper), as RGB JPEG without chroma
    subsampling. A baseline RGB JPEG of that size is kept byte for byte. Raises BrokenImage."""
    try:
        data = Path(path).read_bytes()
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BrokenImage(f"{image.width} x {image.height} pixels, over the limit of {MAX_PIXELS}")
            if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
                pixels, untouched = _from_jpeg(image, data, size)
                if untouched:
                    return data
            else:
                pixels = _from_other(image, data)
        resized = pixels.resize((size, size), Image.Resampling.LANCZOS)
        return simplejpeg.encode_jpeg(np.ascontiguousarray(resized), quality=quality, colorsubsampling="444")
    except BrokenImage:
        raise
    except UnidentifiedImageError as error:
        raise BrokenImage(f"no image of a kind that is read here ({', '.join(_FORMATS)})") from error
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        raise BrokenImage(_one_line(error)) from error


def _from_jpeg(image: Image.Image, data: bytes, size: int) -> tuple[Image.Image, bool]:
    """Upright RGB pixels, and whether the file can stand in a shard as it is. Decodes strictly, which PIL does not."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    baseline = image.format == "JPEG" and not image.info.get("progressive")
    untouched = baseline and image.mode == "RGB" and image.size == (size, size) and orientation == 1
    # The decoder halves a large image cheaply; twice the target keeps the resampling's own filter in charge of the result.
    pixels = Image.fromarray(simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=2 * size, min_width=2 * size))
    pixels.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(pixels, in_place=True)
    return pixels, untouched


def _from_other(image: Image.Image, data: bytes) -> Image.Image:
    """Upright RGB pixels of the first frame; transparency shows a white ground, 16-bit grey is scaled to 8."""
    if image.format == "PNG":
        with Image.open(io.BytesIO(data), formats=["PNG"]) as copy:
            copy.verify()  # the checksums, which loading skips
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
    if upright.mode in ("I", "F"):
        raise BrokenImage(f"pixel type {upright.mode!r} has no fixed range of brightness; save it with 8 bits")
    if upright.has_transparency_data:
        ground = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(ground, upright.convert("RGBA")).convert("RGB")
    return upright.convert("RGB")


def _one_line(error: Exception) -> str:
    return one_line(error.strerror if isinstance(error, OSError) and error.strerror else error)
