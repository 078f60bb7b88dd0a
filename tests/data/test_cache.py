"""The cache gives the same images as decoding, whatever happens to its file."""

import multiprocessing
import os
import shutil
import sys

import numpy as np
import pytest

from leukotree.data import cache as module
from leukotree.data.cache import Cache, open_cache
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader, decode
from leukotree.errors import InputError


@pytest.fixture
def dataset(shards) -> Dataset:
    return Dataset.open(shards)


def opened(folder, dataset: Dataset, gigabytes: float = 1.0) -> Cache:
    cache = open_cache(folder, dataset, gigabytes)
    assert cache is not None
    return cache


def filled(folder, dataset: Dataset, gigabytes: float = 1.0) -> Cache:
    cache = opened(folder, dataset, gigabytes)
    with Loader(dataset, workers=2, cache=cache) as loader:
        list(loader.evaluate(np.arange(len(dataset)), 16))
    return cache


def test_it_gives_back_what_was_put(dataset: Dataset, tmp_path) -> None:
    cache = opened(tmp_path, dataset)
    assert cache.get(4) is None
    cache.put(4, decode(dataset, 4))
    image = cache.get(4)
    assert np.array_equal(image, decode(dataset, 4))
    assert not image.flags.writeable
    assert cache.get(5) is None


def test_one_pass_fills_it_for_whoever_opens_it_next(dataset: Dataset, tmp_path) -> None:
    filled(tmp_path, dataset)
    again = opened(tmp_path, dataset)
    assert all(np.array_equal(again.get(row), decode(dataset, row)) for row in range(len(dataset)))
    assert len(list(tmp_path.rglob("*.pixels"))) == 1


def _put(folder, dataset: Dataset, rows: range) -> None:
    cache = opened(folder, dataset)
    for row in rows:
        cache.put(row, decode(dataset, row))


def test_processes_fill_one_file_together(dataset: Dataset, tmp_path) -> None:
    half = len(dataset) // 2
    fork = multiprocessing.get_context("fork")
    ranks = [
        fork.Process(target=_put, args=(tmp_path, dataset, rows))
        for rows in (range(half + 5), range(half, len(dataset)))
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
        assert rank.exitcode == 0
    cache = opened(tmp_path, dataset)
    assert all(np.array_equal(cache.get(row), decode(dataset, row)) for row in range(len(dataset)))


def test_damaged_pixels_are_decoded_again(dataset: Dataset, tmp_path) -> None:
    path = filled(tmp_path, dataset).path
    with open(path, "r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"?????")
    cache = opened(tmp_path, dataset)
    last = len(dataset) - 1
    assert cache.get(last) is None
    cache.put(last, decode(dataset, last))
    assert np.array_equal(opened(tmp_path, dataset).get(last), decode(dataset, last))


@pytest.mark.parametrize("damage", ["empty", "short", "other"])
def test_a_file_that_is_no_cache_is_replaced(dataset: Dataset, tmp_path, damage: str) -> None:
    path = filled(tmp_path, dataset).path
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "short": content[:-1], "other": b"something" + content[9:]}[damage])
    cache = opened(tmp_path, dataset)
    assert cache.get(0) is None
    cache.put(0, decode(dataset, 0))
    assert np.array_equal(cache.get(0), decode(dataset, 0))


def test_a_bound_caches_some_rows_of_every_fold(dataset: Dataset, tmp_path) -> None:
    image = dataset.size**2 * 3
    cache = filled(tmp_path, dataset, (50 * image + 4096) / 1e9)
    held = [row for row in range(len(dataset)) if cache.get(row) is not None]
    assert 40 <= len(held) <= 50
    assert set(dataset.index["fold"].iloc[held]) == set(dataset.index["fold"])
    assert cache.path.stat().st_size <= 50 * image + 4096
    assert all(np.array_equal(cache.get(row), decode(dataset, row)) for row in held)


def test_an_unused_cache_makes_room_and_a_used_one_does_not(dataset: Dataset, tmp_path) -> None:
    """Two data sets of equal size with different fingerprints, and room for one."""
    copy = tmp_path / "copy"
    shutil.copytree(dataset.folder, copy)
    (copy / "dataset.json").write_text((copy / "dataset.json").read_text() + "\n")
    other = Dataset.open(copy)
    room = 1.5 * len(dataset) * dataset.size**2 * 3 / 1e9
    first = filled(tmp_path / "cache", dataset, room)
    half = opened(tmp_path / "cache", other, room)
    assert first.path.exists()
    assert half.capacity < len(other)
    used, second = first.path, half.path
    del first, half  # the mappings hold the files
    second.unlink()
    assert opened(tmp_path / "cache", other, room).capacity == len(other)
    assert not used.exists()


def test_without_room_there_is_a_warning_and_no_cache(dataset: Dataset, tmp_path, capsys) -> None:
    assert open_cache(tmp_path, dataset, 1e-9) is None
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "no room" in warning
    assert not list(tmp_path.rglob("*.pixels"))


def test_a_folder_that_cannot_be_made_gives_a_warning_and_no_cache(
    dataset: Dataset, tmp_path, capsys
) -> None:
    (tmp_path / "file").write_text("")
    assert open_cache(tmp_path / "file", dataset, 1.0) is None
    assert "images are decoded each time" in capsys.readouterr().err


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(dataset: Dataset, tmp_path) -> None:
    """Its owner could change the training data."""
    private = tmp_path / f"leukotree-{os.getuid()}"
    private.mkdir()
    os.chown(private, 12345, 12345)
    with pytest.raises(InputError, match="belongs to another user"):
        open_cache(tmp_path, dataset, 1.0)


def test_the_place_may_name_a_variable_of_the_node(dataset: Dataset, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SCRATCH_OF_NODE", str(tmp_path / "scratch"))
    assert opened("$SCRATCH_OF_NODE/cache", dataset).path.is_relative_to(tmp_path / "scratch" / "cache")


def test_a_variable_that_the_node_lacks_gives_a_warning_and_no_cache(dataset: Dataset, capsys) -> None:
    assert open_cache("$NOT_SET_ON_ANY_NODE/cache", dataset, 1.0) is None
    assert "variable is not set" in capsys.readouterr().err


def test_a_full_disk_only_stops_the_filling(dataset: Dataset, tmp_path, capsys, monkeypatch) -> None:
    """On file systems that reserve no space. This one does, so pwrite is replaced."""
    cache = opened(tmp_path, dataset)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "pwrite", full)
    cache.put(0, decode(dataset, 0))
    cache.put(1, decode(dataset, 1))
    assert capsys.readouterr().err.count("No space left on device") == 1
    monkeypatch.undo()
    assert cache.get(0) is None


def test_checksums_have_the_byte_order_of_the_machine() -> None:
    """The file stays on its node, so its numbers have the node's byte order."""
    assert np.frombuffer((258).to_bytes(8, sys.byteorder), np.uint64)[0] == 258
