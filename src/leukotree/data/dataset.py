"""A packed data set on disk: its description, its index, and the bytes of any one sample."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from leukotree import config, files
from leukotree.data import deals, duplicates, mapped, shown, tarheader
from leukotree.data.boxes import Crop
from leukotree.data.fingerprint import (
    DEAL,
    DESCRIPTION,
    INDEX,
    dealt,
    fingerprint_of,
    read_deal,
    read_error,
    read_plain,
)
from leukotree.data.images import codec
from leukotree.data.index import leaf_ids, read_index
from leukotree.data.patients import identities
from leukotree.data.remote import fetcher, mirror
from leukotree.data.remote.address import Address, is_remote, parse
from leukotree.errors import InputError, one_line
from leukotree.taxonomy import Taxonomy

FORMAT = 1
QUALITY = 95
"""Quality of the JPEGs that `pack` writes, unless it is told another one."""
MAX_SIDE = 8192
"""Largest width and height in pixels that `pack` writes."""


class Dropped(BaseModel):
    """An image of the manifest that could not be decoded, and was left out because of an option."""

    image: str
    reason: str


class Description(BaseModel):
    """The required content of `dataset.json`. Further keys are allowed and kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format: int
    taxonomy: dict[str, Any]
    """Nested names, pruned to the leaves that are present."""
    size: int = Field(ge=1, le=MAX_SIDE)
    """Width and height of every image in pixels."""
    folds: int = Field(ge=1, le=10**6)
    """1 for an outer test, which nothing trains on."""
    seed: int
    group: Literal["patient", "slide", "image"]
    """What the folds keep together: the weakest kind of group of all samples."""
    counts: dict[str, Annotated[int, Field(ge=0, le=10**12)]]
    """Leaf -> images."""
    patients: int = Field(ge=0)
    dropped: list[Dropped] = []


@dataclass(frozen=True, eq=False)
class Dataset:
    """A folder that `pack` wrote, validated; or one at an address, whose shards are fetched when they are
    needed.

    It can be pickled. Reading is safe after fork and spawn, and from several threads.
    """

    folder: Path
    """As it was named, for messages."""
    absolute: Path
    """The folder from which shards are read, also after a change of the working directory."""
    size: int
    """Width and height of every image in pixels."""
    taxonomy: Taxonomy
    """The label tree: that of dataset.json, or of `on_tree`."""
    folds: int
    group: str
    """What the folds keep together: "patient", "slide" or "image"."""
    index: pd.DataFrame
    """One row per sample (N rows), ordered by fold, shard and position in the shard.

    The columns are `index.COLUMNS`, `index.OPTIONAL` and those of `described` that the manifest had. `fold`
    is the sample's fold in the repeat.
    """
    fingerprint: str
    """sha256 hex over dataset.json and index.parquet, and over the deal of a repeat above 0. Equal values
    mean equal samples, byte for byte, in equal folds."""
    description: Description
    repeat: int = 0
    """The deal of the samples to folds. 0: that of the shards."""
    samples: str = ""
    """sha256 hex over dataset.json and index.parquet: the same in every repeat."""
    address: Address | None = None
    """Where the shards come from; `folder` then holds their copies. None: from `folder` itself."""
    mapped: mapped.Mapped | None = None
    """The files behind the index of a large data set. None: it is in memory."""

    @classmethod
    def open(cls, folder: str | Path, ends: bool = True, repeat: int = 0) -> Dataset:
        """Read and check the description and the index, and check every shard quickly.

        The check of a shard compares its size and, if `ends`, the headers of its first and last sample.
        `audit` reads all bytes. `repeat`: the deal of the samples to folds. Shards at an address are checked
        when they arrive.

        Raises InputError naming the file and what is wrong with it, and RunFailed of kind "server" where the
        server of an address does not answer.
        """
        if is_remote(folder):
            return cls._at(parse(str(folder)), repeat)
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; write it with `leukotree pack MANIFEST {folder}`")
        dataset = _read(folder, folder.absolute())
        _check_shards(dataset, ends)
        return _dealt(dataset, repeat, read_deal(folder, repeat)) if repeat else dataset

    @classmethod
    def _at(cls, address: Address, repeat: int) -> Dataset:
        folder = mirror.fetched(address, repeat)
        try:
            dataset = _read(folder, folder, address)
        except InputError as error:  # such as a page that says in HTML what is wrong
            mirror.forget(address)
            raise InputError(f"{address.text}: {str(error).replace(f'{folder}/', '')}") from error
        return _dealt(dataset, repeat, read_deal(folder, repeat)) if repeat else dataset

    @property
    def fetcher(self) -> fetcher.Fetcher | None:
        """What brings the shards of an address to this machine."""
        if self.address is None:
            return None
        return fetcher.of(self.absolute, self.address, self.index, self.shard_ids)

    def fetch(self, shard: str) -> None:
        """Wait until a shard is here. Raises as `Fetcher.open`."""
        if (own := self.fetcher) is not None:
            os.close(own.open(shard))

    def on_tree(self, taxonomy: Taxonomy) -> Dataset:
        """The same samples on another tree of the same leaves, in whose order `leaf_ids` counts them."""
        return replace(self, taxonomy=taxonomy)

    @property
    def name(self) -> str:
        """The folder, or the address, as it was named: for messages."""
        return self.address.text if self.address else str(self.folder)

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        of_repeat = f" of repeat {self.repeat}" if self.repeat else ""
        what = f"{len(self):,} images of {self.size} x {self.size} pixels, {self.groups}"
        head = f"Dataset {self.name}: {what}, {self.folds} folds{of_repeat}"
        return "\n".join([head, *shown.leaves(self.index["leaf"], self.persons, self.taxonomy)])

    def image(self, row: int) -> np.ndarray:
        """Return the (H, W, 3) uint8 RGB pixels of one sample, by its position in `index`. Raises InputError
        as `read`."""
        return codec.decode(self.read(row))

    def deal(self, repeats: int) -> tuple[int, ...]:
        """Write the deals that lack for `repeats` repeats; return these repeats. See `deals.write`.

        Raises InputError, too, for an outer test, and for folds by source, which have one deal.
        """
        if repeats > 1 and (self.folds == 1 or self.pack_option("folds_by")):
            what = "an outer test has one fold" if self.folds == 1 else "folds by source have one deal"
            raise InputError(f"{self.folder}: {what}; leave --repeats out")
        return deals.write(self.folder, self.index, self.folds, self.description.seed, repeats)

    @property
    def group_word(self) -> str:
        """The word for a group: "patient" only if every group is a patient."""
        return "patient" if self.group == "patient" else "group"

    @property
    def groups(self) -> str:
        """The number of groups that the folds keep together, and what they are, as a text for people."""
        count = int(self.index["group"].nunique())
        if self.group == "patient":
            return f"{count} patients"
        if self.group == "slide":
            what = "slides, or patients where known"
        elif count == len(self):
            what = "each image by itself"
        else:
            what = "patients or slides where known, else single images"
        return f"{count} groups ({what})"

    @cached_property
    def leaf_ids(self) -> np.ndarray:
        """(N,) int64: position of each sample's leaf in `taxonomy.leaves`."""
        if self.mapped is None:
            return leaf_ids(self.index, self.taxonomy)
        own = Taxonomy.from_nested(self.description.taxonomy).leaves
        if own == self.taxonomy.leaves:
            return self.mapped.leaf_ids
        place_of = np.array([self.taxonomy.leaves.index(leaf) for leaf in own], dtype=np.int64)
        return place_of[self.mapped.leaf_ids]

    def pack_option(self, option: str) -> Any:
        """Return the value of an option that the folder was packed with; None if it was not given."""
        options = (self.description.model_extra or {}).get("options")
        return options.get(option) if isinstance(options, dict) else None

    @property
    def preparation(self) -> dict[str, int | float]:
        """How `pack` prepared the images: their `size` in pixels, the `quality` of their JPEGs, and what it
        did with boxes (`margin` and `square`, where they were chosen)."""
        crop = {name: self.pack_option(f"box_{name}") for name in ("margin", "square")}
        chosen = {name: value for name, value in crop.items() if value and isinstance(value, int | float)}
        return {"size": self.size, "quality": self.quality, **chosen}

    @property
    def quality(self) -> int:
        """The quality of the JPEGs."""
        quality = self.pack_option("quality")
        return quality if isinstance(quality, int) else QUALITY

    @property
    def crop(self) -> Crop:
        """How `pack` made images of the boxes of a manifest."""
        return Crop(float(self.preparation.get("margin", 0)), bool(self.preparation.get("square", False)))

    @property
    def patients_across_sources(self) -> bool:
        """Whether an id means the same patient in every source."""
        return self.pack_option("patients_across_sources") is True

    @cached_property
    def persons(self) -> pd.Series:
        """(N,) str: the patient of each sample, unique over sources, "" where unknown."""
        return identities.persons(self.index, self.patients_across_sources)

    @cached_property
    def shard_ids(self) -> np.ndarray:
        """(N,) int64: the number of each sample's shard, counted in the order of the index."""
        if self.mapped is not None:
            return self.mapped.shard_ids
        return pd.factorize(self.index["shard"])[0].astype(np.int64)

    @cached_property
    def copies(self) -> list[np.ndarray]:
        """The sets of rows with equal bytes, see `duplicates.copies`."""
        return duplicates.copies(self.index["sha256"]) if self.mapped is None else self.mapped.copies

    @cached_property
    def _locations(self) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray, Texts, Texts]:
        """The paths of the shards, and per sample: position of its shard, offset, length, key, sha256.

        Offset and length are in bytes. Plain columns, since looking up single values of `index` is slow.
        """
        # Shards are numbered in the order of their first samples.
        first = np.flatnonzero(np.diff(np.maximum.accumulate(self.shard_ids), prepend=-1))
        names = self._texts("shard")
        paths = [str(self.absolute / names[row]) for row in first.tolist()]
        offsets, lengths = self.index["offset"].to_numpy(), self.index["length"].to_numpy()
        return paths, self.shard_ids, offsets, lengths, self._texts("key"), self._texts("sha256")

    def _texts(self, name: str) -> Texts:
        """A column of texts. Of a mapped index no object per sample is made."""
        return self.index[name].tolist() if self.mapped is None else _MappedTexts(self.index[name])

    @cached_property
    def _verified(self) -> np.ndarray:
        """(N,) bool: samples whose sha256 this process has checked."""
        return np.zeros(len(self), dtype=bool)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_verified"}

    def read(self, row: int) -> bytes:
        """Return the JPEG of one sample, by its position in `index`. Its sha256 is checked the first time.

        A shard at an address is waited for, and fetched again if its copy here is damaged.

        Raises InputError naming shard and key if the shard is missing or cut short, or holds something else.
        For an address also what `Fetcher.open` raises.
        """
        if self.address is None:
            return self._read(row)
        try:
            return self._read(row)
        except InputError:
            name, own = str(self.index["shard"].iloc[row]), self.fetcher
            if own is None or not own.store.path(name).exists() or not own.discard(name):
                raise
        return self._read(row)

    def _open(self, path: str) -> _OpenFile:
        if (own := self.fetcher) is None:
            return _shard(path, self.samples, os.getpid())
        # Not kept open: a copy that is removed to make room would still take it.
        return _OpenFile(own.open(os.path.basename(path)))

    def _read(self, row: int) -> bytes:
        paths, positions, offsets, lengths, keys, digests = self._locations
        path, offset, length = paths[positions[row]], int(offsets[row]), int(lengths[row])
        key = keys[row]
        try:
            # The variable keeps the file open, also if another thread drops it from the cache.
            shard = self._open(path)
            data = os.pread(shard.number, length, offset)
        except OSError as error:
            raise read_error(error, f"{path}: sample {key} cannot be read: {error.strerror}") from error
        if len(data) != length:
            end = offset + length
            raise InputError(
                f"{path}: ends before byte {end}, the end of sample {key}; pack the folder again"
            )
        if not self._verified[row]:
            header = os.pread(shard.number, tarfile.BLOCKSIZE, offset - tarfile.BLOCKSIZE)
            name = f"{key}.jpg"
            if not tarheader.names(header, name) or hashlib.sha256(data).hexdigest() != digests[row]:
                problem = tarheader.fault(header, name, length)
                problem = problem or "its bytes are not those that were packed (sha256)"
                raise InputError(f"{path}: sample {key}: {problem}; copy or pack the folder again")
            self._verified[row] = True
        return data


class Texts(Protocol):
    """Texts that are looked up by their row."""

    def __getitem__(self, row: Any, /) -> str: ...


class _MappedTexts:
    """The texts of a column of Arrow."""

    def __init__(self, column: pd.Series) -> None:
        import pyarrow as pa

        texts = pa.array(column.array)  # without a copy
        self._chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks]).tolist()

    def __getitem__(self, row: int) -> str:
        number = bisect_right(self._ends, row)
        chunk = self._chunks[number]
        text: str = chunk[int(row) - (self._ends[number] - len(chunk))].as_py()
        return text


class _OpenFile:
    """An open file that is closed when nothing refers to it any more."""

    def __init__(self, number: int) -> None:
        self.number = number

    @classmethod
    def at(cls, path: str) -> _OpenFile:
        return cls(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))

    def __del__(self) -> None:
        os.close(self.number)


@lru_cache(maxsize=256)  # below the usual limit of 1024 open files, however many shards there are
def _shard(path: str, fingerprint: str, pid: int) -> _OpenFile:
    """Open a shard once per process and data set: again in a forked child, and again after a new pack."""
    return _OpenFile.at(path)


def _read(folder: Path, absolute: Path, address: Address | None = None) -> Dataset:
    """Return what dataset.json and index.parquet describe. Raises InputError as `Dataset.open`."""
    content = read_plain(folder / DESCRIPTION)
    description, _ = _described(folder / DESCRIPTION, content)
    many = sum(description.counts.values()) >= mapped.MANY
    # Reading what is no plain file gives the error.
    if many and (folder / INDEX).is_file() and not (folder / INDEX).is_symlink():
        state = files.state((folder / INDEX).stat())
        if (large := _mapped(folder, absolute, content, state, address)) is not None:
            return large
    return _parsed(folder, absolute, content, read_plain(folder / INDEX), address)


@lru_cache(maxsize=4)  # the next trial in a process reads the same bytes again
def _parsed(
    folder: Path, absolute: Path, description_bytes: bytes, index_bytes: bytes, address: Address | None
) -> Dataset:
    """Return the data set that the contents of dataset.json and index.parquet describe.

    The data set remembers which samples were checked, so the cache must know the folder by `absolute`: a
    relative name means another folder after a change of the working directory.
    """
    description, taxonomy = _described(folder / DESCRIPTION, description_bytes)
    samples = fingerprint_of(description_bytes, index_bytes)
    table = read_index(folder / INDEX, index_bytes, description.folds, description.counts, taxonomy)
    return _dataset(folder, absolute, description, taxonomy, table, samples, address)


@lru_cache(maxsize=4)
def _mapped(
    folder: Path, absolute: Path, description_bytes: bytes, state: tuple[int, ...], address: Address | None
) -> Dataset | None:
    """As `_parsed`, of a large data set; `state` identifies its index. None where it cannot be mapped."""
    description, taxonomy = _described(folder / DESCRIPTION, description_bytes)
    known = mapped.opened(
        absolute / INDEX, description_bytes, description.folds, description.counts, taxonomy
    )
    if known is None:
        return None
    dataset = _dataset(folder, absolute, description, taxonomy, known.table, known.samples, address)
    return replace(dataset, mapped=known)


def _dataset(
    folder: Path,
    absolute: Path,
    description: Description,
    taxonomy: Taxonomy,
    table: pd.DataFrame,
    samples: str,
    address: Address | None,
) -> Dataset:
    return Dataset(
        folder,
        absolute,
        description.size,
        taxonomy,
        description.folds,
        description.group,
        table,
        samples,
        description,
        samples=samples,
        address=address,
    )


@lru_cache(maxsize=16)
def _described(path: Path, content: bytes) -> tuple[Description, Taxonomy]:
    description = _description(path, content)
    try:
        return description, Taxonomy.from_nested(description.taxonomy)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


@lru_cache(maxsize=16)
def _dealt(dataset: Dataset, repeat: int, content: bytes) -> Dataset:
    """Return the data set with the folds of a repeat above 0, from the bytes of its deal."""
    path = dataset.folder / DEAL.format(repeat)
    index = dataset.index.assign(fold=deals.parsed(path, content, dataset.index))
    fingerprint = dealt(dataset.fingerprint, content)
    return replace(dataset, index=index, fingerprint=fingerprint, repeat=repeat)


def _description(path: Path, content: bytes) -> Description:
    try:
        value = json.loads(content, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {one_line(error)}; pack the folder again") from error
    if isinstance(value, dict) and value.get("format") != FORMAT:
        version = f"format {value.get('format')!r}, this version reads format {FORMAT}"
        raise InputError(f"{path}: {version}; pack the folder again")
    return config.parse(Description, value, str(path))


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError for a repeated key, whose last value Python would keep."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return values


def _check_shards(dataset: Dataset, ends: bool) -> None:
    """Raise InputError unless every shard is a plain file that is long enough for its samples.

    With `ends`, the headers of its first and last sample must be there, too.
    """
    paths, shard_ids, offsets, lengths, keys, _ = dataset._locations
    firsts, lasts = _ends(shard_ids, offsets)
    for number, first, last in zip(shard_ids[firsts].tolist(), firsts.tolist(), lasts.tolist(), strict=True):
        path, end = dataset.folder / os.path.basename(paths[number]), int(offsets[last] + lengths[last])
        if path.is_symlink() or not path.is_file():
            problem = "is a link" if path.is_symlink() else "no such shard"
            raise InputError(f"{path}: {problem}; pack the folder again")
        status = path.stat()
        if status.st_size < end:
            problem = f"{status.st_size} bytes, but a sample ends at byte {end}"
            raise InputError(f"{path}: {problem}; copy or pack the folder again")
        if ends:
            places = tuple((keys[row], int(offsets[row]), int(lengths[row])) for row in (first, last))
            _check_headers(path, files.state(status), places)


def _ends(shard_ids: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the first and of the last sample of each shard, by their places in it."""
    next_shard, further = np.diff(shard_ids), np.diff(offsets)
    rows = np.arange(len(shard_ids))
    if not ((next_shard > 0) | ((next_shard == 0) & (further > 0))).all():  # not as `pack` orders them
        rows = np.lexsort((offsets, shard_ids))
    begins = np.flatnonzero(np.diff(shard_ids[rows], prepend=-1))
    return rows[begins], rows[np.append(begins[1:], len(rows)) - 1]


@lru_cache(maxsize=2**14)  # a study checks many specs on one data set
def _check_headers(path: Path, state: tuple[int, ...], places: tuple[tuple[str, int, int], ...]) -> None:
    """Raise InputError unless the headers of these samples (key, offset, length) are in the shard.

    They are not if the shard was replaced, or copied as a file of zeros. `state` identifies the file, for the
    cache.
    """
    try:
        shard = _OpenFile.at(str(path))
        starts = [offset - tarfile.BLOCKSIZE for _, offset, _ in places]
        headers = [os.pread(shard.number, tarfile.BLOCKSIZE, start) for start in starts]
    except OSError as error:
        raise read_error(error, f"{path}: cannot be read: {error.strerror}") from error
    for header, (key, _, length) in zip(headers, places, strict=True):
        if problem := tarheader.fault(header, f"{key}.jpg", length):
            raise InputError(f"{path}: sample {key}: {problem}; copy or pack the folder again")
