"""The index of a large data set: the same table as in memory, checked as it is, in files that are mapped."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from leukotree.data import duplicates, folds, mapped
from leukotree.data.dataset import Dataset
from leukotree.data.fingerprint import packed
from leukotree.data.order import TrainOrder
from leukotree.data.pack import pack
from leukotree.data.remote import scratch
from leukotree.data.stream import Loader
from leukotree.errors import InputError
from leukotree.spec import AugmentSpec, DataSpec, InnerFold
from leukotree.taxonomy import Taxonomy
from tests.helpers.small_data import change_manifest, write_manifest


@pytest.fixture(autouse=True)
def large(monkeypatch, tmp_path):
    """Few samples are many, and a machine that has no index yet."""
    monkeypatch.setattr(mapped, "MANY", 1)
    monkeypatch.setattr(mapped, "_PART", 7)
    monkeypatch.setenv("LEUKOTREE_SCRATCH", str(tmp_path / "scratch"))


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A packed folder with an optional column, unicode names, and copies of a picture."""
    manifest = write_manifest(tmp_path / "images é", patients=4, images=3)
    shutil.copy(manifest.parent / "AML/0_0.png", manifest.parent / "AML/0_1.png")
    change_manifest(manifest, lambda table: table.assign(site=["Ward 1", ""] * 18, source="Zürich"))
    with monkeypatch.context() as patch:
        patch.setattr(mapped, "MANY", 10**9)
        return pack(manifest, tmp_path / "out", folds=3, size=16, workers=1).dataset.folder


def in_memory(folder: Path, monkeypatch) -> Dataset:
    with monkeypatch.context() as patch:
        patch.setattr(mapped, "MANY", 10**9)
        return Dataset.open(folder)


def folders() -> list[Path]:
    return [path for path in (scratch.path().parent / "indexes").iterdir() if path.is_dir()]


def test_it_is_the_table_that_is_read_into_memory(out, monkeypatch):
    small, large = in_memory(out, monkeypatch), Dataset.open(out)
    assert small.mapped is None
    assert large.mapped is not None
    pd.testing.assert_frame_equal(large.index, small.index)
    assert large.fingerprint == small.fingerprint == packed(out).fingerprint
    for name in ("leaf_ids", "shard_ids"):
        np.testing.assert_array_equal(getattr(large, name), getattr(small, name))
    other = Taxonomy.from_nested({"root": {"AML": None, "x": {"normal": None, "APML": None}}})
    np.testing.assert_array_equal(large.on_tree(other).leaf_ids, small.on_tree(other).leaf_ids)
    assert [rows.tolist() for rows in large.copies] == [rows.tolist() for rows in small.copies]
    assert large.copies, "there is a copy to compare"
    assert list(map(large.read, range(36))) == list(map(small.read, range(36)))


def test_the_columns_are_those_of_the_files_without_a_copy(out):
    index = Dataset.open(out).index
    offsets = index["offset"].to_numpy()
    while offsets.base is not None and not isinstance(offsets, np.memmap):
        offsets = offsets.base
    assert isinstance(offsets, np.memmap)
    torch.from_numpy(Dataset.open(out).shard_ids)  # warns of arrays that cannot be written


def test_batches_and_splits_are_those_of_the_table_in_memory(out, monkeypatch):
    small, large = in_memory(out, monkeypatch), Dataset.open(out)
    spec = DataSpec(shards=str(out), test_fold=1, inner=InnerFold(folds=2, fold=1))
    split, expected = (folds.split(data.index, spec) for data in (large, small))
    assert all(np.array_equal(*pair) for pair in zip(split, expected, strict=True))
    steps = []
    for data in (large, small):
        order = TrainOrder(split[0], 4, 0, AugmentSpec(), 16)
        steps.append(list(Loader(data, workers=0).train(order, range(5))))
    for (rows, [batch]), (rows_before, [before]) in zip(*steps, strict=True):
        np.testing.assert_array_equal(rows, rows_before)
        assert torch.equal(batch.images, before.images)


def test_a_machine_converts_an_index_once_and_a_changed_one_again(out, tmp_path):
    Dataset.open(out)
    [folder] = folders()
    inode = (folder / "texts.arrow").stat().st_ino
    assert _opened_elsewhere(out) == Dataset.open(out).fingerprint
    assert (folders()[0] / "texts.arrow").stat().st_ino == inode
    table = pd.read_parquet(out / "index.parquet")
    table["patient"] = table["patient"].replace("AML-0", "AML-9")
    table["group"] = table["group"].str.replace("AML-0", "AML-9")
    table.to_parquet(out / "index.parquet", index=False)
    again = Dataset.open(out)
    assert "AML-9" in set(again.index["patient"])
    assert len(folders()) == 2


def _opened_elsewhere(folder: Path) -> str:
    """The fingerprint, as another process finds it that may not convert."""
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        return pool.apply(_fingerprint, (folder,))


def _fingerprint(folder: Path) -> str:
    mapped._convert = None  # type: ignore[assignment]
    from leukotree.data import dataset

    dataset._mapped.cache_clear()
    return Dataset.open(folder).fingerprint


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.assign(key=table["key"].iloc[0]), "row 1: key '.*' is there twice"),
        (
            lambda table: table.assign(shard="../elsewhere.tar"),
            "row 0: shard '../elsewhere.tar' is not allowed",
        ),
        (
            lambda table: table.assign(leaf=["AML"] * 20 + ["nobody"] * 16),
            "row 20: leaf 'nobody' is not a leaf",
        ),
        (lambda table: table.assign(source=[*table["source"][:-1], None]), "column 'source' must hold texts"),
        (lambda table: table.assign(offset=table["offset"] + 1), "no sample begins at byte"),
        (lambda table: table.assign(length=-1), "column 'length' must hold whole numbers from 0"),
        (lambda table: table.drop(columns="sha256"), "column 'sha256' is missing"),
        (lambda table: table.iloc[:-1], "35 rows, but dataset.json counts 36"),
    ],
)
def test_a_wrong_row_is_named_as_in_memory_and_nothing_is_kept(out, monkeypatch, change, says):
    change(pd.read_parquet(out / "index.parquet")).to_parquet(out / "index.parquet", index=False)
    with pytest.raises(InputError, match=says) as refused:
        Dataset.open(out)
    with pytest.raises(InputError) as expected:
        in_memory(out, monkeypatch)
    assert str(refused.value) == str(expected.value)
    assert folders() == []


def test_a_row_is_named_by_its_place_in_the_whole_file(out):
    table = pd.read_parquet(out / "index.parquet")
    table.loc[23, "sha256"] = "no digest"
    table.to_parquet(out / "index.parquet", index=False)
    with pytest.raises(InputError, match=r"row 23: sha256 'no digest' is not allowed"):
        Dataset.open(out)


def test_texts_that_a_file_keeps_in_a_dictionary_are_texts(out, monkeypatch):
    table = pq.read_table(out / "index.parquet").to_pandas().astype({"leaf": "category"})
    table.to_parquet(out / "index.parquet", index=False)
    pd.testing.assert_frame_equal(Dataset.open(out).index, in_memory(out, monkeypatch).index)


def test_a_killed_conversion_is_begun_again(out, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(mapped, "_save_derived", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Dataset.open(out)
    assert folders() == []
    folder = scratch.path().parent / "indexes"
    (
        folder
        / f"{mapped._name(out.absolute() / 'index.parquet', (out / 'dataset.json').read_bytes())}.partial"
    ).mkdir()
    assert len(Dataset.open(out)) == 36
    assert [path.suffix for path in folders()] == [""]


def test_without_room_the_index_is_read_into_memory_and_that_is_said(out, monkeypatch, capsys):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped, "_write_columns", full)
    assert Dataset.open(out).mapped is None
    assert "No space left on device; name another folder with --cache" in capsys.readouterr().err


def test_what_was_used_longest_ago_is_removed(out, tmp_path):
    for number in range(mapped._KEPT + 2):
        shutil.copytree(out, tmp_path / f"copy {number}")
        Dataset.open(tmp_path / f"copy {number}")
    assert len(folders()) == mapped._KEPT


def test_a_set_with_copies_in_two_folds_is_refused(out):
    table = pd.read_parquet(out / "index.parquet")
    first, other = 0, int(table.index[table["fold"] == 2][0])
    table.loc[other, "sha256"] = table.loc[first, "sha256"]
    table.to_parquet(out / "index.parquet", index=False)
    with pytest.raises(InputError, match="exact copies of one picture in different folds or groups"):
        duplicates.refuse(Dataset.open(out))


def test_a_link_in_place_of_the_index_is_refused(out):
    os.rename(out / "index.parquet", out / "elsewhere")
    (out / "index.parquet").symlink_to("elsewhere")
    with pytest.raises(InputError, match="is a link"):
        Dataset.open(out)


def test_the_files_hold_no_objects(out):
    Dataset.open(out)
    [folder] = folders()
    assert {path.suffix for path in folder.iterdir()} == {".arrow", ".npy", ".json"}
    assert json.loads((folder / "stated.json").read_text()).keys() == {"samples"}
    assert folder.stat().st_mode & 0o777 == 0o700
