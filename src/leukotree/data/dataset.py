"""A packed data set on disk: its description, its index, and the bytes of any one sample."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from leukotree import config
from leukotree.data import index as indices
from leukotree.data import shards, tarheader
from leukotree.data.fingerprint import DESCRIPTION, INDEX, content, of, unreadable
from leukotree.data.patients import identities
from leukotree.errors import InputError, one_line
from leukotree.taxonomy import Taxonomy

FORMAT = 1
MAX_SIDE = 8192
"""Pixels; `pack` writes no larger images."""


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
    size: int = Field(ge=1, le=MAX_SIDE)
    """Width and height of every image in pixels."""
    folds: int = Field(ge=2, le=10**6)
    seed: int
    group: Literal["patient", "slide", "image"]
    """What the folds keep together: the weakest kind of any sample."""
    counts: dict[str, Annotated[int, Field(ge=0, le=10**12)]]
    """Leaf -> images."""
    patients: int = Field(ge=0)
    dropped: list[Dropped] = []


@dataclass(frozen=True, eq=False)
class Dataset:
    """A folder that `pack` wrote, validated. Picklable; reading is safe after fork and spawn and from several
    threads."""

    folder: Path
    size: int
    """Width and height of every image in pixels."""
    taxonomy: Taxonomy
    folds: int
    group: str
    """What the folds keep together: "patient", "slide" or "image"."""
    index: pd.DataFrame
    """One row per sample (N rows), ordered by fold, shard and position in the shard; columns `index.COLUMNS`
    and `OPTIONAL`."""
    fingerprint: str
    """sha256 hex over dataset.json and index.parquet: the same value, the same samples, byte for byte, at any
    path."""
    description: Description

    @classmethod
    def open(cls, folder: str | Path, ends: bool = True) -> Dataset:
        """Read and check the description and the index, and of every shard its size and (unless `ends` is
        False) the headers of its first and last sample; not all its bytes: that is `audit`.

        Raises InputError naming the file and what is wrong with it.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; write it with `leukotree pack MANIFEST {folder}`")
        dataset = _parsed(folder, *(content(folder / name) for name in (DESCRIPTION, INDEX)))
        _check_shards(folder, dataset.index, ends)
        return dataset

    def __len__(self) -> int:
        return len(self.index)

    @property
    def group_word(self) -> str:
        """What the groups are called: `group` is only the weakest kind of any, and a number of patients must
        be one."""
        return "patient" if self.group == "patient" else "group"

    @property
    def groups(self) -> str:
        """How many groups the folds keep together, and of what, for people."""
        count = int(self.index["group"].nunique())
        alone = (
            "each image by itself"
            if count == len(self)
            else "patients or slides where known, else single images"
        )
        of = {"patient": "", "slide": " (slides, or patients where known)", "image": f" ({alone})"}[
            self.group
        ]
        return f"{count} {self.group_word}s{of}"

    @cached_property
    def leaf_ids(self) -> np.ndarray:
        """(N,) int64: position of each sample's leaf in `taxonomy.leaves`."""
        return pd.Index(self.taxonomy.leaves).get_indexer(pd.Index(self.index["leaf"])).astype(np.int64)

    def chosen(self, option: str) -> Any:
        """An option that the folder was packed with; None where it was not given."""
        options = (self.description.model_extra or {}).get("options")
        return options.get(option) if isinstance(options, dict) else None

    @property
    def patients_across_sources(self) -> bool:
        """Whether an id is the same patient in every source."""
        return self.chosen("patients_across_sources") is True

    @cached_property
    def persons(self) -> pd.Series:
        """(N,) str: who the patient of each sample is, "" where unknown."""
        return identities.persons(self.index, self.patients_across_sources)

    @cached_property
    def _places(self) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray, list[str], list[str]]:
        """Shard paths, then per sample (N,): its shard's position among them, offset and length in bytes, key
        and sha256."""
        positions, names = pd.factorize(self.index["shard"])
        paths = [str(self.folder / name) for name in names]
        offsets, lengths = self.index["offset"].to_numpy(), self.index["length"].to_numpy()
        return paths, positions, offsets, lengths, self.index["key"].tolist(), self.index["sha256"].tolist()

    @cached_property
    def _verified(self) -> np.ndarray:
        """(N,) bool: samples whose bytes this process has found to be those that were packed."""
        return np.zeros(len(self), dtype=bool)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_verified"}

    def read(self, row: int) -> bytes:
        """The JPEG of one sample, by its position in `index`; its sha256 is checked the first time.

        Raises InputError naming shard and key if the shard is gone or cut short, or holds something else.
        """
        paths, positions, offsets, lengths, keys, digests = self._places
        path, offset, length = paths[positions[row]], int(offsets[row]), int(lengths[row])
        try:
            shard = _shard(
                path, self.fingerprint, os.getpid()
            )  # held while it is read: two threads may have opened it at once
            data = os.pread(shard.number, length, offset)
        except OSError as error:
            raise unreadable(error, f"{path}: sample {keys[row]} cannot be read: {error.strerror}") from error
        if len(data) != length:
            end = offset + length
            raise InputError(
                f"{path}: ends before byte {end}, where sample {keys[row]} should; pack the folder again"
            )
        if not self._verified[row]:
            header = os.pread(shard.number, tarfile.BLOCKSIZE, offset - tarfile.BLOCKSIZE)
            name = f"{keys[row]}.jpg"
            if not tarheader.names(header, name) or hashlib.sha256(data).hexdigest() != digests[row]:
                problem = (
                    tarheader.fault(header, name, length)
                    or "its bytes are not those that were packed (sha256)"
                )
                raise InputError(f"{path}: sample {keys[row]}: {problem}; copy or pack the folder again")
            self._verified[row] = True
        return data


def _place(index: pd.DataFrame, row: int) -> shards.Place:
    sample = index.iloc[row]
    return shards.Place(
        str(sample["key"]), int(sample["offset"]), int(sample["length"]), str(sample["sha256"])
    )


class _Descriptor:
    """An open file, closed when nobody holds it: dropped from the cache while another thread reads, it stays
    open."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@lru_cache(maxsize=256)  # below the usual limit of 1024 open files, however many shards there are
def _shard(path: str, fingerprint: str, pid: int) -> _Descriptor:
    """Opened once per process and data set: a forked child, or a folder packed anew, gets a file of its
    own."""
    return _Descriptor(path)


@lru_cache(maxsize=4)  # a trial that follows another in its process meets the same bytes again
def _parsed(folder: Path, described: bytes, indexed: bytes) -> Dataset:
    """The data set that the contents of dataset.json and index.parquet describe."""
    description = _description(folder / "dataset.json", described)
    try:
        taxonomy = Taxonomy.from_nested(description.taxonomy)
    except InputError as error:
        raise InputError(f"{folder / 'dataset.json'}: {error}") from error
    table = indices.parse(folder / "index.parquet", indexed, description.folds, description.counts, taxonomy)
    fingerprint = of(described, indexed)
    return Dataset(
        folder,
        description.size,
        taxonomy,
        description.folds,
        description.group,
        table,
        fingerprint,
        description,
    )


def _description(path: Path, content: bytes) -> Description:
    try:
        value = json.loads(content, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {one_line(error)}; pack the folder again") from error
    if isinstance(value, dict) and value.get("format") != FORMAT:
        raise InputError(
            f"{path}: format {value.get('format')!r}, this version reads format {FORMAT}; pack the folder again"
        )
    return config.parse(Description, value, str(path))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError for a key that stands there twice, of which JSON keeps the last one
    silently."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def _check_shards(folder: Path, index: pd.DataFrame, ends: bool) -> None:
    """Whether every shard is a plain file that is long enough for its samples, and holds its first and last
    one (`ends`)."""
    offsets, lengths = index["offset"].to_numpy(), index["length"].to_numpy()
    for name, found in index.groupby("shard").indices.items():
        rows = np.asarray(found, dtype=np.int64)
        first, last = int(rows[offsets[rows].argmin()]), int(rows[offsets[rows].argmax()])
        path, end = folder / str(name), int((offsets[rows] + lengths[rows]).max())
        if path.is_symlink() or not path.is_file():
            raise InputError(
                f"{path}: {'is a link' if path.is_symlink() else 'no such shard'}; pack the folder again"
            )
        status = path.stat()
        if status.st_size < end:
            raise InputError(
                f"{path}: {status.st_size} bytes, but a sample ends at byte {end}; copy or pack the folder again"
            )
        if ends:
            _check_ends(
                path,
                (status.st_ino, status.st_size, status.st_mtime_ns),
                (_place(index, first), _place(index, last)),
            )


@lru_cache(maxsize=2**14)  # a study checks many specs on one data set
def _check_ends(path: Path, found: tuple[int, ...], places: tuple[shards.Place, ...]) -> None:
    """Whether these samples' headers stand in a shard: it may have been replaced, or copied as a file of
    zeros."""
    try:
        shard = _Descriptor(str(path))
        headers = [
            os.pread(shard.number, tarfile.BLOCKSIZE, place.offset - tarfile.BLOCKSIZE) for place in places
        ]
    except OSError as error:
        raise unreadable(error, f"{path}: cannot be read: {error.strerror}") from error
    for header, place in zip(headers, places, strict=True):
        if problem := tarheader.fault(header, f"{place.key}.jpg", place.length):
            raise InputError(f"{path}: sample {place.key}: {problem}; copy or pack the folder again")
