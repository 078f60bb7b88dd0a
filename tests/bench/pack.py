"""`pack` against its limit, and its memory: 512x512 JPEGs (quality 90, 4:2:0) of phantoms to 384x384, two
threads.

The limit reads the same files, decodes them and encodes the pixels that `pack` encodes, on a pool of two
threads, and that is all: no resizing, no checks, no folds, no shards. `pack` is called in this process, once
before the clock runs; the row of the whole command starts a process for it, with all that it imports, while
its limit stays as it is. Fields are what a microscope's camera takes, cells are cut out of them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import simplejpeg
from pairs import Comparison, arguments, compare, save
from PIL import Image

from leukotree.data import phantom
from leukotree.data.images.codec import resize
from leukotree.data.pack import pack

SIZE, WORKERS, QUALITY = 384, 2, 95
CROP, FIELD = 512, (1944, 2592)
"""Source pixels: width and height of a cell, height and width of a camera's picture."""
PEAK = """
import pathlib, sys
from leukotree.data.pack import pack
pack(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), workers=2)
print(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
"""Prints the peak of its memory in kB. Not ru_maxrss, which starts at that of the process that started this
one."""


Drawn = tuple[np.ndarray, str]
"""(H, W, 3) uint8, and the leaf."""


@dataclass(frozen=True)
class Pictures:
    """Files to pack, in a folder with the manifest: the first `len(encoded)`, then those again, each with a
    number on it."""

    manifest: Path
    files: list[str]
    encoded: list[np.ndarray]
    """What is encoded of each: (384, 384, 3) uint8."""


def draw(folder: Path) -> tuple[list[Drawn], list[Drawn]]:
    """224 different crops, the symmetries of 28 phantoms, and 14 fields, which are mosaics of them; every
    leaf in turn."""
    table = pd.read_csv(phantom.write(folder, patients=7, per_patient=4, size=CROP))
    drawn = [
        (np.asarray(Image.open(folder / image)), leaf)
        for image, leaf in zip(table["image"], table["leaf"], strict=True)
    ]
    crops = [(symmetry(pixels, number), leaf) for number in range(8) for pixels, leaf in drawn]
    mosaic = np.vstack(
        [np.hstack([pixels for pixels, _ in drawn[row : row + 7]]) for row in (0, 7, 14, 21, 0)]
    )
    height, width = FIELD
    fields = [(mosaic[32 * n :, 64 * n :][:height, :width], leaf) for n, (_, leaf) in enumerate(drawn[::2])]
    return crops, fields


def symmetry(pixels: np.ndarray, number: int) -> np.ndarray:
    """One of the eight of a square."""
    return np.rot90(pixels[:, ::-1] if number >= 4 else pixels, number % 4)


def write(folder: Path, pictures: list[Drawn], count: int) -> Pictures:
    """Write them as JPEGs again and again until there are `count` files, no two alike; each patient has
    four."""
    folder.mkdir()
    for number in range(count):
        jpeg = simplejpeg.encode_jpeg(
            stamped(pictures[number % len(pictures)][0], number), 90, colorsubsampling="420"
        )
        (folder / f"{number:05d}.jpg").write_bytes(jpeg)
    leaves = [pictures[number % len(pictures)][1] for number in range(count)]
    rows = [
        (f"{number:05d}.jpg", leaf, f"{leaf}-{number // 28}", "phantom") for number, leaf in enumerate(leaves)
    ]
    pd.DataFrame(rows, columns=["image", "leaf", "patient", "source"]).to_csv(
        folder / "manifest.csv", index=False
    )
    files = [str(folder / name) for name, *_ in rows]
    encoded = [
        np.ascontiguousarray(resize(decode(file, "RGBX"), SIZE)[..., :3]) for file in files[: len(pictures)]
    ]
    return Pictures(folder / "manifest.csv", files, encoded)


def stamped(pixels: np.ndarray, number: int) -> np.ndarray:
    """A copy with the bits of a number as squares in a corner: `pack` refuses the same picture in two
    patients."""
    result = np.array(pixels, order="C")
    bits = (number >> np.arange(13)) & 1
    result[:16, : 16 * len(bits)] = np.kron(255 * bits, np.ones((16, 16), np.uint8))[..., None]
    return result


def decode(file: str, colours: str = "RGB") -> np.ndarray:
    """As `pack` decodes: scaled down where the decoder can and twice the target is left."""
    with open(file, "rb") as stream:
        return simplejpeg.decode_jpeg(
            stream.read(), colours, min_height=2 * SIZE, min_width=2 * SIZE, min_factor=2
        )


def limit(pictures: Pictures) -> None:
    def one(number: int) -> None:
        decode(pictures.files[number])
        simplejpeg.encode_jpeg(
            pictures.encoded[number % len(pictures.encoded)], QUALITY, colorsubsampling="444"
        )

    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(one, range(len(pictures.files))):
            pass


def packed(pictures: Pictures, out: Path) -> None:
    pack(pictures.manifest, out, workers=WORKERS)


def command(pictures: Pictures, out: Path) -> None:
    verb = [str(Path(sys.executable).with_name("leukotree")), "pack", str(pictures.manifest), str(out)]
    subprocess.run([*verb, "--workers", str(WORKERS)], check=True, capture_output=True)


def peak(pictures: Pictures, out: Path) -> float:
    """MB of a fresh process that packs."""
    shutil.rmtree(out, ignore_errors=True)
    call = [sys.executable, "-c", PEAK, str(pictures.manifest), str(out)]
    return int(subprocess.run(call, check=True, capture_output=True, text=True).stdout) / 1024


def images_per_s(pictures: Pictures, work: Callable[..., None], *out: Path) -> float:
    for folder in out:
        shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    work(pictures, *out)
    return len(pictures.files) / (time.perf_counter() - began)


def main() -> None:
    options = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name, "shards")
        crops, fields = draw(folder / "phantom")
        few, many = (write(folder / str(count), crops, count) for count in (1000, 5000))
        views = write(folder / "fields", fields, 140)

        def rate(
            question: str, pictures: Pictures, work: Callable[..., None], goal: str | None = None
        ) -> Comparison:
            return compare(
                question,
                ("pack", lambda: images_per_s(pictures, work, out)),
                ("decoding and encoding alone", lambda: images_per_s(pictures, limit)),
                unit="images/s",
                goals={"ratio": goal} if goal else {},
                pairs=options.pairs,
                warmup=work is packed,
            )

        comparisons = [
            rate("pack, 5,000 cells of 512x512", many, packed, ">= 0.7"),
            rate("pack, 140 fields of 2592x1944", views, packed, ">= 0.7"),
            rate("pack, 5,000 cells, the whole command", many, command),
            compare(
                "pack, peak memory",
                ("5,000 images", lambda: peak(many, out)),
                ("1,000 images", lambda: peak(few, out)),
                unit="MB",
                goals={"ratio": "<= 1.10"},
                pairs=options.pairs,
                warmup=False,
            ),
        ]
    if not options.no_save:
        save("pack", comparisons)


if __name__ == "__main__":
    main()
