"""Images are prepared as `pack` prepares them, byte for byte, and decoded as training decodes them."""

from __future__ import annotations

import functools
import signal
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from leukotree import signals
from leukotree.data.dataset import Dataset
from leukotree.data.pack import pack
from leukotree.data.stream import Loader
from leukotree.errors import InputError, Preempted
from leukotree.inference import images, inputs
from leukotree.inference.loaded import Prepared
from tests.helpers.small_data import LEAVES, noise

PREPARED = Prepared(48, 95)


def test_source_files_become_the_packed_images(phantom_manifest: Path, shards: Path) -> None:
    index = Dataset.open(shards).index.set_index("image")
    with (
        inputs.opened([str(phantom_manifest)]) as table,
        images.of_files(table, PREPARED, workers=2) as prepared,
    ):
        rows = prepared.table
        assert rows["sha256"].tolist() == index.loc[rows["image"], "sha256"].tolist()
        assert rows["leaf"].tolist() == index.loc[rows["image"], "leaf"].tolist()


def test_the_boxes_of_a_manifest_are_cut_as_those_of_the_shards(tmp_path: Path) -> None:
    """Margin and square are those of the data set that a run was trained on."""
    rows = []
    for number in range(4):
        Image.fromarray(noise(number)).save(tmp_path / f"{number}.png")
        rows += [(f"{number}.png", LEAVES[number % 2], "here", box) for box in ("3 4 20 10", "30 20 20 20")]
    table = pd.DataFrame(rows, columns=["image", "leaf", "source", "box"]).assign(patient="")
    table.to_csv(tmp_path / "m.csv", index=False)
    options = {"size": 24, "folds": 2, "box_margin": 0.25, "box_square": True}
    dataset = pack(tmp_path / "m.csv", tmp_path / "out", **options).dataset
    packed = dataset.index.set_index("image")["sha256"]
    with (
        inputs.opened([str(tmp_path / "m.csv")]) as frame,
        images.of_files(frame, Prepared(**dataset.preparation), workers=2) as prepared,
    ):
        assert prepared.table["image"].tolist()[0] == "0.png#xywh=3,4,20,10"
        assert prepared.table["sha256"].tolist() == packed.loc[prepared.table["image"]].tolist()
        assert "box" not in prepared.table


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_have_the_pixels_and_the_memory_of_those_of_training(workers: int, shards: Path) -> None:
    dataset = Dataset.open(shards)
    rows = np.flatnonzero(dataset.index["fold"] == 1)
    mine = images.of_shards(shards, PREPARED, fold=1)
    with Loader(dataset, workers=0) as loader:
        expected = list(loader.evaluate(rows, 5))
    batches = list(images.batches(mine, np.arange(len(rows)), 5, workers))
    assert [numbers.tolist() for numbers, _ in batches] == [
        list(range(at, min(at + 5, len(rows)))) for at in range(0, len(rows), 5)
    ]
    for (_, pixels), batch in zip(batches, expected, strict=True):
        assert pixels.equal(batch.images)
        assert pixels.stride() == batch.images.stride()


def test_shards_of_another_size_are_refused(shards: Path) -> None:
    with pytest.raises(InputError, match=r"packed at 48 pixels, and the model takes 64.*--size 64"):
        images.of_shards(shards, Prepared(64, 95))


def test_another_quality_is_said(shards: Path) -> None:
    assert "quality 95" in images.of_shards(shards, Prepared(48, 80)).notes[0]


def test_a_full_disk_is_one_line_that_names_the_folder(
    phantom_manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full gives the error of a full disk at each write."""
    full = functools.partial(open, "/dev/full", "r+b", buffering=0)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full())
    with (
        inputs.opened([str(phantom_manifest)]) as table,
        pytest.raises(InputError, match=r"no room for the prepared images.*TMPDIR"),
        images.of_files(table, PREPARED, workers=1),
    ):
        pass


def test_nothing_is_left_of_only_broken_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    table = pd.DataFrame([(str(tmp_path / "a.png"), "a.png", "", "", "")], columns=list(inputs.COLUMNS))
    with (
        pytest.raises(InputError, match=r"a.png \(empty.*none is left"),
        images.of_files(table, PREPARED, 1, True),
    ):
        pass


def test_a_signal_ends_the_preparation_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    Image.new("RGB", (8, 8), "plum").save(tmp_path / "a.png")
    table = pd.DataFrame({"path": [str(tmp_path / "a.png")] * 3, "image": ["a", "b", "c"]})
    monkeypatch.setattr(signals, "_received", signal.SIGTERM)
    with pytest.raises(Preempted, match="0 of 3 images are prepared"), images.of_files(table, PREPARED, 1):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
