"""The index of a large data set, mapped: checked once per machine, and shared by all its processes.

The table of ten million samples takes gigabytes. So its columns are written once, beside other caches of this
machine, as files that a process maps: opening reads none of them, and processes share the pages that they
use. The folder is private to the user, since what is in it is not checked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd

from leukotree import files, progress
from leukotree.data import duplicates, index
from leukotree.data.remote import scratch
from leukotree.errors import InputError
from leukotree.log import logger
from leukotree.taxonomy import Taxonomy

if TYPE_CHECKING:
    import pyarrow as pa

MANY = 2**20
"""Samples from which on an index is mapped. Reading a smaller one takes a second or two."""
_FORMAT = 1
"""Changes with the files below."""
_TEXTS, _STATED = "texts.arrow", "stated.json"
_PART = 2**18
"""Rows that are converted at a time."""
_KEPT = 4
"""Indexes that are kept on a machine. The one that was used longest ago is removed first."""


class Mapped(NamedTuple):
    """A checked index, and what follows from it."""

    table: pd.DataFrame
    """As `index.read_index` returns it."""
    samples: str
    """See `Dataset.samples`."""
    leaf_ids: np.ndarray
    """(N,) int64: position of each sample's leaf in the leaves of dataset.json's tree."""
    shard_ids: np.ndarray
    """See `Dataset.shard_ids`."""
    copies: list[np.ndarray]
    """The sets of rows with equal bytes, as `duplicates.copies` gives them."""


def opened(
    path: Path, description: bytes, folds: int, counts: Mapping[str, int], taxonomy: Taxonomy
) -> Mapped | None:
    """Map an index; it is converted and checked if this machine has not done so.

    Args:
        path: the Parquet file.
        description: the bytes of dataset.json.
        folds, counts, taxonomy: what they state.

    Returns None, with a warning, where this machine has no room for the files. Raises InputError as
    `index.read_index`.
    """
    path = path.absolute()
    try:
        root = scratch.made().parent / "indexes"
        root.mkdir(mode=0o700, exist_ok=True)
        folder = root / _name(path, description)
        with files.waited_lock(root / ".lock"):
            if not (folder / _STATED).exists():
                _make_room(root)
                _convert(path, description, folder, folds, counts, taxonomy)
            os.utime(folder)
            return _mapped(folder)
    except OSError as error:
        logger.warning(
            f"{path}: is read into the memory of each process, since {scratch.path()} cannot hold it: "
            f"{error.strerror or error}; name another folder with --cache"
        )
        return None


def _name(path: Path, description: bytes) -> str:
    state = files.state(path.stat())
    identity = json.dumps([_FORMAT, str(path), state, hashlib.sha256(description).hexdigest()])
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def _convert(
    path: Path,
    description: bytes,
    folder: Path,
    folds: int,
    counts: Mapping[str, int],
    taxonomy: Taxonomy,
) -> None:
    """Write the files of a folder. It gets its name when all of them are there, and the rows are checked."""
    working = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(mode=0o700)
    try:
        before = path.stat()
        progress.step(f"preparing the index of {sum(counts.values()):,} images, once on this machine")
        with open(path, "rb", opener=_plainly) as file:
            digest = hashlib.sha256(description)
            while content := file.read(2**24):
                digest.update(content)
            _write_columns(path, file, working, sum(counts.values()))
        table = _frame(working)
        index.check(path, table, folds, counts, taxonomy)
        _save_derived(table, taxonomy, working)
        if files.state(path.stat()) != files.state(before):
            raise InputError(f"{path}: was changed while it was read; run again")
        (working / _STATED).write_text(json.dumps({"samples": digest.hexdigest()}))
        os.rename(working, folder)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _plainly(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _write_columns(path: Path, file: Any, working: Path, rows: int) -> None:
    """Write the texts as one Arrow file, and each column of numbers as a NumPy file."""
    import pyarrow as pa

    with index.parquet(path, file, rows) as (table, names):
        texts = [name for name in index.stored(names) if name not in index.INTEGERS]
        schema = pa.schema([(name, pa.large_string()) for name in texts])
        start = 0
        with contextlib.ExitStack() as stack:
            # Written, not mapped: a full disk is then an error, and not the end of the process.
            numbers = {name: stack.enter_context(_numbers(working, name, rows)) for name in index.INTEGERS}
            sink = stack.enter_context(pa.OSFile(str(working / _TEXTS), "wb"))
            writer = stack.enter_context(pa.ipc.new_file(sink, schema))
            for batch in table.iter_batches(_PART, columns=index.present(names)):
                part = index.typed(path, index.filled(batch.to_pandas(), names), start)
                for name, file_of in numbers.items():
                    file_of.write(np.ascontiguousarray(part[name].to_numpy()).data)
                writer.write_batch(pa.RecordBatch.from_pandas(part[texts], schema, preserve_index=False))
                start += len(part)


def _numbers(working: Path, name: str, rows: int) -> BinaryIO:
    """An open NumPy file for so many int64 numbers, which are still to be written."""
    file = open(working / f"{name}.npy", "wb")  # noqa: SIM115 - the caller closes it
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.int64)),
        "fortran_order": False,
        "shape": (rows,),
    }
    np.lib.format.write_array_header_1_0(file, header)
    return file


def _frame(folder: Path) -> pd.DataFrame:
    """The table over mapped files, without a copy."""
    import pyarrow as pa

    with pa.memory_map(str(folder / _TEXTS)) as source:
        texts = pa.ipc.open_file(source).read_all()
    order = index.stored(texts.column_names)
    columns = {
        name: _number(folder, name) if name in index.INTEGERS else _text(texts.column(name)) for name in order
    }
    return pd.DataFrame(columns, copy=False)


def _text(column: pa.ChunkedArray) -> pd.Series:
    return pd.Series(pd.array(column, dtype=pd.StringDtype("pyarrow", na_value=np.nan)), copy=False)


def _number(folder: Path, name: str) -> np.ndarray:
    # Copy on write: PyTorch wants arrays that it could write.
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False))


def _save_derived(table: pd.DataFrame, taxonomy: Taxonomy, working: Path) -> None:
    np.save(working / "leaf_ids.npy", index.leaf_ids(table, taxonomy))
    np.save(working / "shard_ids.npy", pd.factorize(table["shard"])[0].astype(np.int64))
    sets = duplicates.copies(table["sha256"])
    np.save(working / "copies.npy", np.concatenate([np.zeros(0, np.int64), *sets]))
    np.save(working / "copy_ends.npy", np.cumsum([len(rows) for rows in sets], dtype=np.int64))


def _mapped(folder: Path) -> Mapped:
    stated = json.loads((folder / _STATED).read_text())
    copies, ends = _number(folder, "copies"), _number(folder, "copy_ends")
    sets = np.split(copies, ends[:-1]) if len(ends) else []
    leaf_ids, shard_ids = _number(folder, "leaf_ids"), _number(folder, "shard_ids")
    return Mapped(_frame(folder), stated["samples"], leaf_ids, shard_ids, sets)


def _make_room(root: Path) -> None:
    """Remove what was used longest ago. A process that has it mapped keeps it."""
    folders = sorted(
        (entry for entry in root.iterdir() if entry.is_dir()), key=lambda entry: entry.stat().st_mtime
    )
    for folder in folders[: max(0, len(folders) - _KEPT + 1)]:
        shutil.rmtree(folder, ignore_errors=True)
