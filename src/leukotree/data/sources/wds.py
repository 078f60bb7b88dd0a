"""Shards in the form of WebDataset, of anybody: the files of a tar with one name are a sample.

    <anywhere>.tar          0001.jpg, 0001.cls; or 0001.png, 0001.json

The leaf is the text of the file .cls, or the value `leaf` of .json; --map leaf=NAME names another file or
value, --map patient=NAME that of the patient. The images are written into a folder, since a manifest names
files. Nothing in a tar is unpickled, and no member can leave the folder.
"""

from __future__ import annotations

import functools
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from leukotree import progress
from leukotree.data.sources.general import Ids, is_image, source_of
from leukotree.data.sources.layout import Options, Scan
from leukotree.data.sources.walk import File, Walk
from leukotree.errors import InputError, one_line
from leukotree.files import write_atomic

OPTIONS = frozenset({"map", "patient", "slide", "extract"})
ENDINGS = (".tar", ".tar.gz", ".tgz")
KNOWN = ("image", "leaf", "patient", "slide", "site", "scanner")
"""What --map can name."""
LEAF = ("cls", "leaf")
"""Names of the leaf where --map gives none, the first one that a sample has."""
MAX_BYTES = 10**9
"""A larger member is no image."""
_END = 2 * tarfile.BLOCKSIZE
"""Bytes of zeros with which a tar ends."""


def scan(root: Path, options: Options) -> Scan:
    """Return the samples of all tars below `root`. Their images are written when all labels are checked.

    Raises InputError for a folder without tars, and naming a tar that is damaged.
    """
    if unknown := [name for name in options.map if name not in KNOWN]:
        raise InputError(f"--map {unknown[0]}=...: is one of {', '.join(KNOWN)} for samples of a tar")
    tars = _tars(root, options)
    if not tars or options.extract is None:
        raise InputError(f"{root}: not this data set's layout; looked there for .tar, .tar.gz or .tgz")
    result = Scan(source_of(root), options.extract, options.skip)
    ids = Ids(options)
    for path in progress.over(tars, "reading", len(tars), "tar"):
        for sample in _samples(path):
            name, _, reason = _place(sample, path.relative_to(root), options)
            values = {} if reason else _values(sample, options)
            if not reason and not values.get("leaf"):
                reason = "sample without a label"
            if not reason and name in result.files:
                reason = "sample that is there twice"
            if reason:
                result.skipped[reason] += 1
            else:
                _add(result, name, values, ids)
    ids.note(result)
    result.writes.append(functools.partial(_write, root, result, tars, options))
    return result


def _tars(root: Path, options: Options) -> list[Path]:
    files = (file.path for file in Walk(options.skip).files(root))
    return [
        path for path in files if path.name.casefold().endswith(ENDINGS) and not path.name.startswith(".")
    ]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn errors of a damaged tar into one line."""
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable tar: {one_line(error)[:200]}; copy it again") from error


def _has_end(path: Path) -> bool:
    """Return whether a tar ends as it must."""
    with open(path, "rb") as file:
        file.seek(-min(_END, path.stat().st_size), os.SEEK_END)
        return not any(file.read())


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of a tar, through WebDataset: `__key__`, and the bytes of each ending."""
    try:
        from webdataset import tariterators
    except ImportError as error:
        raise InputError("import wds needs the package webdataset: pip install webdataset") from error
    with _readable(path):
        if path.suffix.lower() == ".tar" and not _has_end(path):
            raise ValueError("its end is missing")  # tarfile takes the end of the file for that of the tar
        with tarfile.open(path) as tar:  # sizes first: WebDataset reads a member whatever its size is
            if large := next((member.name for member in tar if member.size > MAX_BYTES), None):
                raise InputError(f"{path}: {large!r} has over {MAX_BYTES} bytes, so is no image")
        with open(path, "rb") as file:
            members = tariterators.tar_file_iterator(file)
            named = ({**member, "__url__": str(path)} for member in members)
            yield from tariterators.group_by_keys(named)


def _place(sample: dict[str, Any], tar: Path, options: Options) -> tuple[str, str, str]:
    """Return (path of a sample's image below the folder of images, its ending, "") or ("", "", why there is
    none)."""
    wanted = options.map.get("image")
    endings = [ending for ending in sample if ending == wanted or (not wanted and is_image(f"x.{ending}"))]
    if len(endings) != 1:
        return "", "", "sample with several images" if endings else "sample without an image"
    key = PurePosixPath(sample["__key__"])
    if ".." in key.parts or key.is_absolute() or not str(key).isprintable():
        return "", "", "sample whose name leaves its folder, or is not printable"
    folder = tar.with_name(re.sub(r"\.(tar|tar\.gz|tgz)$", "", tar.name, flags=re.IGNORECASE))
    return str(folder / f"{key}.{endings[0]}"), endings[0], ""


def _values(sample: dict[str, Any], options: Options) -> dict[str, str]:
    """Return what a sample says: texts of its files, or values of its JSON."""
    try:
        fields = json.loads(sample.get("json", b"{}"))
    except (ValueError, RecursionError):
        fields = {}
    fields = fields if isinstance(fields, dict) else {}

    def value(name: str) -> str:
        if isinstance(content := sample.get(name), bytes) and name != "json":
            return content[:1000].decode("utf-8", errors="replace").strip()
        return str(fields[name]).strip() if isinstance(fields.get(name), str | int) else ""

    values = {name: value(theirs) for name, theirs in options.map.items() if name != "image"}
    if "leaf" not in options.map:
        values["leaf"] = next((text for name in LEAF if (text := value(name))), "")
    return values


def _add(result: Scan, name: str, values: dict[str, str], ids: Ids) -> None:
    path = PurePosixPath(name)
    real = os.path.join(os.path.realpath(result.root), name)
    result.files[name] = File(result.root / name, real)
    found = ids.of(path)
    patient, slide = (values.get(word, "") or found[word] for word in ("patient", "slide"))
    result.add(path, values["leaf"], patient, slide=slide)
    result.rows[-1].update({word: values[word] for word in ("site", "scanner") if word in values})


def _write(root: Path, result: Scan, tars: list[Path], options: Options) -> None:
    """Write the images of the rows. A file that has the right bytes is left as it is."""
    wanted = Counter(row["image"] for row in result.rows)
    with progress.Bar("extracting", len(wanted), "image") as bar:
        for path in tars:
            for sample in _samples(path):
                name, ending, _ = _place(sample, path.relative_to(root), options)
                if wanted.pop(name, None):
                    _write_one(result.root / name, sample[ending])
                    bar.advance()


def _write_one(path: Path, data: bytes) -> None:
    try:
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
