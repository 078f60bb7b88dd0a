"""Shards, plain tar files of `<key>.jpg` + `<key>.json`: write them reproducibly, read them by sample."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import xxhash

from leukotree.data import tarheader
from leukotree.data.images import codec
from leukotree.errors import InputError, one_line

MAX_FIELDS = 2**20
"""Largest `<key>.json` in bytes; a larger one is refused before it is read."""
_BUFFER = 2**20
"""Bytes of one write. With fewer, the writing thread waits for the decoding threads too often."""


@dataclass(frozen=True)
class Sample:
    """One sample of a shard: the bytes of `<key>.jpg`, and the fields of `<key>.json`."""

    key: str
    jpeg: bytes
    fields: dict[str, str]
    offset: int = -1
    """Position of the JPEG in the shard, in bytes; -1 before it is written."""


@dataclass(frozen=True)
class Place:
    """The position of a sample's JPEG in a shard: bytes [offset, offset + length)."""

    key: str
    offset: int
    length: int
    sha256: str


def write(shard: Path, contents: Iterable[Sample]) -> list[Place]:
    """Write samples in their order, and return their places. Equal samples give equal bytes.

    The file gets its name only when it is complete.
    """
    temporary = shard.with_name(f".{shard.name}.tmp")
    places, end = [], 0
    with open(temporary, "wb", buffering=_BUFFER) as file:
        for sample in contents:
            places.append(_place(sample, end + tarfile.BLOCKSIZE))  # after its header
            fields = json.dumps(sample.fields, ensure_ascii=False, sort_keys=True).encode()
            end += file.write(tarheader.member(f"{sample.key}.jpg", sample.jpeg))
            end += file.write(tarheader.member(f"{sample.key}.json", fields))
        file.write(tarheader.ending(end))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, shard)
    return places


def places(shard: Path) -> list[Place]:
    """Return what `write` returned when it wrote this shard. Raises InputError as `samples` does."""
    return [_place(sample, sample.offset) for sample in samples(shard)]


def _place(sample: Sample, offset: int) -> Place:
    return Place(sample.key, offset, len(sample.jpeg), hashlib.sha256(sample.jpeg).hexdigest())


def checksum(shard: Path) -> str:
    """Return the xxh3 digest (128 bits, hex) of the whole file."""
    with open(shard, "rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def samples(shard: Path) -> Iterator[Sample]:
    """Yield the samples of a shard in order, one in memory at a time.

    Raises InputError naming the shard if it is damaged, or holds other things than pairs of plain files.
    """
    try:
        with tarfile.open(shard, mode="r:") as tar:
            members = iter(tar)
            for image, description in zip_longest(members, members):
                key = image.name.removesuffix(".jpg")
                if description is None or (image.name, description.name) != (f"{key}.jpg", f"{key}.json"):
                    raise InputError(
                        f"{shard}: {image.name!r} is not in a pair of .jpg and .json; pack the folder again"
                    )
                fields = _fields(_bytes(tar, description, MAX_FIELDS), description.name)
                yield Sample(key, _bytes(tar, image, codec.MAX_BYTES), fields, image.offset_data)
    except (tarfile.TarError, OSError, ValueError, EOFError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{shard}: damaged: {one_line(error)}; copy or pack the folder again") from error


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> bytes:
    # A link would be followed, and a sparse member may be a thousand times as long as the shard.
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or (file := tar.extractfile(member)) is None:
        raise tarfile.TarError(f"{member.name!r} is not a plain file")
    if member.size > limit:
        raise tarfile.TarError(f"{member.name!r} has {member.size} bytes, over the limit of {limit}")
    with file:
        return file.read()


def _fields(text: bytes, name: str) -> dict[str, str]:
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise tarfile.TarError(f"{name!r} is not a mapping of fields")
    return fields
