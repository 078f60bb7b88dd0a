"""Further deals of a packed data set: for each repeat of the cross-validation a fold for every sample.

Repeat 0 is the deal of the index. A repeat above it is a small file beside the index, over the same samples;
no shard is written again. Each deal keeps the same groups together and is stratified as `pack` is
(`folds.assign`), with a seed of its own. The file of a repeat depends on the index and on its number alone,
so that more repeats can be added later.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leukotree import files, seeds
from leukotree.data import folds
from leukotree.data.fingerprint import DEAL, read_deal
from leukotree.errors import InputError, one_line

if TYPE_CHECKING:
    import pandas as pd

_NAME = re.compile(r"folds-([1-9][0-9]{0,3})\.parquet")
MOST = 1000
"""Most repeats."""
_COLUMNS = ("key", "fold")


def numbers(folder: Path) -> list[int]:
    """The repeats above 0 whose deals are in a packed folder, ascending."""
    names = [_NAME.fullmatch(path.name) for path in Path(folder).iterdir()]
    return sorted(int(name[1]) for name in names if name)


def check_number(repeats: int) -> None:
    """Raise InputError for a number of repeats that is not from 1 to MOST."""
    if not 1 <= repeats <= MOST:
        raise InputError(f"repeats {repeats}: must be from 1 to {MOST}")


def write(folder: Path, index: pd.DataFrame, n_folds: int, seed: int, repeats: int) -> tuple[int, ...]:
    """Write the deals of the repeats 1 to `repeats` - 1 that are not there; return those that were written.

    Args:
        folder: the packed folder, with this index.
        n_folds: outer folds of each deal, as in the index.
        seed: that of the pack.
        repeats: number of deals, with the one of the index.

    Raises InputError where a file is there that is damaged or of other samples, where a deal is impossible,
    and where the folder cannot be written.
    """
    check_number(repeats)
    written: list[int] = []
    for repeat in range(1, repeats):
        path = folder / DEAL.format(repeat)
        if path.exists() or path.is_symlink():
            parsed(path, read_deal(folder, repeat), index)
            continue
        try:
            files.write_atomic(path, _content(index["key"], deal(folder, index, n_folds, seed, repeat)))
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written: {error.strerror}; fix that and run again"
            ) from error
        written.append(repeat)
    return tuple(written)


def deal(folder: Path, index: pd.DataFrame, n_folds: int, seed: int, repeat: int) -> np.ndarray:
    """(N,) int64: the fold of each sample in a repeat above 0, stratified and grouped as by `pack`."""
    try:
        return folds.assign(index, n_folds, seeds.integer(seed, "repeat", repeat) % 2**31)
    except InputError as error:
        raise InputError(f"{folder}, repeat {repeat}: {error}") from error


def parsed(path: Path, content: bytes, index: pd.DataFrame) -> np.ndarray:
    """(N,) int64 folds in the order of the index, from the bytes of a deal's file.

    Raises InputError for a damaged file, for other samples than those of the index, and for a group in two
    folds.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    named = _NAME.fullmatch(path.name)
    repeat = int(named[1]) if named else 0
    again = f"remove it, and deal again with `leukotree pack {path.parent} --repeats {repeat + 1}`"
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        if file.metadata.num_rows != len(index):
            raise InputError(f"{path}: {file.metadata.num_rows} samples, the index has {len(index)}; {again}")
        table = file.read(columns=list(_COLUMNS)).to_pandas(ignore_metadata=True)[list(_COLUMNS)]
    except InputError:
        raise
    except Exception as error:  # pyarrow raises many kinds
        raise InputError(f"{path}: not a readable deal: {one_line(error)[:200]}; {again}") from error
    if table["key"].tolist() != index["key"].tolist():
        raise InputError(f"{path}: holds other samples than the index; {again}")
    if not pd.api.types.is_integer_dtype(table["fold"]) or table["fold"].isna().any():
        raise InputError(f"{path}: column 'fold' must hold whole numbers; {again}")
    dealt = table["fold"].to_numpy(np.int64)
    present, packed = np.unique(dealt), int(index["fold"].max()) + 1
    if not np.array_equal(present, np.arange(packed)):
        raise InputError(f"{path}: its folds are {present.tolist()[:10]}, not 0 to {packed - 1}; {again}")
    apart = pd.Series(dealt).groupby(index["group"].to_numpy()).nunique()
    if (apart > 1).any():
        raise InputError(f"{path}: group {apart.index[apart > 1][0]!r} is in two folds; {again}")
    return dealt


def _content(keys: pd.Series, dealt: np.ndarray) -> bytes:
    import pandas as pd

    buffer = io.BytesIO()
    pd.DataFrame({"key": keys.to_numpy(), "fold": dealt}).to_parquet(buffer, index=False)
    return buffer.getvalue()
