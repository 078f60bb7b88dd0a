"""The index of a packed data set: one row per sample, and what must be true of it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from leukotree.data.images import codec
from leukotree.errors import InputError, one_line
from leukotree.taxonomy import Taxonomy

COLUMNS = ("key", "shard", "fold", "leaf", "patient", "source", "sha256", "group", "offset", "length")
OPTIONAL = {"image": "key"}
"""Columns that older indexes lack -> the column that stands for each there. `image`: its name in the
manifest, or a number."""
_INTEGERS = ("fold", "offset", "length")
_LARGEST = 2**53
"""Of a number in the index: sums of two stay far from where int64 wraps."""
_TEXTS = {  # column -> what a value must match in full
    "key": r"[A-Za-z0-9_-]{1,90}",  # the name of a member, which one block of a tar file takes
    "shard": r"fold[0-9]{1,6}-[0-9]{6,9}\.tar",  # a bare file name: nothing outside the folder is ever opened
    "leaf": r".+",
    "patient": r".*",
    "source": r".*",
    "sha256": r"[0-9a-f]{64}",
    "group": r".+",
    "image": r".+",
}


def parse(
    path: Path, content: bytes, folds: int, counts: Mapping[str, int], taxonomy: Taxonomy
) -> pd.DataFrame:
    """The table with exactly `COLUMNS` and those of `OPTIONAL`, numbers as int64 and texts as str.

    Args:
        path: its file, for messages.
        content: the bytes of the Parquet file.
        folds, counts, taxonomy: what dataset.json says of it; counts is leaf -> images.

    Raises InputError naming the file and the row or column at fault.
    """
    index = _typed(path, _table(path, content, sum(counts.values())))
    _check(path, index, folds, taxonomy)
    if (found := index["leaf"].value_counts().to_dict()) != {leaf: n for leaf, n in counts.items() if n}:
        raise InputError(
            f"{path}: holds {found}, but dataset.json counts {dict(counts)}; pack the folder again"
        )
    return index


def _table(path: Path, content: bytes, rows: int) -> pd.DataFrame:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(content))
        names = file.schema_arrow.names
        present = [*COLUMNS, *(name for name in OPTIONAL if name in names)]
        if missing := [name for name in present if names.count(name) != 1]:
            raise InputError(
                f"{path}: column {missing[0]!r} is missing, or there twice; pack the folder again"
            )
        if not file.metadata.num_rows:
            raise InputError(f"{path}: no samples; pack the folder again")
        if (
            file.metadata.num_rows != rows
        ):  # before they are read: a small file can stand for more rows than memory holds
            raise InputError(
                f"{path}: {file.metadata.num_rows} rows, but dataset.json counts {rows}; pack the folder again"
            )
        index = file.read(columns=present).to_pandas(ignore_metadata=True)[present]
        return index.assign(**{name: index[other] for name, other in OPTIONAL.items() if name not in names})
    except InputError:
        raise
    except Exception as error:  # pyarrow raises many kinds
        raise InputError(
            f"{path}: not a readable Parquet file: {one_line(error)[:300]}; pack the folder again"
        ) from error


def _typed(path: Path, index: pd.DataFrame) -> pd.DataFrame:
    for name in (*COLUMNS, *OPTIONAL):
        column = index[name]
        if name in _INTEGERS:
            if (
                not pd.api.types.is_integer_dtype(column)
                or column.isna().any()
                or not column.between(0, _LARGEST).all()
            ):
                raise InputError(
                    f"{path}: column {name!r} must hold whole numbers from 0; pack the folder again"
                )
            index[name] = column.astype(np.int64)
        elif not column.map(lambda value: isinstance(value, str)).all():
            raise InputError(f"{path}: column {name!r} must hold texts; pack the folder again")
        elif not (matches := column.str.fullmatch(_TEXTS[name])).all():
            row = int(matches.argmin())
            raise InputError(
                f"{path} row {row}: {name} {column.iloc[row]!r} is not allowed; pack the folder again"
            )
    return index


def _check(path: Path, index: pd.DataFrame, folds: int, taxonomy: Taxonomy) -> None:
    """Whether the rows agree with each other and with the description."""
    offsets = index["offset"]
    problems = {
        "leaf {leaf!r} is not a leaf of the taxonomy in dataset.json": ~index["leaf"].isin(taxonomy.leaves),
        "key {key!r} stands there twice": index["key"].duplicated(),
        f"fold {{fold}} is beyond the {folds} folds of dataset.json": index["fold"] >= folds,
        "shard {shard!r} is not of fold {fold}": index["shard"].str.extract(r"([0-9]+)")[0].astype(np.int64)
        != index["fold"],
        "length {length} is no image": ~index["length"].between(1, codec.MAX_BYTES),
        "no sample begins at byte {offset} of a tar file": (offsets < tarfile.BLOCKSIZE)
        | (offsets % tarfile.BLOCKSIZE != 0),
        "another sample stands at byte {offset} of {shard!r}": index.duplicated(["shard", "offset"]),
    }
    for text, wrong in problems.items():
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise InputError(f"{path} row {row}: {text.format_map(index.iloc[row])}; pack the folder again")
    if (present := index["fold"].nunique()) < folds:
        raise InputError(
            f"{path}: holds images of {present} folds, but dataset.json says {folds}; pack the folder again"
        )
