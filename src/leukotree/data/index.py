"""The index of a packed data set, one row per sample: how it is read and checked."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from leukotree.data import described
from leukotree.data.images import codec
from leukotree.errors import InputError, one_line
from leukotree.taxonomy import Taxonomy

if TYPE_CHECKING:
    import pyarrow.parquet as pq

COLUMNS = ("key", "shard", "fold", "leaf", "patient", "source", "sha256", "group", "offset", "length")
OPTIONAL = {"image": "key"}
"""Columns that older indexes lack -> the column that is used instead.

`image` is the image's name in the manifest, or a number.
"""
INTEGERS = ("fold", "offset", "length")
"""Columns of whole numbers. The others are texts."""
_LARGEST = 2**53
"""Largest number in the index. The sum of two is far below the limit of int64."""
_TEXTS = {  # column -> what a value must match in full
    "key": r"[A-Za-z0-9_-]{1,90}",  # with its ending it fits into the name field of a tar header
    "shard": r"fold[0-9]{1,6}-[0-9]{6,9}\.tar",  # a bare file name: no file outside the folder is opened
    "leaf": r".+",
    "patient": r".*",
    "source": r".*",
    "sha256": r"[0-9a-f]{64}",
    "group": r".+",
    "image": r".+",
}
_AGAIN = "pack the folder again"


def read_index(
    path: Path, content: bytes, folds: int, counts: Mapping[str, int], taxonomy: Taxonomy
) -> pd.DataFrame:
    """Return the checked table: `COLUMNS`, then `OPTIONAL`, then those of `described` that the file has;
    numbers are int64, texts are str.

    Args:
        path: the index's file, for messages.
        content: the bytes of the Parquet file.
        folds, counts, taxonomy: what dataset.json states; counts is leaf -> images.

    Raises InputError naming the file and the row or column that is wrong.
    """
    with parquet(path, io.BytesIO(content), sum(counts.values())) as (file, names):
        stored = file.read(columns=present(names)).to_pandas(ignore_metadata=True)
    table = typed(path, filled(stored, names))
    check(path, table, folds, counts, taxonomy)
    return table


@contextlib.contextmanager
def parquet(path: Path, source: Any, rows: int) -> Iterator[tuple[pq.ParquetFile, list[str]]]:
    """The context in which a Parquet file is read: the file, and the names of its columns.

    Args:
        source: the open file.
        rows: how many dataset.json counts.

    Raises InputError for another number of rows, for a column that lacks or is there twice, and for a file
    that cannot be read, here or in the context.
    """
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(source)
        names = file.schema_arrow.names
        if wrong := [name for name in present(names) if names.count(name) != 1]:
            raise InputError(f"{path}: column {wrong[0]!r} is missing, or there twice; {_AGAIN}")
        stored_rows = file.metadata.num_rows
        if not stored_rows:
            raise InputError(f"{path}: no samples; {_AGAIN}")
        # Checked before the rows are read: a small file can stand for more rows than memory holds.
        if stored_rows != rows:
            raise InputError(f"{path}: {stored_rows} rows, but dataset.json counts {rows}; {_AGAIN}")
        yield file, names
    except InputError:
        raise
    except Exception as error:  # pyarrow raises many kinds
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of the content
            raise
        reason = one_line(error)[:300]
        raise InputError(f"{path}: not a readable Parquet file: {reason}; {_AGAIN}") from error


def present(names: Sequence[str]) -> list[str]:
    """The columns that are read of a file with columns of these names."""
    return [*COLUMNS, *(name for name in OPTIONAL if name in names), *described.present(names)]


def stored(names: Sequence[str]) -> list[str]:
    """The columns of the table, in their order, from the names of those of a file."""
    return [*COLUMNS, *OPTIONAL, *described.present(names)]


def filled(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the table with the columns that an older file lacks."""
    lacking = {name: table[other] for name, other in OPTIONAL.items() if name not in names}
    return table.assign(**lacking)[stored(names)]


def typed(path: Path, index: pd.DataFrame, first: int = 0) -> pd.DataFrame:
    """Return the table with checked values of the right types.

    Args: first: the number of its first row, for messages.
    """
    for name in list(map(str, index)):
        column = index[name]
        if name in INTEGERS:
            whole = pd.api.types.is_integer_dtype(column) and not column.isna().any()
            if not whole or not column.between(0, _LARGEST).all():
                raise InputError(f"{path}: column {name!r} must hold whole numbers from 0; {_AGAIN}")
            index[name] = column.astype(np.int64)
        elif not _all_texts(column):
            raise InputError(f"{path}: column {name!r} must hold texts; {_AGAIN}")
        elif not (matches := column.str.fullmatch(_TEXTS.get(name, r".*"))).all():
            row = int(matches.argmin())
            raise InputError(
                f"{path} row {first + row}: {name} {column.iloc[row]!r} is not allowed; {_AGAIN}"
            )
        elif not isinstance(column.dtype, pd.StringDtype):
            index[name] = column.astype(str)
    return index


def leaf_ids(index: pd.DataFrame, taxonomy: Taxonomy) -> np.ndarray:
    """(N,) int64: position of each sample's leaf in `taxonomy.leaves`."""
    numbers, names = pd.factorize(index["leaf"])
    place_of = np.array([taxonomy.leaves.index(name) for name in names], dtype=np.int64)
    return place_of[numbers]


def _all_texts(column: pd.Series) -> bool:
    if isinstance(column.dtype, pd.StringDtype):
        return not column.isna().any()
    return bool(column.map(lambda value: isinstance(value, str)).all())


def check(path: Path, index: pd.DataFrame, folds: int, counts: Mapping[str, int], taxonomy: Taxonomy) -> None:
    """Raise InputError if the rows contradict each other or the description."""
    _check(path, index, folds, taxonomy)
    images = index["leaf"].value_counts().to_dict()
    if images != {leaf: count for leaf, count in counts.items() if count}:
        raise InputError(f"{path}: holds {images}, but dataset.json counts {dict(counts)}; {_AGAIN}")


def _check(path: Path, index: pd.DataFrame, folds: int, taxonomy: Taxonomy) -> None:
    """Raise InputError if the rows contradict each other or the description."""
    offsets = index["offset"]
    shard_ids, names = pd.factorize(index["shard"])
    fold_of_shard = pd.Series(names).str.extract(r"([0-9]+)")[0].to_numpy(np.int64)[shard_ids]
    problems = {
        "leaf {leaf!r} is not a leaf of the taxonomy in dataset.json": ~index["leaf"].isin(taxonomy.leaves),
        "key {key!r} is there twice": index["key"].duplicated(),
        f"fold {{fold}} is beyond the {folds} folds of dataset.json": index["fold"] >= folds,
        "shard {shard!r} is not of fold {fold}": fold_of_shard != index["fold"],
        "length {length} is no image": ~index["length"].between(1, codec.MAX_BYTES),
        "no sample begins at byte {offset} of a tar file": (offsets < tarfile.BLOCKSIZE)
        | (offsets % tarfile.BLOCKSIZE != 0),
        "another sample is at byte {offset} of {shard!r}": index.duplicated(["shard", "offset"]),
    }
    for text, wrong in problems.items():
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise InputError(f"{path} row {row}: {text.format_map(index.iloc[row])}; {_AGAIN}")
    if (present := index["fold"].nunique()) < folds:
        raise InputError(f"{path}: holds images of {present} folds, but dataset.json says {folds}; {_AGAIN}")
