"""The codec: every format gives the same upright square, resized by Pillow's filter; damage is refused."""

import io

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leukotree.data.images import codec
from tests.helpers.small_data import noise

BICUBIC = Image.Resampling.BICUBIC


def saved(picture, form, **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def squared(tmp_path, data, size=32, quality=95):
    (tmp_path / "image").write_bytes(data)
    return codec.decode(codec.square(tmp_path / "image", size, quality)).astype(int)


RGB = Image.fromarray(noise(1, 64, 96))
TURN_RIGHT = Image.Exif()
TURN_RIGHT[0x0112] = 6  # the camera lay on its side: turn the picture by 90 degrees to see it upright
TURN_RIGHT_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
KINDS = {
    "png": saved(RGB, "PNG"),
    "bmp": saved(RGB, "BMP"),
    "tiff": saved(RGB, "TIFF", compression="tiff_lzw"),
    "jpeg": saved(RGB, "JPEG", quality=98, subsampling=0),
    "progressive": saved(RGB, "JPEG", quality=98, subsampling=0, progressive=True),
    "opaque": saved(RGB.convert("RGBA"), "PNG"),
    "turned jpeg": saved(
        RGB.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=98, subsampling=0, exif=TURN_RIGHT
    ),
    "turned by xmp": saved(
        RGB.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=98, subsampling=0, xmp=TURN_RIGHT_XMP
    ),
    "turned png": saved(RGB.transpose(Image.Transpose.ROTATE_90), "PNG", exif=TURN_RIGHT),
    "turned tiff": saved(RGB.transpose(Image.Transpose.ROTATE_90), "TIFF", exif=TURN_RIGHT),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_becomes_the_same_picture(tmp_path, kind):
    expected = np.asarray(RGB.resize((32, 32), BICUBIC)).astype(int)
    assert np.abs(squared(tmp_path, KINDS[kind]) - expected).mean() < 3


def test_other_pixel_types(tmp_path):
    grey = RGB.convert("L")
    expected = np.asarray(grey.resize((32, 32), BICUBIC)).astype(int)[..., None]
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    for data in (
        saved(grey, "PNG"),
        saved(grey, "JPEG", quality=98),
        saved(deep, "PNG"),
        saved(deep, "TIFF"),
    ):
        assert np.abs(squared(tmp_path, data) - expected).mean() < 2
    cmyk = squared(tmp_path, saved(RGB.convert("CMYK"), "JPEG", quality=98))
    assert np.abs(cmyk - np.asarray(RGB.resize((32, 32), BICUBIC))).mean() < 4
    palette = squared(tmp_path, saved(Image.new("P", (40, 40), 3), "GIF"))
    assert palette.shape == (32, 32, 3)
    half = np.full((40, 40, 4), 9, np.uint8)
    half[:, :20, 3], half[:, 20:, 3] = 0, 255
    clear = squared(tmp_path, saved(Image.fromarray(half), "PNG"))
    assert clear[:, :12].min() > 250, "transparent shows a white ground"
    assert clear[:, 20:].max() < 15


def test_a_jpeg_of_the_right_size_is_kept_byte_for_byte(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(saved(RGB.resize((32, 32)), "JPEG", quality=80))
    assert codec.square(path, 32, 95) == path.read_bytes()
    path.write_bytes(saved(RGB.resize((32, 32)), "JPEG", progressive=True))
    assert codec.square(path, 32, 95) != path.read_bytes(), "not baseline"
    header = simplejpeg.decode_jpeg_header(codec.square(path, 32, 95))
    assert header == (32, 32, "YCbCr", "444")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_is_broken(tmp_path, kind):
    with pytest.raises(codec.BrokenImage) as refusal:
        squared(tmp_path, KINDS[kind][: len(KINDS[kind]) * 7 // 10])
    assert "\n" not in str(refusal.value)


def test_other_damage_is_broken(tmp_path):
    flipped = bytearray(KINDS["png"])
    flipped[len(flipped) // 2] ^= 1
    for data in (b"", b"not an image", bytes(flipped)):
        with pytest.raises(codec.BrokenImage):
            squared(tmp_path, data)
    with (
        pytest.raises(codec.BrokenImage, match="over the limit"),
        pytest.warns(Image.DecompressionBombWarning),
    ):
        squared(tmp_path, saved(Image.new("1", (10_000, 10_000)), "PNG"))


# --- resizing


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(8, 700), width=st.integers(8, 700), size=st.integers(8, 400), seed=st.integers(0, 99)
)
def test_resize_is_pillows_bicubic(height, width, size, seed):
    # No black or white: the filter overshoots, and the two clip that at the end of the first pass, in rows or
    # in columns.
    pixels = np.random.default_rng(seed).integers(80, 176, (height, width, 4), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels[..., :3]).resize((size, size), BICUBIC)).astype(int)
    assert np.abs(codec.resize(pixels, size)[..., :3] - expected).max() <= 2, "rounding"


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_stripes_finer_than_a_pixel_become_grey(tmp_path, form):
    stripes = np.zeros((400, 400, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    result = squared(tmp_path, saved(Image.fromarray(stripes), form, quality=95, subsampling=0))
    assert np.abs(result - 127).max() < 8


@pytest.mark.parametrize(("height", "width"), [(96, 97), (120, 160), (225, 225), (325, 250), (651, 500)])
def test_a_jpeg_that_the_decoder_scales_is_what_pillow_makes_of_it(tmp_path, height, width):
    data = saved(Image.fromarray(noise(2, height, width)), "JPEG", quality=98, subsampling=0)
    expected = np.asarray(Image.open(io.BytesIO(data)).resize((96, 96), BICUBIC)).astype(int)
    assert np.abs(squared(tmp_path, data, 96, quality=100) - expected).mean() < 0.8, (
        "neither shifted nor blurred"
    )
