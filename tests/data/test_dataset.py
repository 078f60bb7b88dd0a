"""The data set opens what pack wrote, reads any sample, and refuses a folder that contradicts itself."""

import errno
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from leukotree.data.dataset import Dataset
from leukotree.data.index import COLUMNS
from leukotree.data.pack import pack
from leukotree.errors import InputError, RunFailed, kind
from tests.helpers.small_data import overwrite, write_manifest


@pytest.fixture
def folder(tmp_path):
    pack(write_manifest(tmp_path / "raw"), tmp_path / "set", folds=3, size=16, samples_per_shard=5, workers=1)
    return tmp_path / "set"


def test_open(folder):
    data = Dataset.open(folder)
    assert (data.size, data.folds, data.group, len(data)) == (16, 3, "patient", 36)
    assert tuple(data.index.columns) == (*COLUMNS, "image")
    assert data.taxonomy.leaves == ("normal", "AML", "APML")
    assert data.leaf_ids.dtype == np.int64
    assert [data.taxonomy.leaves[leaf] for leaf in data.leaf_ids] == list(data.index["leaf"])
    content = (folder / "dataset.json").read_bytes() + (folder / "index.parquet").read_bytes()
    assert data.fingerprint == hashlib.sha256(content).hexdigest()


def digests(data):
    return [hashlib.sha256(data.read(row)).hexdigest() for row in range(len(data))]


def test_read_gives_the_indexed_bytes_here_in_threads_and_in_other_processes(folder):
    data = Dataset.open(folder)
    expected = list(data.index["sha256"])
    assert digests(data) == expected
    assert digests(pickle.loads(pickle.dumps(data))) == expected
    with ThreadPoolExecutor(4) as pool:
        assert [
            hashlib.sha256(jpeg).hexdigest() for jpeg in pool.map(data.read, range(len(data)))
        ] == expected
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as processes:
            assert processes.apply(digests, (data,)) == expected


def test_a_relative_folder_is_another_one_in_another_working_directory(folder, tmp_path, monkeypatch):
    """Neither the open shards nor the memory of checked samples of the first folder serve the second."""
    for name in ("first", "second"):
        shutil.copytree(folder, tmp_path / name / "set")
    key = overwrite(tmp_path / "second" / "set", 5, b"another", indexed=False)
    monkeypatch.chdir(tmp_path / "first")
    first, unread = Dataset.open("set"), Dataset.open("set").on_tree(Dataset.open("set").taxonomy)
    assert digests(first) == list(first.index["sha256"])
    monkeypatch.chdir(tmp_path / "second")
    with pytest.raises(InputError, match=f"sample {key}: its bytes are not those that were packed"):
        digests(Dataset.open("set"))
    for opened in (first, unread):  # they stay where they were
        assert digests(opened) == list(first.index["sha256"])


@pytest.mark.slow("reads and packs many images")
def test_open_files_are_bounded(tmp_path):
    """With more shards than the limit at most 256 files are open, and every byte is right."""
    manifest = write_manifest(tmp_path / "raw", patients=100, images=1)
    pack(manifest, tmp_path / "many", folds=2, size=8, samples_per_shard=1, workers=1)
    data = Dataset.open(tmp_path / "many")
    assert data.index["shard"].nunique() == 300
    before = len(os.listdir("/proc/self/fd"))
    assert digests(data) == list(data.index["sha256"])
    assert len(os.listdir("/proc/self/fd")) - before <= 256


def refused(folder, *patterns):
    with pytest.raises(InputError) as refusal:
        Dataset.open(folder)
    assert "\n" not in str(refusal.value)
    for pattern in (str(folder), *patterns):
        assert re.search(pattern, str(refusal.value)), str(refusal.value)


def test_missing_parts(tmp_path, folder):
    refused(tmp_path / "nowhere", "no such folder")
    for name in ("index.parquet", "dataset.json"):
        (folder / name).unlink()
        refused(folder, name, "No such file", "leukotree pack")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2, this version reads format 1"),
        ({"format": None}, "format None"),
        ({"size": "large"}, "size: .*integer.*'large'"),
        ({"folds": 1}, "folds"),
        ({"group": "hospital"}, "group: .*'hospital'"),
        (
            {"taxonomy": {"root": {"normal": None}}},
            "dataset.json: taxonomy: a tree needs at least two leaves",
        ),
        ({"taxonomy": {"root": ["normal", "AML"]}}, "index.parquet row .*leaf 'APML' is not a leaf"),
        ({"counts": {"normal": 36}}, "index.parquet: holds .* but dataset.json counts"),
        ({"folds": 2}, "fold 2 is beyond the 2 folds"),
        ({"dropped": [{"image": "a.png"}]}, "dropped.0.reason"),
    ],
)
def test_description_that_is_wrong(folder, change, message):
    described = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**described, **change}))
    refused(folder, message)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff", '{"format": 1}', "[" * 100_000])
def test_description_that_is_malformed(folder, text):
    (folder / "dataset.json").write_text(text, encoding="latin-1")
    refused(folder, "dataset.json")


def edit(folder, row, **values):
    index = pd.read_parquet(folder / "index.parquet")
    for name, value in values.items():
        index[name] = index[name].astype(object)
        index.loc[row, name] = value
    index.infer_objects().to_parquet(folder / "index.parquet", index=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"leaf": "platelet"}, "row 3: leaf 'platelet' is not a leaf"),
        ({"shard": "../set/fold0-000000.tar"}, "row 3: shard .* is not allowed"),
        ({"shard": "/etc/passwd"}, "row 3: shard '/etc/passwd' is not allowed"),
        ({"shard": ".."}, "row 3: shard"),
        ({"shard": "fold0-000000.tar\n"}, "row 3: shard"),
        ({"shard": "fold2-000000.tar"}, "row 3: shard 'fold2-000000.tar' is not of fold 0"),
        ({"shard": "fold0-000009.tar"}, "fold0-000009.tar: no such shard"),
        ({"key": "a/b"}, "row 3: key 'a/b' is not allowed"),
        ({"sha256": "0"}, "row 3: sha256"),
        ({"group": ""}, "row 3: group ''"),
        ({"patient": None}, "column 'patient' must hold texts"),
        ({"offset": -1}, "column 'offset' must hold whole numbers"),
        ({"offset": None}, "column 'offset' must hold whole numbers"),
        ({"length": 10**9}, r"fold0-000000.tar: \d+ bytes, but a sample ends at byte 1\d+"),
        ({"length": 0}, "row 3: length 0"),
        ({"length": 10**12}, "row 3: length 1000000000000 is no image"),
        ({"fold": 7}, "row 3: fold 7 is beyond the 3 folds"),
    ],
)
def test_index_that_is_wrong(folder, values, message):
    edit(folder, 3, **values)
    refused(folder, message)


def test_index_that_is_malformed(folder):
    index = pd.read_parquet(folder / "index.parquet")
    edit(folder, 3, key=index["key"].iloc[4])
    refused(folder, "row 4: key .* is there twice")
    index.drop(columns="group").to_parquet(folder / "index.parquet")
    refused(folder, "column 'group' is missing")
    index.iloc[:0].to_parquet(folder / "index.parquet")
    refused(folder, "no samples")
    whole = io.BytesIO()
    index.to_parquet(whole)
    (folder / "index.parquet").write_bytes(whole.getvalue()[:-100])
    refused(folder, "not a readable Parquet file")


def test_shards_that_are_wrong(folder, tmp_path):
    shard = folder / "fold1-000000.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:2000])
    refused(folder, "fold1-000000.tar: 2000 bytes, but a sample ends at byte")
    shard.unlink()
    refused(folder, "fold1-000000.tar: no such shard")
    (tmp_path / "elsewhere.tar").write_bytes(whole)
    shard.symlink_to(tmp_path / "elsewhere.tar")
    refused(folder, "fold1-000000.tar: is a link")


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_an_unavailable_file_system_is_no_error_of_the_data(folder, monkeypatch, code):
    data = Dataset.open(folder)

    def unavailable(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pread", unavailable)
    with pytest.raises(RunFailed, match=r"fold0-000000.tar: sample .* cannot be read: ") as caught:
        data.read(0)
    assert kind(caught.value) == "node"


def test_shards_that_change_after_opening(folder):
    data = Dataset.open(folder)
    row = int(data.index.index[data.index["shard"] == "fold1-000000.tar"][-1])
    shard = folder / "fold1-000000.tar"
    os.truncate(shard, 1000)
    with pytest.raises(
        InputError, match=rf"fold1-000000.tar: ends before byte .*{data.index['key'].iloc[row]}"
    ):
        data.read(row)
    (folder / "fold2-000000.tar").unlink()
    with pytest.raises(InputError, match=r"fold2-000000.tar: sample .* cannot be read: No such file"):
        data.read(int(data.index.index[data.index["fold"] == 2][0]))
