"""The picture that a file of any kind means: which page, upright, in colours of 8 bits, on white where it is
transparent."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFile, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from leukotree.data.images import damage, tiff
from leukotree.data.images.kinds import BrokenImage, bounded

_DIM = 64
"""Deep values that all stay below this, scaled to 0..255, look like fewer bits than the file says: 14 or less
in 16."""
_DARK, _SHARE = 16, 0.01
"""So do those of which less than this share reaches a sixteenth of the range: 12 bits in 16, and a scale
bar."""
_OPAQUE = 128
"""An image without a pixel of at least this alpha shows hardly more than the ground."""
_STRAIGHT = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
"""Modes that Pillow converts to RGBA in two steps, and the first of these."""


def upright(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """Upright RGB pixels of the one picture in an open file, whose bytes are `data`.

    Transparency shows a white ground. Values of more than 8 bits keep their highest 8. Raises BrokenImage
    where the file is damaged, or does not say which picture or which brightness it means; for damage also
    nearly anything else.
    """
    if isinstance(image, TiffImageFile):
        return _from_tiff(image, data)
    if image.format == "PNG":
        damage.check_png(data)
    elif image.format in ("JPEG", "MPO"):
        damage.check_jpeg(data)
    # The other pictures of an MPO are previews of the first, or what the camera's second lens saw.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        raise BrokenImage(
            f"{frames} frames (an animation); save the one that is the picture in a file of its own"
        )
    bits = _bits(image, data)
    image.load()
    turned = ImageOps.exif_transpose(image)
    if image.format == "PNG" and "transparency" in turned.info:
        _place_transparency(turned, bits)
    if turned.mode.startswith("I;16"):
        turned = _eight_bits(turned, bits, bits)
    elif turned.mode == "I":  # only of PPM, whose values Pillow stretches to 16 bits
        turned = _eight_bits(turned, 16, bits)
    elif bits > 8:
        samples = np.asarray(turned)
        # Pillow rounds where it stretches PPM, and cuts elsewhere: 4095 of 65535 is 16, not 15.
        _refuse_dim(
            np.maximum(samples, 1) - 1 if image.format == "PPM" else samples,
            bits,
            alpha=turned.mode in ("LA", "RGBA"),
        )
    return _on_white(turned)


def _from_tiff(image: TiffImageFile, data: bytes) -> Image.Image:
    tiff.choose_page(image)
    bounded(image.width, image.height)
    tiff.check(image, data)
    stored, used, inverted = (
        tiff.stored_bits(image),
        tiff.used_bits(image),
        tiff.white_is_zero(image),
    )  # before they are turned
    image.load()
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):
        shallow = _eight_bits(turned, used, used)
        return _on_white(ImageOps.invert(shallow) if inverted else shallow)
    if stored > 8:
        _refuse_dim(np.asarray(turned), stored, alpha=turned.mode in ("LA", "RGBA"))
    return _on_white(turned)


def _bits(image: ImageFile.ImageFile, data: bytes) -> int:
    """Bits of a value by the file's own word, for what is no TIFF."""
    if image.format == "PNG":
        return data[24]  # of IHDR, which is the first chunk
    if image.mode == "F":
        raise BrokenImage("floating-point numbers have no fixed range of brightness; save it with 8 bits")
    if image.format == "PPM":
        args = image.tile[
            0
        ].args  # a raw mode, or with it the highest value, which Pillow stretches to the full range
        highest = args[1] if isinstance(args, tuple) and len(args) > 1 else 65535 if args == "I;16B" else 255
        return int(highest).bit_length() if isinstance(highest, int) else 8
    return 8


def _eight_bits(image: Image.Image, scale: int, bits: int) -> Image.Image:
    """(H, W) numbers, white being 2^scale - 1 -> L, or LA where one value is transparent. `bits`: as many as
    the file says."""
    values = np.asarray(image).astype(np.uint16)
    if int(values.max()) >> scale:
        scale = bits = 16  # the file's word is wrong
    shallow = (values >> (scale - 8)).astype(np.uint8)
    _refuse_dim(shallow, bits)
    grey = Image.fromarray(shallow)
    if isinstance(clear := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _refuse_dim(samples: np.ndarray, bits: int, alpha: bool = False) -> None:
    """Raises BrokenImage for deep values, here scaled to uint8, that look like fewer bits than the file says.

    They are near black as they stand. A picture that is truly so dark cannot be told from one that is not
    scaled, and images of a set must not be scaled by their own brightness.
    """
    if bits <= 8:
        return
    colours = samples[..., :-1] if alpha else samples
    top, some = int(colours.max()), "no"
    if top >= _DIM:
        if np.count_nonzero(colours >= _DARK) >= _SHARE * colours.size:
            return
        top, some = _DARK - 1, "hardly any"
    spare = 8 - top.bit_length()
    raise BrokenImage(
        f"{some} value reaches 1/{1 << spare} of the {bits}-bit range: looks like {max(8, bits - spare)} bits in {bits}; "
        "save it with 8 bits, scaled to the full range"
    )


def _place_transparency(image: Image.Image, bits: int) -> None:
    """Say the transparent colour of a PNG in values of 8 bits, which Pillow leaves as it stands in the
    file."""
    clear = image.info["transparency"]
    if image.mode == "L" and bits < 8:
        image.info["transparency"] = clear * 255 // ((1 << bits) - 1)
    elif image.mode == "RGB" and bits > 8:
        raise BrokenImage(
            "one transparent colour of 16 bits is not read; save it with 8 bits, or with an alpha channel"
        )


def _on_white(image: Image.Image) -> Image.Image:
    """RGB, with white behind what is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    colours = image.convert(_STRAIGHT.get(image.mode, "RGBA")).convert("RGBA")
    most = colours.getchannel("A").getextrema()[1]
    if not isinstance(most, int) or most < _OPAQUE:
        which = "every pixel is transparent" if not most else "every pixel is more than half transparent"
        raise BrokenImage(f"{which}; save it without its alpha channel")
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
