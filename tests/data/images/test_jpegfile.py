"""JPEGs that keep their coded pixels lose all metadata. A marker text is in every place that can hold it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from leukotree.data.dataset import Dataset
from leukotree.data.images import codec, jpegfile
from leukotree.data.pack import pack
from tests.helpers.commandline import leukotree
from tests.helpers.small_data import change_manifest, noise, write_manifest

MARK = b"RECORD12345"
SIZE = 32


def plain(seed: int = 1, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(seed, SIZE, SIZE)).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    return data[:2] + segment(marker, content) + data[2:]


def between_scans(data: bytes) -> bytes:
    """A comment before the scan, among the tables."""
    at = data.index(b"\xff\xda")
    return data[:at] + segment(0xFE, MARK) + data[at:]


def exif() -> Image.Exif:
    fields = Image.Exif()
    fields[270] = fields[315] = MARK.decode()
    fields.get_ifd(0x8769)[0x9286] = MARK
    return fields


JPEGS = {
    "exif": plain(exif=exif()),
    "xmp": plain(xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + MARK + b"</x:xmpmeta>"),
    "comment": plain(comment=MARK),
    "icc": plain(icc_profile=b"\0" * 128 + MARK),
    "iptc": with_segment(
        plain(), 0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x10\x1c\x02\x78\0\x0b" + MARK
    ),
    **{f"app{n}": with_segment(plain(), 0xE0 + n, MARK) for n in range(16)},
    "after the end": plain() + MARK,
    "a second picture": plain() + plain(2, comment=MARK),
    "in front of the scan": between_scans(plain()),
    "fill bytes": plain()[:2] + b"\xff\xff" + segment(0xFE, MARK) + plain()[2:],
    "thumbnail": with_segment(plain(), 0xE0, b"JFXX\0\x10" + plain(3, comment=MARK)),
    "density": plain(dpi=(300, 300), comment=MARK),
    "restarts": plain(restart_marker_rows=1, comment=MARK),
    "4:4:4": plain(subsampling=0, comment=MARK),
    "rgb": plain(keep_rgb=True, comment=MARK),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_the_pixels_stay_and_the_text_is_removed(tmp_path: Path, kind: str) -> None:
    (tmp_path / "image.jpg").write_bytes(JPEGS[kind])
    made = codec.square(tmp_path / "image.jpg", SIZE, 95)
    assert MARK in JPEGS[kind]
    assert MARK not in made
    assert np.array_equal(codec.decode(made), simplejpeg.decode_jpeg(JPEGS[kind], "RGB"))
    assert made.endswith(b"\xff\xd9")
    assert len(made) < len(JPEGS[kind])


def test_a_file_without_metadata_stays_as_it_is(tmp_path: Path) -> None:
    for number, data in enumerate((plain(), plain(optimize=True), plain(restart_marker_rows=1))):
        (tmp_path / f"{number}.jpg").write_bytes(data)
        assert codec.square(tmp_path / f"{number}.jpg", SIZE, 95) == data


def test_adobe_marker_of_ycc_is_replaced_and_the_colours_stay(tmp_path: Path) -> None:
    data = plain()
    end = 2 + 2 + int.from_bytes(data[4:6], "big")
    adobe = data[:2] + segment(0xEE, b"Adobe\x00\x64\0\0\0\0\x01") + data[end:]
    (tmp_path / "image.jpg").write_bytes(adobe)
    assert codec.square(tmp_path / "image.jpg", SIZE, 95) == data


def test_a_turned_picture_is_turned(tmp_path: Path) -> None:
    fields = exif()
    fields[0x0112] = 6
    (tmp_path / "image.jpg").write_bytes(plain(exif=fields, subsampling=0))
    made = codec.square(tmp_path / "image.jpg", SIZE, 100)
    upright = np.rot90(noise(1, SIZE, SIZE), -1).astype(int)
    assert MARK not in made
    assert np.abs(codec.decode(made).astype(int) - upright).mean() < 3


@given(data=st.binary(max_size=300), where=st.integers(0, 700), cut=st.integers(0, 700))
def test_any_bytes_give_a_jpeg_or_none_and_no_error(data: bytes, where: int, cut: int) -> None:
    whole = plain()
    for damaged in (data, whole[:2] + data, whole[:where] + data + whole[where:], whole[:cut]):
        made = jpegfile.without_metadata(damaged, "YCbCr")
        assert made is None or made.startswith(b"\xff\xd8")


# --- through the command


def save_marked(path: Path, pixels: np.ndarray, number: int) -> str:
    """Save the picture in one of several formats, each with the text in it; return the new name."""
    picture, path = Image.fromarray(pixels), path.with_suffix("")
    if number % 4 == 0:
        text = PngInfo()
        text.add_text("Comment", MARK.decode())
        text.add_itxt("XML:com.adobe.xmp", MARK.decode())
        picture.save(path.with_suffix(".png"), pnginfo=text, exif=exif())
        return ".png"
    if number % 4 == 1:
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[270] = tags[315] = MARK.decode()
        picture.save(path.with_suffix(".tif"), tiffinfo=tags)
        return ".tif"
    if number % 4 == 2:
        picture.save(path.with_suffix(".jpg"), exif=exif(), comment=MARK)
        return ".jpg"
    picture.save(path.with_suffix(".webp"), exif=exif(), xmp=MARK)
    return ".webp"


@pytest.mark.parametrize("size", [(SIZE, SIZE), (40, 50)])
def test_no_text_of_the_files_is_in_what_pack_writes(tmp_path: Path, size: tuple[int, int]) -> None:
    manifest = write_manifest(tmp_path / "raw")
    suffixes = {}
    for number, path in enumerate(sorted((tmp_path / "raw").rglob("*.png"))):
        path.unlink()
        suffixes[f"{path.parent.name}/{path.stem}"] = save_marked(path, noise(number, *size), number)
    change_manifest(
        manifest,
        lambda table: table.assign(image=[name[:-4] + suffixes[name[:-4]] for name in table["image"]]),
    )
    done = leukotree("pack", manifest, tmp_path / "out", "--size", SIZE, "--folds", 3, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(Dataset.open(tmp_path / "out")) == 36
    assert [path.name for path in (tmp_path / "out").iterdir() if MARK in path.read_bytes()] == []
    pack(manifest, tmp_path / "again", folds=3, size=SIZE, workers=1)
