"""Data that is broken or hostile: each input is refused through the command line, in one line that names it,
with exit code 2.

What can be known before training is refused before a run folder is begun; the rest when the sample is first
read, and then the run's own status says the same.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.commandline import assert_refused, leukotree
from tests.helpers.small_data import bomb, overwrite

SHARD = "fold1-000000.tar"
TWICE = b'{"format": 1, "format": 1}'


@pytest.fixture
def packed(shards: Path, tmp_path: Path) -> Path:
    """A copy of the phantom set that a test may spoil."""
    shutil.copytree(shards, tmp_path / "shards")
    return tmp_path / "shards"


@pytest.fixture
def spec(packed: Path, tmp_path: Path) -> Path:
    content = {
        "data": {"shards": "shards"},
        "backbone": {"name": "test_vit"},
        "optim": {"batch_size": 8, "epochs": 1, "lr": 1e-3},
        "engine": {"precision": "fp32"},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "run.yaml"


def index(folder: Path, change: Callable[[pd.DataFrame], object]) -> None:
    frame = pd.read_parquet(folder / "index.parquet")
    changed = change(frame)
    whole = changed if isinstance(changed, pd.DataFrame) else frame
    whole.to_parquet(folder / "index.parquet", index=False)


def cell(row: int, column: str, value: object) -> Callable[[Path], None]:
    """Write a value into the index."""
    return lambda folder: index(
        folder,
        lambda frame: frame.isetitem(
            frame.columns.get_loc(column),
            [value if place == row else old for place, old in enumerate(frame[column])],
        ),
    )


def described(**changes: object) -> Callable[[Path], object]:
    """Write values into dataset.json."""

    def write(folder: Path) -> None:
        old = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(old | changes))

    return write


def members(change: Callable[[tarfile.TarInfo, int], None]) -> Callable[[Path], None]:
    """Write a shard again with changed members, as another program may have made them."""

    def write(folder: Path) -> None:
        old = folder / SHARD
        with tarfile.open(old) as source, tarfile.open(folder / "new", "w") as target:
            for number, member in enumerate(source.getmembers()):
                content = source.extractfile(member)
                change(member, number)
                target.addfile(member, content if member.isreg() else None)
        os.replace(folder / "new", old)

    return write


def escape(member: tarfile.TarInfo, number: int) -> None:
    if number == 0:
        member.name = "../../evil.jpg"


def link(member: tarfile.TarInfo, number: int) -> None:
    if number == 0:
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"


def linked(name: str) -> Callable[[Path], None]:
    """The file is a link to a copy elsewhere."""

    def replace(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return replace


def piped(folder: Path) -> None:
    (folder / "index.parquet").unlink()
    os.mkfifo(folder / "index.parquet")


def zeros(folder: Path) -> None:
    size = (folder / SHARD).stat().st_size
    (folder / SHARD).write_bytes(bytes(size))


def unlike(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


BEFORE = {
    "no shard": (lambda folder: (folder / SHARD).unlink(), SHARD, "no such shard"),
    "shard cut short": (lambda folder: os.truncate(folder / SHARD, 3000), SHARD, "3000 bytes"),
    "shard of zeros": (zeros, SHARD, "no tar header"),
    "shard replaced": (
        lambda folder: shutil.copy(folder / "fold0-000000.tar", folder / SHARD),
        SHARD,
        "sample",
    ),
    "shard is a link": (linked(SHARD), SHARD, "is a link"),
    "member path with ..": (members(escape), SHARD, "../../evil.jpg"),
    "member is a link": (members(link), SHARD, "not a plain file"),
    "no index": (lambda folder: (folder / "index.parquet").unlink(), "index.parquet", "No such file"),
    "index cut short": (
        lambda folder: os.truncate(folder / "index.parquet", 900),
        "index.parquet",
        "Parquet",
    ),
    "index is a link": (linked("index.parquet"), "index.parquet", "is a link"),
    "index is a pipe": (piped, "index.parquet", "no plain file"),
    "index names another folder": (
        cell(3, "shard", "../other/fold0-000000.tar"),
        "index.parquet row 3",
        "../other",
    ),
    "index names a shard without end": (
        cell(3, "shard", "fold" + "9" * 30 + "-000000.tar"),
        "index.parquet row 3",
        "shard",
    ),
    "index lacks a row": (
        lambda folder: index(folder, lambda frame: frame.iloc[1:]),
        "index.parquet",
        "167 rows",
    ),
    "index has an offset beside a sample": (cell(0, "offset", 1024), "fold0-000000.tar", "no tar header"),
    "index has an offset in the header": (cell(3, "offset", 100), "index.parquet row 3", "byte 100"),
    "index has an offset without end": (cell(3, "offset", 2**62), "index.parquet", "offset"),
    "index has two samples in one place": (
        lambda folder: index(
            folder, lambda frame: frame.isetitem(8, [frame["offset"][1], *frame["offset"][1:]])
        ),
        "index.parquet",
        "another sample",
    ),
    "index has another fold": (cell(3, "fold", 3), "index.parquet row 3", "is not of fold 3"),
    "no dataset.json": (lambda folder: (folder / "dataset.json").unlink(), "dataset.json", "No such file"),
    "dataset.json is garbage": (unlike("dataset.json", os.urandom(200)), "dataset.json", "not valid JSON"),
    "dataset.json is deep": (unlike("dataset.json", b"[" * 10**5), "dataset.json", "not valid JSON"),
    "dataset.json gives a key twice": (
        unlike("dataset.json", TWICE),
        "dataset.json",
        "'format' is given twice",
    ),
    "dataset.json has NaN": (described(size=float("nan")), "dataset.json", "size"),
    "dataset.json has a huge number": (described(size=10**30), "dataset.json", "size"),
    "dataset.json has more folds": (described(folds=9), "index.parquet", "4 folds"),
    "dataset.json has other counts": (described(counts={"normal": 168}), "index.parquet", "counts"),
    "dataset.json has another tree": (
        described(taxonomy={"root": ["a", "b"]}),
        "index.parquet",
        "not a leaf",
    ),
}


@pytest.mark.parametrize("what", BEFORE)
def test_a_data_set_that_is_known_to_be_broken_is_refused_before_a_run_is_begun(
    what: str, packed: Path, spec: Path
) -> None:
    spoil, *says = BEFORE[what]
    spoil(packed)
    assert_refused(leukotree("train", spec, cwd=spec.parent), *says)
    assert not (spec.parent / "results").exists()


def swapped(folder: Path) -> str:
    """Two neighbours of a shard change their places in the index: neither the first nor the last of it."""
    frame = pd.read_parquet(folder / "index.parquet")
    columns = ["offset", "length"]
    frame.loc[[2, 3], columns] = frame.loc[[3, 2], columns].to_numpy()
    frame.to_parquet(folder / "index.parquet", index=False)
    return str(frame["key"][2])


WHILE_READING = {
    "JPEG changed after packing": (lambda folder: overwrite(folder, 5, b"another", indexed=False), "sha256"),
    "JPEG corrupt since packing": (
        lambda folder: overwrite(folder, 5, b"\xff\xd8 no image", indexed=True),
        "does not decode",
    ),
    "decompression bomb": (lambda folder: overwrite(folder, 5, bomb(), indexed=True), "65000x65000"),
    "index names another sample's place": (swapped, "is in its place"),
}


@pytest.mark.parametrize("what", WHILE_READING)
def test_a_broken_sample_is_named_when_it_is_first_read(what: str, packed: Path, spec: Path) -> None:
    spoil, says = WHILE_READING[what]
    key = spoil(packed)
    # Whichever of two swapped samples comes first; the fold of both is trained on.
    done = leukotree("train", spec, "data.test_fold=1", "--workers", 2, cwd=spec.parent)
    assert_refused(done, says, *([] if what.startswith("index") else [key]))
    [status] = spec.parent.glob("results/runs/single/*/status.json")
    written = json.loads(status.read_text())
    assert (written["state"], written["kind"]) == ("failed", "error")
    assert written["message"] in done.stderr
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 * 2**20, "kilobytes: the bomb went off"


@pytest.mark.slow("starts ranks")
def test_a_broken_sample_of_one_rank_is_the_line_of_both(
    packed: Path, spec: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = overwrite(packed, 5, b"another", indexed=False)
    done = leukotree("train", spec, "data.test_fold=1", "--ranks", 2, "--threads", 1, cwd=spec.parent)
    assert_refused(done, key, "sha256")
    assert "Traceback" not in capfd.readouterr().err
    [status] = spec.parent.glob("results/runs/single/*/status.json")
    written = json.loads(status.read_text())
    assert (written["state"], written["kind"]) == ("failed", "error"), "whichever rank it was"
    assert key in written["message"]


class Trap:
    """Pickled, it is a call."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.sprung), "w")


WEIGHTS: dict[str, Callable[[Path, Path], object]] = {
    "code.pt": lambda file, sprung: torch.save({"head": torch.zeros(2), "trap": Trap(sprung)}, file),
    "code-old.pth": lambda file, sprung: torch.save(Trap(sprung), file, _use_new_zipfile_serialization=False),
    "cut.pt": lambda file, sprung: (torch.save({"head": torch.zeros(10**4)}, file), os.truncate(file, 9000)),
    "garbage.pth": lambda file, sprung: file.write_bytes(os.urandom(500)),
    "empty.pt": lambda file, sprung: file.write_bytes(b""),
    "nothing.pt": lambda file, sprung: torch.save({"epoch": 3}, file),
    "cut.safetensors": lambda file, sprung: (
        save_file({"head": torch.zeros(10**4)}, file),
        os.truncate(file, 9000),
    ),
    "garbage.safetensors": lambda file, sprung: file.write_bytes(b"\xff" * 100),
    "folder.pt": lambda file, sprung: file.mkdir(),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_load_as_tensors_only(name: str, spec: Path) -> None:
    sprung = spec.parent / "sprung"
    WEIGHTS[name](spec.parent / name, sprung)
    assert_refused(leukotree("train", spec, f"backbone.weights={name}", cwd=spec.parent), name)
    assert not sprung.exists()
    assert not (spec.parent / "results").exists()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
TEXTS = {
    "alias bomb": BOMB.encode(),
    "alias inside itself": b"data: &a {shards: *a}",
    "deep": b"data: " + b"{a: " * 500 + b"}" * 500,
    "garbage": bytes(range(128, 256)) * 3,
    "UTF-16": "data: {shards: x}".encode("utf-16"),
    "NUL": b"data: \0",
    "huge file": b"# " + b"x" * 3 * 2**20,
    "huge number": b"seed: 0x" + b"f" * 4000,
    "two keys": b"seed: 1\nseed: 2",
    "two documents": b"seed: 1\n---\nseed: 2",
    "a list": b"[seed, 1]",
    "code": b"seed: !!python/object/apply:os.getpid []",
    "a date": b"seed: 2020-01-01",
}
"""Files that hold no settings."""


@pytest.mark.parametrize("what", TEXTS)
@pytest.mark.parametrize(
    "command", [["train"], ["sweep"], ["folds"], ["doctor", "--site"], ["pack", "m.csv", "out", "--taxonomy"]]
)
def test_a_file_that_holds_no_settings_is_refused(command: list[str], what: str, tmp_path: Path) -> None:
    (tmp_path / "hostile.yaml").write_bytes(TEXTS[what])
    assert_refused(leukotree(*command, "hostile.yaml", cwd=tmp_path), "hostile.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.yaml"]


@pytest.mark.parametrize(
    "value", [".nan", ".inf", "-.inf", "1e400", "0", "-1", "[1]", "{a: 1}", "yes please"]
)
def test_a_value_that_is_not_a_number_is_refused(value: str, spec: Path) -> None:
    assert_refused(leukotree("train", spec, f"optim.lr={value}", cwd=spec.parent), "optim.lr")
    assert not (spec.parent / "results").exists()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Four images with a manifest, and one outside of its folder."""
    (tmp_path / "raw").mkdir()
    rows = []
    for number in range(4):
        Image.fromarray(np.full((20, 20, 3), 60 * number, np.uint8)).save(tmp_path / f"raw/{number}.png")
        rows.append([f"{number}.png", ("normal", "AML")[number % 2], f"p{number}", "here"])
    shutil.copy(tmp_path / "raw/0.png", tmp_path / "secret.png")
    pd.DataFrame(rows, columns=["image", "leaf", "patient", "source"]).to_csv(
        tmp_path / "raw/manifest.csv", index=False
    )
    return tmp_path / "raw"


def png_bomb() -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


def patched(form: str, old: bytes, new: bytes) -> bytes:
    """A small image whose header then says that it is a large one."""
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (37, 37)).save(buffer, form)
    assert old in buffer.getvalue()
    return buffer.getvalue().replace(old, new)


SMALL, LARGE = (37).to_bytes(4, "little"), (60_000).to_bytes(4, "little")
IMAGES: dict[str, tuple[bytes, str]] = {
    "jpeg": (bomb(), "limit"),
    "png": (png_bomb(), "limit"),
    "bmp": (patched("BMP", SMALL * 2, LARGE * 2), "limit"),
    "tiff": (patched("TIFF", b"\x04\x00\x01\x00\x00\x00" + SMALL, b"\x04\x00\x01\x00\x00\x00" + LARGE), ""),
    "gif": (patched("GIF", SMALL[:2] * 2, LARGE[:2] * 2), "limit"),
    "ppm": (b"P6 60000 60000 255\n" + bytes(1000), "limit"),
    "cut": (patched("PNG", b"IEND", b"IEND")[:60], ""),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS or PostScript drawing"),
    "empty": (b"", "empty (0 bytes)"),
    "unknown": (bytes(range(256)), "no image of a format"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_that_is_broken_or_a_bomb_is_named_and_nothing_is_left(kind: str, raw: Path) -> None:
    content, says = IMAGES[kind]
    (raw / "2.png").write_bytes(content)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = leukotree("pack", raw / "manifest.csv", "out", "--folds", 2, "--size", 16, cwd=raw.parent)
    assert_refused(done, "2.png", says, "--drop-broken")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000, "kilobytes: the bomb went off"
    assert sorted(path.name for path in raw.parent.iterdir()) == ["raw", "secret.png"]


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("../secret.png", "outside"),
        ("/etc/passwd", "absolute"),
        ("way.png", "outside"),
        ("pipe.png", "not a file"),
    ],
)
def test_a_manifest_cannot_leave_its_folder(image: str, says: str, raw: Path) -> None:
    (raw / "way.png").symlink_to(raw.parent / "secret.png")
    os.mkfifo(raw / "pipe.png")
    text = (raw / "manifest.csv").read_text().replace("2.png", image)
    (raw / "manifest.csv").write_text(text)
    assert_refused(
        leukotree("pack", raw / "manifest.csv", "out", "--folds", 2, cwd=raw.parent),
        "manifest.csv row 4",
        image,
        says,
    )


def test_an_import_leaves_links_out_of_the_folder_alone(tmp_path: Path) -> None:
    for leaf, target in (("normal", "/etc/passwd"), ("AML", "/etc/group")):
        (tmp_path / "own" / leaf / "p1").mkdir(parents=True)
        (tmp_path / "own" / leaf / "p1/way.png").symlink_to(target)
    message = "own/AML/p1/way.png: a link out of the data set, to /etc/group"
    assert_refused(leukotree("import", "folder", "own", "own.csv", cwd=tmp_path), message, "--follow-links")
    assert not (tmp_path / "own.csv").exists()
