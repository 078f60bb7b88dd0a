"""A packed data set on disk: its description, its index, and the bytes of any one sample."""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from leukotree import spec
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

FORMAT = 1
COLUMNS = ("key", "shard", "fold", "leaf", "patient", "source", "sha256", "group", "offset", "length")
_INTEGERS = ("fold", "offset", "length")
_TEXTS = {  # column -> what a value must match in full
    "key": r"[A-Za-z0-9_-]+",
    "shard": r"fold\d+-\d{6,}\.tar",  # a bare file name: nothing outside the folder is ever opened
    "leaf": r".+",
    "patient": r".*",
    "source": r".*",
    "sha256": r"[0-9a-f]{64}",
    "group": r".+",
}


class Dropped(BaseModel):
    """An image of the manifest that could not be decoded and was left out on request."""

    image: str
    reason: str


class Description(BaseModel):
    """What `dataset.json` must say. Further keys are allowed and kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format: int
    taxonomy: dict[str, Any]
    """Nested names, pruned to the leaves that are present."""
    size: int = Field(ge=1)
    """Width and height of every image in pixels."""
    folds: int = Field(ge=2)
    seed: int
    group: Literal["patient", "slide", "image"]
    """What the folds keep together: the weakest kind of any sample."""
    counts: dict[str, int]
    """Leaf -> images."""
    patients: int = Field(ge=0)
    dropped: list[Dropped] = []


@dataclass(frozen=True, eq=False)
class Dataset:
    """A folder that `pack` wrote, validated. Picklable; reading is safe after fork and spawn and from several threads."""

    folder: Path
    size: int
    """Width and height of every image in pixels."""
    taxonomy: Taxonomy
    folds: int
    group: str
    """What the folds keep together: "patient", "slide" or "image"."""
    index: pd.DataFrame
    """One row per sample (N rows, columns `COLUMNS`), in the order of fold, shard and position in the shard."""
    fingerprint: str
    """sha256 hex over dataset.json and index.parquet: the same value, the same samples, byte for byte."""
    description: Description

    @classmethod
    def open(cls, folder: str | Path) -> Dataset:
        """Read and check the description, the index and the size of every shard (not their bytes: that is `audit`).

        Raises InputError naming the file and what is wrong with it.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; write it with `leukotree pack MANIFEST {folder}`")
        dataset = _parsed(folder, *(_content(folder / name) for name in ("dataset.json", "index.parquet")))
        _check_shards(folder, dataset.index)
        return dataset

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def leaf_ids(self) -> np.ndarray:
        """(N,) int64: position of each sample's leaf in `taxonomy.leaves`."""
        return pd.Index(self.taxonomy.leaves).get_indexer(pd.Index(self.index["leaf"])).astype(np.int64)

    @cached_property
    def _places(self) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        """Shard paths, then per sample (N,): its shard's position among them, offset and length in bytes."""
        positions, names = pd.factorize(self.index["shard"])
        paths = [str(self.folder / name) for name in names]
        return paths, positions, self.index["offset"].to_numpy(), self.index["length"].to_numpy()

    def read(self, row: int) -> bytes:
        """The JPEG of one sample, by its position in `index`. Raises InputError if the shard is gone or cut short."""
        paths, positions, offsets, lengths = self._places
        path, offset, length = paths[positions[row]], int(offsets[row]), int(lengths[row])
        try:
            shard = _shard(path, self.fingerprint, os.getpid())  # held while it is read: two threads may have opened it at once
            data = os.pread(shard.number, length, offset)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        if len(data) != length:
            raise InputError(f"{path}: ends before byte {offset + length}, where a sample should; pack the folder again")
        return data


class _Descriptor:
    """An open file, closed when nobody holds it: dropped from the cache while another thread reads, it stays open."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@lru_cache(maxsize=256)  # below the usual limit of 1024 open files, however many shards there are
def _shard(path: str, fingerprint: str, pid: int) -> _Descriptor:
    """Opened once per process and data set: a forked child, or a folder packed anew, gets a file of its own."""
    return _Descriptor(path)


@lru_cache(maxsize=4)  # a trial that follows another in its process meets the same bytes again
def _parsed(folder: Path, described: bytes, indexed: bytes) -> Dataset:
    """The data set that the contents of dataset.json and index.parquet describe."""
    description = _description(folder / "dataset.json", described)
    try:
        taxonomy = Taxonomy.from_nested(description.taxonomy)
    except InputError as error:
        raise InputError(f"{folder / 'dataset.json'}: {error}") from error
    index = _index(folder / "index.parquet", indexed)
    _check_index(folder / "index.parquet", index, description, taxonomy)
    fingerprint = hashlib.sha256(described + indexed).hexdigest()
    return Dataset(folder, description.size, taxonomy, description.folds, description.group, index, fingerprint, description)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; `leukotree pack` writes such a folder") from error


def _description(path: Path, content: bytes) -> Description:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}; pack the folder again") from error
    if isinstance(value, dict) and value.get("format") != FORMAT:
        raise InputError(f"{path}: format {value.get('format')!r}, this version reads format {FORMAT}; pack the folder again")
    return spec.parse(Description, value, str(path))


def _index(path: Path, content: bytes) -> pd.DataFrame:
    """The table with exactly `COLUMNS`, numbers as int64 and texts as str, or InputError."""
    try:
        index = pd.read_parquet(io.BytesIO(content))
    except Exception as error:  # pyarrow raises many kinds
        raise InputError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}; pack the folder again") from error
    if missing := [name for name in COLUMNS if name not in index.columns]:
        raise InputError(f"{path}: column {missing[0]!r} is missing; pack the folder again")
    index = index.loc[:, list(COLUMNS)].reset_index(drop=True)
    if index.empty:
        raise InputError(f"{path}: no samples; pack the folder again")
    for name in COLUMNS:
        column = index[name]
        if name in _INTEGERS:
            if not pd.api.types.is_integer_dtype(column) or column.isna().any() or (column < 0).any():
                raise InputError(f"{path}: column {name!r} must hold whole numbers from 0; pack the folder again")
            index[name] = column.astype(np.int64)
        elif not column.map(lambda value: isinstance(value, str)).all():
            raise InputError(f"{path}: column {name!r} must hold texts; pack the folder again")
        elif not (matches := column.str.fullmatch(_TEXTS[name])).all():
            row = int(matches.argmin())
            raise InputError(f"{path} row {row}: {name} {column.iloc[row]!r} is not allowed; pack the folder again")
    return index


def _check_index(path: Path, index: pd.DataFrame, description: Description, taxonomy: Taxonomy) -> None:
    """Whether the rows agree with each other and with the description."""
    problems = {
        "leaf {leaf!r} is not a leaf of the taxonomy in dataset.json": ~index["leaf"].isin(taxonomy.leaves),
        "key {key!r} stands there twice": index["key"].duplicated(),
        f"fold {{fold}} is beyond the {description.folds} folds of dataset.json": index["fold"] >= description.folds,
        "shard {shard!r} is not of fold {fold}": index["shard"].str.extract(r"(\d+)")[0].astype(np.int64) != index["fold"],
        "length {length} is no image": index["length"] == 0,
    }
    for text, wrong in problems.items():
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise InputError(f"{path} row {row}: {text.format_map(index.iloc[row])}; pack the folder again")
    counts = index["leaf"].value_counts().to_dict()
    if counts != {leaf: n for leaf, n in description.counts.items() if n}:
        raise InputError(f"{path}: holds {counts}, but dataset.json counts {description.counts}; pack the folder again")


def _check_shards(folder: Path, index: pd.DataFrame) -> None:
    """Whether every shard is a plain file that is long enough for its samples."""
    for name, end in (index["offset"] + index["length"]).groupby(index["shard"]).max().items():
        path = folder / str(name)
        if path.is_symlink() or not path.is_file():
            raise InputError(f"{path}: {'is a link' if path.is_symlink() else 'no such shard'}; pack the folder again")
        if (size := path.stat().st_size) < end:
            raise InputError(f"{path}: {size} bytes, but a sample ends at byte {end}; copy or pack the folder again")
