"""The table of a manifest as it stands in its file, CSV or Parquet: every value as text.

`manifest` has the meaning of the columns, and checks them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from leukotree import csvfile
from leukotree.data import described
from leukotree.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

REQUIRED = ("image", "leaf", "patient", "source")
OPTIONAL = ("mask", "group", "root", "box")
CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")
"""Line breaks, control characters and lone surrogates, which the index, logs and tables cannot hold."""

_EXACT_BITS = {16: 11, 32: 24, 64: 53}
"""Bits of a float type -> bits of whole numbers that it represents exactly."""


def read(path: Path, required: Sequence[str] = REQUIRED) -> pd.DataFrame:
    """Return all known columns as text (empty if absent in the file), and `row`. Of the columns of
    `described` it has those with a value.

    Args: required: columns that the file must have.

    Raises InputError naming the file, and what is wrong with it.
    """
    csvfile.check_ending(path, (*csvfile.ENDINGS, ".parquet"))
    if path.suffix.lower() == ".parquet":
        columns = _parquet(path, required, _others(required), (described.READER,))
        lines = list(range(1, len(columns["image"]) + 1))
    else:
        table = csvfile.read(path, required, _others(required), (described.READER,))
        columns, lines = table.columns, table.lines
    blank = [""] * len(lines)
    extra = [name for name in described.present(columns) if any(text.strip() for text in columns[name])]
    for name in described.readers(extra):
        if name == described.READER or CONTROL.search(name):
            raise InputError(f"{path}: column {name!r}: the name of a reader is a text after 'reader:'")
    known = {name: columns.get(name, blank) for name in (*REQUIRED, *OPTIONAL, *extra)}
    return pd.DataFrame(known | {"row": lines})


def _others(required: Sequence[str]) -> tuple[str, ...]:
    """The columns that a file may have more."""
    return tuple(name for name in (*REQUIRED, *OPTIONAL, *described.PLACES) if name not in required)


def texts(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> tuple[dict[str, list[str]], list[int]]:
    """Return named columns of a Parquet file as text, "" for no value, and the number of each row from 1.

    Raises InputError naming the file, a column that is missing, or one that is no text.
    """
    others = tuple(name for name in optional if name not in required)
    columns = _parquet(path, required, others, ())
    return columns, list(range(1, 1 + len(next(iter(columns.values()), []))))


def _parquet(
    path: Path, required: Sequence[str], optional: Sequence[str], prefixes: Sequence[str]
) -> dict[str, list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "not a readable Parquet file"
        raise InputError(f"{path}: {reason}") from error
    positions = csvfile.named(path, table.column_names, required, optional, prefixes)
    known = [name for name in (*required, *optional) if name in positions]
    known += [name for name in (described.readers(positions) if prefixes else []) if name not in known]
    columns = {}
    for name in known:
        column = table.column(positions[name])
        try:
            values = _as_text(path, name, column)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise InputError(f"{path}: column {name!r} is of type {column.type}; make it text") from error
        columns[name] = [value or "" for value in values]
    return columns


def _as_text(path: Path, name: str, column: pa.ChunkedArray) -> list[str | None]:
    """Return a column's values as text. NaN becomes None, and whole numbers have no decimal point."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    if pa.types.is_decimal(column.type):
        return [text and re.sub(r"\.0+$", "", text) for text in texts]
    if not pa.types.is_floating(column.type):
        return texts
    values = column.cast(pa.float64()).to_pylist()
    exact = 2.0 ** _EXACT_BITS[column.type.bit_width]
    if any(value is not None and exact <= abs(value) < math.inf for value in values):
        raise InputError(
            f"{path}: column {name!r} is of type {column.type}, in which different long numbers may be "
            "equal; make it text where it comes from"
        )

    def as_text(value: float | None, text: str | None) -> str | None:
        if value is None or math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else text

    return [as_text(value, text) for value, text in zip(values, texts, strict=True)]
