"""Pixels: any mode, depth and container gives the pixels that the file means, or a refusal with a reason."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, TiffImagePlugin

from leukotree.data.images import codec, formats
from tests.helpers.tiffs import BITS, COLOURS, COMPRESSION, DESCRIPTION, FORMAT, KIND, MOST, page, tiff

SIZE = 32
Image.init()


def blocks(seed, channels):
    """Return (32, 32, channels) uint8 in blocks of 8 pixels, with black and white among the values."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, channels), dtype=np.uint8)
    coarse[0, 0], coarse[3, 3] = 0, 255
    return coarse.repeat(8, 0).repeat(8, 1)


PICTURE, GREY, ALPHA, INKS = blocks(1, 3), blocks(2, 1)[..., 0], blocks(3, 1)[..., 0], blocks(4, 4)
DEEP = GREY.astype(np.uint16) * 257
TRUE_DEEP = np.random.default_rng(5).integers(0, 65536, (4, 4, 3), dtype=np.uint16).repeat(8, 0).repeat(8, 1)


def saved(picture, form, **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def opencv(ending, pixels):
    """Return the bytes that OpenCV writes, which does not read them; (H, W, 3) is RGB, (H, W, 4) RGBA."""
    turned = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    ok, data = cv2.imencode(ending, np.ascontiguousarray(turned))
    assert ok
    return data.tobytes()


def square(path, data):
    """Return the packed (32, 32, 3) pixels of a file with these bytes."""
    path.write_bytes(data)
    return codec.decode(codec.square(path, SIZE, 100)).astype(int)


@pytest.fixture
def packed(tmp_path):
    """A function from a file's bytes to its packed pixels."""
    return lambda data: square(tmp_path / "image", data)


def tried(path, data):
    """Return the pixels, or the reason of the refusal, which is one line."""
    try:
        return square(path, data)
    except codec.BrokenImage as refusal:
        reason = str(refusal)
    assert reason.strip()
    assert "\n" not in reason
    return reason


def off(pixels, truth):
    """Return the mean difference in levels. The shard's JPEG causes about 0.3."""
    truth = np.asarray(truth)
    return np.abs(pixels - (truth[..., None] if truth.ndim == 2 else truth)).mean()


def on_white(colours, alpha):
    share = alpha[..., None] / 255
    return colours.reshape(SIZE, SIZE, -1) * share + 255 * (1 - share)


# --- modes and containers


def from_inks(inks):
    return (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:].astype(float)) / 255


def from_ycbcr(values):
    y, blue, red = (values[..., channel].astype(float) - (128 if channel else 0) for channel in range(3))
    return np.clip(
        np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], -1), 0, 255
    )


def palette():
    indexed = Image.fromarray(GREY // 64)
    indexed.putpalette([10, 20, 30, 200, 100, 0, 0, 255, 90, 255, 255, 255])
    return indexed, np.array([[10, 20, 30], [200, 100, 0], [0, 255, 90], [255, 255, 255]])[GREY // 64]


def lab():
    profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    return ImageCms.profileToProfile(Image.fromarray(PICTURE), *profiles, outputMode="LAB")


def modes():
    """Return mode -> an image and the RGB that it means, computed here."""
    rgba, la = np.dstack([PICTURE, ALPHA]), np.dstack([GREY, ALPHA])
    indexed, colours = palette()
    return {
        "1": (Image.fromarray(GREY > 127), np.where(GREY > 127, 255, 0)),
        "L": (Image.fromarray(GREY), GREY),
        "RGB": (Image.fromarray(PICTURE), PICTURE),
        "P": (indexed, colours),
        "PA": (indexed.convert("PA"), colours),
        "RGBA": (Image.fromarray(rgba, "RGBA"), on_white(PICTURE, ALPHA)),
        "RGBX": (Image.fromarray(rgba, "RGBX"), PICTURE),
        "RGBa": (Image.fromarray(rgba, "RGBA").convert("RGBa"), on_white(PICTURE, ALPHA)),
        "LA": (Image.fromarray(la, "LA"), on_white(GREY, ALPHA)),
        "La": (Image.fromarray(la, "LA").convert("La"), on_white(GREY, ALPHA)),
        "CMYK": (Image.fromarray(INKS, "CMYK"), from_inks(INKS)),
        "YCbCr": (Image.fromarray(PICTURE, "YCbCr"), from_ycbcr(PICTURE)),
        "LAB": (lab(), PICTURE),
        "HSV": (Image.fromarray(PICTURE).convert("HSV"), PICTURE),
        "I;16": (Image.fromarray(DEEP), GREY),
        "I;16B": (Image.fromarray(DEEP.astype(">u2")), GREY),
        "I;16L": (Image.fromarray(DEEP.astype(np.int32)).convert("I;16L"), GREY),
        "I": (Image.fromarray(DEEP.astype(np.int32)), GREY),
        "F": (Image.fromarray(GREY.astype(np.float32)), GREY),
    }


MODES = modes()
MUST = {
    "PNG": {"1", "L", "RGB", "P", "RGBA", "LA", "I;16", "I;16B"},
    "TIFF": {"1", "L", "RGB", "P", "RGBA", "RGBX", "LA", "CMYK", "YCbCr", "I;16", "I;16B", "I;16L"},
    "BMP": {"1", "L", "RGB", "P"},
    "GIF": {"1", "L", "RGB", "P"},
    "PPM": {"1", "L", "RGB", "I", "I;16"},
    "JPEG": {"1", "L", "RGB", "CMYK", "YCbCr"},
    "MPO": {"1", "L", "RGB", "CMYK", "YCbCr"},
    "WEBP": {"1", "L", "RGB", "P", "RGBA", "LA", "RGBX"},
}
"""What must be accepted, by container."""
OPTIONS = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "MPO": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
}
TIFF_COMPRESSIONS = [
    None,
    "packbits",
    "tiff_lzw",
    "tiff_adobe_deflate",
    "tiff_deflate",
    "lzma",
    "zstd",
    "jpeg",
    "group4",
]
NO_COMPRESSION = {"group4": set(MODES) - {"1"}, "jpeg": set(MODES) - {"L", "RGB", "CMYK"}}
"""Modes that a compression does not take."""
_DEEP = {"I", "F", "I;16", "I;16B", "I;16L"}
NARROWED = {"GIF": _DEEP | {"RGBA", "LA"}, "WEBP": _DEEP, "PPM": {"RGBA"}, "BMP": {"RGBA"}}
"""Modes that Pillow cuts to what the container holds as it writes: the file means other pixels than the
image."""


def writable():
    for form in sorted(Image.SAVE):
        for mode, (picture, _) in MODES.items():
            try:
                data = saved(picture, form, **OPTIONS.get(form, {}))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, SystemError):
                continue
            if mode not in NARROWED.get(form, ()):
                yield form, mode, data


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_mode_and_container_that_pillow_writes_is_right_or_refused(tmp_path):
    results = {(form, mode): tried(tmp_path / "image", data) for form, mode, data in writable()}
    refused = {kind: reason for kind, reason in results.items() if isinstance(reason, str)}
    accepted = {
        kind: off(pixels, MODES[kind[1]][1]) for kind, pixels in results.items() if kind not in refused
    }
    assert not {kind: difference for kind, difference in accepted.items() if difference > 2.5}
    must = {(form, mode) for form, names in MUST.items() for mode in names}
    assert not {kind: refused.get(kind, "not written") for kind in must - set(accepted)}
    assert {form for form, _ in accepted} == set(MUST)
    assert all("; " in reason for reason in refused.values()), "each says what to do"


@pytest.mark.parametrize("compression", TIFF_COMPRESSIONS)
@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "RGBA", "CMYK", "I;16", "I;16B"])
def test_every_compression_of_tiff_is_right(packed, mode, compression):
    if mode in NO_COMPRESSION.get(compression, ()):
        pytest.skip("the compression does not take it")
    picture, truth = MODES[mode]
    quality = {"quality": 100} if compression == "jpeg" else {}
    assert off(packed(saved(picture, "TIFF", compression=compression, **quality)), truth) < (
        4 if quality else 1
    )


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(
    "kind", ["PNG", "TIFF", "JPEG", "WEBP", "PNG I;16", "TIFF I;16", "TIFF I;16B", "JPEG CMYK"]
)
def test_a_picture_on_its_side_is_turned(packed, kind, turn):
    form, _, mode = kind.partition(" ")
    picture, truth = MODES[mode or "RGB"]
    exif = Image.Exif()
    exif[0x0112] = turn
    pixels = np.asarray(truth)
    back = {
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels),
    }
    assert off(packed(saved(picture, form, exif=exif, **OPTIONS.get(form, {}))), back.get(turn, pixels)) < 2.5


# --- depth

TEN, TWELVE, FOURTEEN = (GREY.astype(np.uint16) << bits for bits in (2, 4, 6))
COLOUR_12, CMYK_12 = PICTURE.astype(np.uint16) << 4, INKS.astype(np.uint16) << 4
RGBA_12 = np.dstack([COLOUR_12, np.full((SIZE, SIZE), 65535, np.uint16)])
SCALE_BAR = TWELVE.copy()
SCALE_BAR[0, :8] = 65535
NOT_SCALED = {
    "8 bits": (opencv(".png", GREY.astype(np.uint16)), "8 bits in 16"),
    "10 bits": (opencv(".png", TEN), "10 bits in 16"),
    "12 bits": (
        opencv(".png", TWELVE),
        "no value reaches 1/16 of the 16-bit range: looks like 12 bits in 16",
    ),
    "14 bits": (opencv(".png", FOURTEEN), "14 bits in 16"),
    "12 bits and a scale bar": (opencv(".png", SCALE_BAR), "hardly any value reaches 1/16"),
    "12 bits of colour": (opencv(".png", COLOUR_12), "12 bits in 16"),
    "8 bits of colour": (opencv(".png", PICTURE.astype(np.uint16)), "8 bits in 16"),
    "12 bits and alpha": (opencv(".png", RGBA_12), "12 bits in 16"),
    "tiff": (opencv(".tif", TWELVE), "12 bits in 16"),
    "tiff of colour": (opencv(".tif", COLOUR_12), "12 bits in 16"),
    "big-endian tiff": (tiff(page(COLOUR_12.astype(">u2")), order=">"), "12 bits in 16"),
    "big-endian grey": (saved(Image.fromarray(TWELVE.astype(">u2")), "TIFF"), "12 bits in 16"),
    "dark where 0 is white": (tiff(page(TWELVE, 0)), "12 bits in 16"),
    "inks": (tiff(page(CMYK_12, 5)), "12 bits in 16"),
    "pgm": (opencv(".pgm", TWELVE), "12 bits in 16"),
    "ppm": (opencv(".ppm", COLOUR_12), "12 bits in 16"),
    "8 bits in a pgm of 12": (b"P5 32 32 4095\n" + GREY.astype(">u2").tobytes(), "8 bits in 12"),
    "highest value of this image": (tiff(page(TWELVE, **{f"_{MOST}": int(TWELVE.max())})), "12 bits in 16"),
    "black": (opencv(".png", np.zeros((SIZE, SIZE), np.uint16)), "8 bits in 16"),
}


@pytest.mark.parametrize("kind", NOT_SCALED)
def test_values_of_fewer_bits_than_the_file_says_are_refused(packed, kind):
    data, reason = NOT_SCALED[kind]
    with pytest.raises(codec.BrokenImage, match=f"{reason}.*; save it with 8 bits"):
        packed(data)


DARK = (TRUE_DEEP // 3).astype(np.uint16)
FALSE_WORD = DEEP.copy()
PACKED_12 = np.packbits(np.unpackbits(TWELVE.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 4:])
SCALED = {
    "grey": (opencv(".png", TRUE_DEEP[..., 0]), TRUE_DEEP[..., 0] >> 8),
    "colour": (opencv(".png", TRUE_DEEP), TRUE_DEEP >> 8),
    "dark colour": (opencv(".png", DARK), DARK >> 8),
    "grey tiff": (opencv(".tif", TRUE_DEEP[..., 0]), TRUE_DEEP[..., 0] >> 8),
    "colour tiff": (opencv(".tif", TRUE_DEEP), TRUE_DEEP >> 8),
    "big-endian colour": (tiff(page(TRUE_DEEP.astype(">u2")), order=">"), TRUE_DEEP >> 8),
    "pgm": (opencv(".pgm", TRUE_DEEP[..., 0]), TRUE_DEEP[..., 0] >> 8),
    "ppm": (opencv(".ppm", TRUE_DEEP), TRUE_DEEP >> 8),
    "pgm of 12 bits": (b"P5 32 32 4095\n" + TWELVE.astype(">u2").tobytes(), GREY),
    "ppm of 12 bits": (b"P6 32 32 4095\n" + COLOUR_12.astype(">u2").tobytes(), PICTURE),
    "pgm of 4 bits": (b"P5 32 32 15\n" + (GREY >> 4).tobytes(), (GREY >> 4) * 17.0),
    "highest value 4095": (tiff(page(TWELVE, **{f"_{MOST}": 4095})), GREY),
    "highest value 4095, 0 is white": (tiff(page(TWELVE, 0, **{f"_{MOST}": 4095})), 255 - GREY),
    "highest value 255": (tiff(page(GREY.astype(np.uint16), **{f"_{MOST}": 255})), GREY),
    "a false highest value": (tiff(page(DEEP, **{f"_{MOST}": 4095})), GREY),
    "0 is white": (tiff(page(DEEP, 0)), 255 - GREY),
    "0 is white, 8 bits": (tiff(page(GREY, 0)), 255 - GREY),
    "0 is white, deflated": (tiff(page(DEEP, 0, zlib.compress, **{f"_{COMPRESSION}": 8})), 255 - GREY),
    "12 bits of tiff": (tiff(({**page(GREY)[0], BITS: 12}, [PACKED_12.tobytes()])), GREY),
    "planes": (tiff(page(PICTURE, planes=True)), PICTURE),
    "big tiff": (saved(Image.fromarray(DEEP), "TIFF", big_tiff=True), GREY),
}


@pytest.mark.parametrize("kind", SCALED)
def test_deep_values_keep_their_highest_8_bits(packed, kind):
    data, truth = SCALED[kind]
    assert off(packed(data), truth) < 1.5


SIGNED = DEEP.astype(np.int64) - 32768
NO_RANGE = {
    "signed 8": (tiff(page(GREY.view(np.int8), **{f"_{FORMAT}": 2})), "signed numbers of 8 bits"),
    "signed 16": (tiff(page(SIGNED.astype(np.int16), **{f"_{FORMAT}": 2})), "signed numbers of 16 bits"),
    "signed colour": (
        tiff(page(PICTURE.astype(np.int16), **{f"_{FORMAT}": [2, 2, 2]})),
        "signed numbers of 16 bits",
    ),
    "whole 32": (tiff(page(DEEP.astype(np.uint32))), "whole numbers of 32 bits"),
    "float 16": (
        tiff(page(GREY.astype(np.float16), **{f"_{FORMAT}": 3})),
        "floating-point numbers of 16 bits",
    ),
    "float 32": (opencv(".tif", GREY.astype(np.float32)), "floating-point numbers of 32 bits"),
    "float 64": (opencv(".tif", GREY.astype(np.float64)), "floating-point numbers of 64 bits"),
    "float colour": (opencv(".tif", PICTURE.astype(np.float32)), "floating-point numbers of 32 bits"),
    "pfm": (saved(Image.fromarray(GREY.astype(np.float32)), "PPM"), "floating-point numbers"),
}


@pytest.mark.parametrize("kind", NO_RANGE)
def test_numbers_without_a_range_of_brightness_are_refused(packed, kind):
    data, reason = NO_RANGE[kind]
    with pytest.raises(
        codec.BrokenImage, match=f"{reason}.* no fixed range of brightness; save it with 8 bits"
    ):
        packed(data)


MISREAD = {
    "deep planes": (tiff(page(TRUE_DEEP, planes=True)), "planes"),
    "8-bit palette": (
        tiff(page(GREY // 64, 3, **{f"_{COLOURS}": np.arange(768) % 256})),
        "palette with colours of 8 bits",
    ),
    "bayer": (tiff(page(GREY, 32803)), "colours as CFA"),
    "two greys": (tiff(page(PICTURE[..., :2].copy(), 1)), "2 channel"),
    "few colours": (tiff(page(PICTURE, 6)), "YCbCr"),
}


@pytest.mark.parametrize("kind", MISREAD)
def test_a_tiff_that_pillow_misreads_is_refused(packed, kind):
    data, reason = MISREAD[kind]
    with pytest.raises(codec.BrokenImage, match=f"{reason}.*; save it"):
        packed(data)


# --- pages

FULL, SMALL, BLANK = page(PICTURE), page(PICTURE[::2, ::2], **{f"_{KIND}": 1}), page(np.zeros_like(PICTURE))
MASK = page(GREY, **{f"_{KIND}": 4})
CHANNELS = [page(PICTURE[..., channel]) for channel in range(3)]


@pytest.mark.parametrize(
    "pages", [[FULL], [FULL, SMALL], [SMALL, FULL], [SMALL, SMALL, FULL, MASK], [MASK, FULL]]
)
def test_the_only_page_of_full_resolution_is_taken(packed, pages):
    assert off(packed(tiff(*pages)), PICTURE) < 1


@pytest.mark.parametrize(
    "pages", [CHANNELS, [BLANK, FULL], [FULL, BLANK], [FULL, page(PICTURE[::2, ::2])], [SMALL, SMALL]]
)
def test_a_file_of_several_pages_is_refused(packed, pages):
    with pytest.raises(codec.BrokenImage, match=f"^{len(pages)} pages; save the picture alone"):
        packed(tiff(*pages))


def test_other_files_of_several_pictures(packed):
    picture, other = Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)
    for form in ("GIF", "PNG", "WEBP"):
        with pytest.raises(codec.BrokenImage, match="2 frames"):
            packed(saved(picture, form, save_all=True, append_images=[other]))
        assert off(packed(saved(picture, form, save_all=True, **OPTIONS.get(form, {}))), PICTURE) < 1
    phone = saved(picture, "MPO", save_all=True, append_images=[other], **OPTIONS["MPO"])
    assert off(packed(phone), PICTURE) < 2.5, "the others are previews of the first"
    stack = page(GREY, **{f"_{DESCRIPTION}": b"ImageJ=1.53\nimages=3\nslices=3\n\0"})
    with pytest.raises(codec.BrokenImage, match=r"^3 pages"):
        packed(tiff(stack))
    raw = page(PICTURE, **{f"_{KIND}": 1, "_330": 8})
    with pytest.raises(codec.BrokenImage, match="thumbnail of an image inside"):
        packed(tiff(raw))


# --- transparency


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize(
    ("alpha", "reason"), [(0, "every pixel is transparent"), (90, "more than half transparent")]
)
def test_an_image_that_shows_only_the_ground_is_refused(packed, form, mode, alpha, reason):
    picture = Image.fromarray(PICTURE).convert(mode)
    picture.putalpha(alpha)
    with pytest.raises(codec.BrokenImage, match=f"{reason}; save it without its alpha channel"):
        packed(saved(picture, form, **({"lossless": True, "exact": True} if form == "WEBP" else {})))


def png(values, depth, transparent):
    """Return a grey or RGB PNG of any depth with one transparent value, written byte by byte."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = values.shape[:2]
    flat = values.reshape(height, -1).astype(">u2")
    bits = np.unpackbits(flat.view(np.uint8).reshape(height, -1, 2), axis=2)[..., 16 - depth :].reshape(
        height, -1
    )
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    header = struct.pack(">IIBBBBB", width, height, depth, 2 if values.ndim == 3 else 0, 0, 0, 0)
    clear = struct.pack(">H", transparent) * (3 if values.ndim == 3 else 1)
    chunks = [(b"IHDR", header), (b"tRNS", clear), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_transparent_value_of_a_png_is_white(tmp_path, depth):
    values = GREY.astype(int) * 257 >> (16 - depth)
    clear = int(values[0, 0])
    truth = np.where(values == clear, 255, values * 255 / ((1 << depth) - 1))
    assert off(square(tmp_path / "image", png(values, depth, clear)), truth) < 1
    if depth >= 8:
        result = tried(tmp_path / "image", png(values[..., None].repeat(3, 2), depth, clear))
        assert "; save it" in result if depth == 16 else off(result, truth) < 1


# --- damage

SMOOTH = Image.fromarray(
    cv2.resize(np.random.default_rng(7).integers(0, 256, (6, 6, 3), dtype=np.uint8), (96, 80))
)
JPEG_STRIPS = saved(SMOOTH, "TIFF", compression="jpeg")
INKED = saved(SMOOTH.convert("CMYK"), "JPEG")
DEFLATED = saved(SMOOTH, "TIFF", compression="tiff_adobe_deflate")
CHECKED = {"png": saved(SMOOTH, "PNG"), "deflated tiff": DEFLATED}
"""Containers with a checksum over their pixels."""
UNCHECKED = {
    "bmp": saved(SMOOTH, "BMP"),
    "ppm": saved(SMOOTH, "PPM"),
    "gif": saved(SMOOTH, "GIF"),
    "webp": saved(SMOOTH, "WEBP"),
    "tiff": saved(SMOOTH, "TIFF"),
    "lzw tiff": saved(SMOOTH, "TIFF", compression="tiff_lzw"),
    "jpeg tiff": JPEG_STRIPS,
    "jpeg": saved(SMOOTH, "JPEG"),
    "inks": INKED,
    "rle bmp": saved(SMOOTH.convert("P"), "BMP"),
}
"""Containers without: a changed pixel, or a changed code that is still a code, cannot be told. What is cut
short can."""


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(sorted(CHECKED)), at=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255)
)
def test_damage_under_a_checksum_is_refused_or_changes_nothing(tmp_path_factory, kind, at, change):
    data = bytearray(CHECKED[kind])
    data[int(at * len(data))] ^= change
    path = tmp_path_factory.mktemp("damage") / "image"
    result = tried(path, data)
    assert isinstance(result, str) or np.array_equal(result, square(path, CHECKED[kind]))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(sorted(UNCHECKED)), at=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255)
)
def test_other_damage_is_refused_with_a_reason_or_still_an_image(tmp_path_factory, kind, at, change):
    data = bytearray(UNCHECKED[kind])
    data[int(at * len(data))] ^= change
    result = tried(tmp_path_factory.mktemp("damage") / "image", data)
    assert isinstance(result, str) or result.shape == (SIZE, SIZE, 3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*CHECKED, *UNCHECKED])
def test_a_file_cut_short_anywhere_is_refused(tmp_path, kind):
    data, path = (CHECKED | UNCHECKED)[kind], tmp_path / "image"
    whole = square(path, data)
    for end in [*range(0, len(data) - 8, max(1, len(data) // 40)), len(data) - 5]:
        result = tried(path, data[:end])
        assert isinstance(result, str) or np.array_equal(result, whole), f"{end} of {len(data)}"


def strip_of(data):
    """Return the position and length of the first strip of a TIFF."""
    with Image.open(io.BytesIO(data)) as image:
        fields = image.tag_v2
        return fields[TiffImagePlugin.STRIPOFFSETS][0], fields[TiffImagePlugin.STRIPBYTECOUNTS][0]


def test_damage_that_libtiff_and_pillow_pass_over_is_refused(packed):
    start, length = strip_of(JPEG_STRIPS)
    for share in (0.3, 0.5, 0.8):
        garbled = bytearray(JPEG_STRIPS)
        at = start + int(length * share)
        garbled[at : at + 12] = bytes(12)
        with pytest.raises(codec.BrokenImage, match=r"damaged.*; copy the file again"):
            packed(bytes(garbled))
    inked = bytearray(INKED)
    inked[len(inked) // 2 : len(inked) // 2 + 12] = bytes(12)
    with pytest.raises(codec.BrokenImage, match=r"damaged.*; copy the file again"):
        packed(bytes(inked))
    assert off(packed(JPEG_STRIPS), np.asarray(SMOOTH.resize((SIZE, SIZE), Image.Resampling.BICUBIC))) < 4


# --- other files

TAR_HEADER = b"name".ljust(257, b"\0") + b"ustar\x0000".ljust(255, b"\0")
OTHER_FILES = {
    "nothing": (b"", r"empty \(0 bytes\); copy it again"),
    "zeros": (bytes(4096), "only zero bytes"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "Git LFS.*git lfs pull",
    ),
    "annex": (b"/annex/objects/SHA256E-s123--ab.png\n", "git-annex.*git annex get"),
    "annex link": (b"../.git/annex/objects/Xx/1/SHA256E-s1--ab.tif/SHA256E-s1--ab.tif", "git-annex"),
    "page": (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "web page"),
    "page with a mark": (b"\xef\xbb\xbf\r\n <html lang=de>\xc3\xa4</html>", "web page"),
    "server": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "svg": (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "json": (b'{"error": "not found"}', "a text, not an image"),
    "utf-16": ("Leukämie".encode("utf-16"), "a text, not an image"),
    "long text": ("Zelle äöü\n".encode() * 4000, "a text, not an image"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
    "zip": (b"PK\x03\x04" + bytes(60), "ZIP"),
    "gz": (b"\x1f\x8b\x08" + bytes(60), "gzip"),
    "tar": (TAR_HEADER, "tar archive"),
    "dicom": (bytes(128) + b"DICM\x02\x00", "DICOM.*; save it as PNG or TIFF"),
    "array": (b"\x93NUMPY\x01\x00", "NumPy"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "jpeg 2000": (saved(Image.fromarray(PICTURE), "JPEG2000"), "JPEG 2000"),
    "avif": (saved(Image.fromarray(PICTURE), "AVIF"), "AVIF"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(60), "HEIC"),
    "apple": (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "AppleDouble"),
    "png by text": (b"\x89PNG\n\x1a\n\0\0", "copy in text mode"),
    "half a png": (saved(Image.fromarray(PICTURE), "PNG")[:20], "cut short.*; copy the file again"),
    "unknown": (bytes(range(256)), "no image of a format that is read here.*; save it as PNG or TIFF"),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_each_kind_of_other_file_has_its_own_reason(packed, kind):
    data, reason = OTHER_FILES[kind]
    with pytest.raises(codec.BrokenImage, match=reason):
        packed(data)


@given(data=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_other_bytes_are_refused_in_one_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "image"
    path.write_bytes(data)
    with pytest.raises(codec.BrokenImage) as refusal:
        codec.square(path, SIZE, 95)
    assert str(refusal.value) and "\n" not in str(refusal.value)  # noqa: PT018


def test_the_endings_are_those_of_the_formats_that_are_read():
    known = {
        ending for ending, form in Image.registered_extensions().items() if form in {*formats.FORMATS, "MPO"}
    }
    assert known - {".pfm"} == formats.IMAGE_SUFFIXES, "a .pfm has no range of brightness"
    assert not formats.IMAGE_SUFFIXES & formats.UNREAD_SUFFIXES
