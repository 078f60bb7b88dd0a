"""The pixels of an open image file: the right page, upright, in 8-bit RGB, with white behind transparency."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFile, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from leukotree.data.images import damage, tiff
from leukotree.data.images.formats import BrokenImage, check_size

_DIM = 64
"""Values of more than 8 bits, scaled to 0..255, that all stay below this use fewer bits than the file says.

An example is 14 bits or fewer stored in 16.
"""
_DARK, _SHARE = 16, 0.01
"""The same holds if less than this share (1 %) of the values reaches _DARK, a sixteenth of the range.

An example is 12 bits stored in 16, with a bright scale bar.
"""
_OPAQUE = 128
"""In an image without a pixel of at least this alpha hardly anything but the background is visible."""
_STRAIGHT = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
"""Modes that Pillow converts to RGBA in two steps -> the mode after the first step."""


def upright(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """Return the upright RGB pixels of the one picture in an open file, whose bytes are `data`.

    Transparent parts become white. Values of more than 8 bits keep their highest 8.

    Raises BrokenImage if the file is damaged, holds several pictures, or does not define its brightness. For
    a damaged file decoders also raise nearly any other exception.
    """
    if isinstance(image, TiffImageFile):
        return _from_tiff(image, data)
    if image.format == "PNG":
        damage.check_png(data)
    elif image.format in ("JPEG", "MPO"):
        damage.check_jpeg(data)
    # The other pictures of an MPO are previews of the first, or come from the camera's second lens.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        raise BrokenImage(f"{frames} frames (an animation); save the right one in a file of its own")
    bits = _bits(image, data)
    image.load()
    turned = ImageOps.exif_transpose(image)
    if image.format == "PNG" and "transparency" in turned.info:
        _place_transparency(turned, bits)
    if turned.mode.startswith("I;16"):
        turned = _eight_bits(turned, bits, bits)
    elif turned.mode == "I":  # only PPM, whose values Pillow stretches to 16 bits
        turned = _eight_bits(turned, 16, bits)
    elif bits > 8:
        samples = np.asarray(turned)
        if image.format == "PPM":  # Pillow rounds where it stretches PPM: 4095 of 65535 is 16, not 15
            samples = np.maximum(samples, 1) - 1
        _refuse_dim(samples, bits, alpha=turned.mode in ("LA", "RGBA"))
    return _on_white(turned)


def _from_tiff(image: TiffImageFile, data: bytes) -> Image.Image:
    tiff.choose_page(image)
    check_size(image.width, image.height)
    tiff.check(image, data)
    # Read before the image is loaded and turned.
    stored, used, inverted = tiff.stored_bits(image), tiff.used_bits(image), tiff.white_is_zero(image)
    image.load()
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):
        shallow = _eight_bits(turned, used, used)
        return _on_white(ImageOps.invert(shallow) if inverted else shallow)
    if stored > 8:
        _refuse_dim(np.asarray(turned), stored, alpha=turned.mode in ("LA", "RGBA"))
    return _on_white(turned)


def _bits(image: ImageFile.ImageFile, data: bytes) -> int:
    """Return the bits of a value that the file states. Not for TIFF."""
    if image.format == "PNG":
        return data[24]  # in IHDR, the first chunk
    if image.mode == "F":
        raise BrokenImage("floating-point numbers have no fixed range of brightness; save it with 8 bits")
    if image.format == "PPM":
        # A raw mode, or a raw mode and the highest value, which Pillow stretches to the full range.
        args = image.tile[0].args
        highest = args[1] if isinstance(args, tuple) and len(args) > 1 else 65535 if args == "I;16B" else 255
        return int(highest).bit_length() if isinstance(highest, int) else 8
    return 8


def _eight_bits(image: Image.Image, scale: int, bits: int) -> Image.Image:
    """Return an image of deep values as L, or as LA if one value is transparent.

    Args:
        image: (H, W) numbers, where 2^scale - 1 is white.
        scale: see above.
        bits: bits of a value that the file states.
    """
    values = np.asarray(image).astype(np.uint16)
    if int(values.max()) >> scale:
        scale = bits = 16  # the file states too few bits
    shallow = (values >> (scale - 8)).astype(np.uint8)
    _refuse_dim(shallow, bits)
    grey = Image.fromarray(shallow)
    if isinstance(clear := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _refuse_dim(samples: np.ndarray, bits: int, alpha: bool = False) -> None:
    """Raise BrokenImage for deep values, given as uint8, that use fewer bits than the file states.

    Such an image is nearly black. An image that is really so dark looks the same as one that is not scaled.
    Images of a set must not be scaled by their own brightness.
    """
    if bits <= 8:
        return
    colours = samples[..., :-1] if alpha else samples
    top, amount = int(colours.max()), "no"
    if top >= _DIM:
        if np.count_nonzero(colours >= _DARK) >= _SHARE * colours.size:
            return
        top, amount = _DARK - 1, "hardly any"
    spare = 8 - top.bit_length()
    raise BrokenImage(
        f"{amount} value reaches 1/{1 << spare} of the {bits}-bit range: "
        f"looks like {max(8, bits - spare)} bits in {bits}; save it with 8 bits, scaled to the full range"
    )


def _place_transparency(image: Image.Image, bits: int) -> None:
    """Scale the transparent colour of a PNG to 8 bits, in place. Pillow keeps the value of the file."""
    clear = image.info["transparency"]
    if image.mode == "L" and bits < 8:
        image.info["transparency"] = clear * 255 // ((1 << bits) - 1)
    elif image.mode == "RGB" and bits > 8:
        raise BrokenImage(
            "one transparent colour of 16 bits is not read; save it with 8 bits, or with an alpha channel"
        )


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image as RGB, with white behind transparent parts."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    colours = image.convert(_STRAIGHT.get(image.mode, "RGBA")).convert("RGBA")
    most = colours.getchannel("A").getextrema()[1]
    if not isinstance(most, int) or most < _OPAQUE:
        which = "every pixel is transparent" if not most else "every pixel is more than half transparent"
        raise BrokenImage(f"{which}; save it without its alpha channel")
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
