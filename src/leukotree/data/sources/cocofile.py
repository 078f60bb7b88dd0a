"""Tables of boxes in COCO's JSON (https://cocodataset.org/#format-data): images, annotations, categories.

Published tables are not always what the format says. One file stands under many image ids, one image id
stands for several files, files are missing, boxes are there twice.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leukotree.data import boxes
from leukotree.data.boxes import Box
from leukotree.errors import InputError, one_line

MAX_BYTES = 10**9
"""A larger table is refused before it is read."""
KEYS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class Annotated:
    """One box."""

    file: str
    """The file's name in the table."""
    box: Box
    category: str
    cut: bool
    """Whether the box reaches the edge of its image, by the size in the table."""
    size: tuple[int, int]
    """Width and height of the image by the table, (0, 0) where it does not say."""


@dataclass
class CocoTable:
    """The boxes of a table, each once with a category, in their order."""

    boxes: list[Annotated] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    """All files that the table names."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Reason -> boxes that were left out."""


def is_table(path: Path) -> bool:
    """Return whether a file looks like such a table. Its end is not read."""
    try:
        with open(path, "rb") as file:
            start = file.read(1 << 20)
    except OSError:
        return False
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and any(
        f'"{key}"'.encode() in start for key in KEYS
    )


def read(path: Path) -> CocoTable:
    """Return the boxes of a table. A box may be there with several categories.

    Where an image id stands for two files, the table is several tables, one after the other, and an id means
    a file only within its own. The parts begin where the numbers of the annotations begin again. A box whose
    image is in another part is left out: in the published table of LeukemiaAttri 42 of 54 such boxes hold no
    cell of that file, against none of 303 in their own part.

    Raises InputError naming the file and what is wrong with it.
    """
    content = _load(path)
    images, annotations, categories = (_records(path, content, key) for key in KEYS)
    table = CocoTable(files=_names(path, images))
    image_parts, parts = _parts(images, annotations)
    files: defaultdict[tuple[int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for part, image in zip(image_parts, images, strict=True):
        files[part, _key(image.get("id"))].append(image)
    anywhere = {key for _, key in files}
    labels = _labels(path, categories)
    taken: set[tuple[str, Box, str]] = set()
    for part, annotation in zip(parts, annotations, strict=True):
        key = _key(annotation.get("image_id"))
        named, label = files.get((part, key), []), labels.get(_key(annotation.get("category_id")), "")
        box = _box(annotation)
        if not named:
            where = "in another part of" if key in anywhere else "not in"
            table.skipped[f"box whose image is {where} the table"] += 1
        elif len({image["file_name"] for image in named}) > 1:
            table.skipped["box whose image number stands for several files"] += 1
        elif reason := _unusable(annotation, label, box, _size(named[-1])):
            table.skipped[reason] += 1
        else:
            assert box is not None
            file, size = named[-1]["file_name"], _size(named[-1])
            if (file, box, label) in taken:
                table.skipped["box that is there twice"] += 1
            else:
                taken.add((file, box, label))
                table.boxes.append(Annotated(file, box, label, 0 not in size and box.is_cut(*size), size))
    return table


def _unusable(annotation: Mapping[str, Any], label: str, box: Box | None, size: tuple[int, int]) -> str:
    """Return why an annotation is no cell, "" for a cell."""
    if not label:
        return "box without a category"
    if box is None:
        return "box without an area"
    if annotation.get("iscrowd") in (1, True, "1"):
        return "box of a crowd (iscrowd 1): no single cell"
    return boxes.OUTSIDE if 0 not in size and box.is_outside(*size) else ""


def _labels(path: Path, categories: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the number of a category -> its name. Raises InputError for a number with two names."""
    labels: dict[str, str] = {}
    for category in categories:
        key, name = _key(category.get("id")), str(category.get("name", "")).strip()
        if labels.setdefault(key, name) != name:
            raise InputError(
                f"{path}: category {key} is {labels[key]!r} and {name!r}; give each name a number of its own"
            )
    return labels


def _names(path: Path, images: Iterable[dict[str, Any]]) -> set[str]:
    """Return the files of a table. Raises InputError for an image without one."""
    for image in images:
        if not isinstance(image.get("file_name"), str) or not image["file_name"]:
            raise InputError(f"{path}: image {image.get('id')!r} has no file_name")
    return {image["file_name"] for image in images}


def _parts(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]
) -> tuple[list[int], list[int]]:
    """Return the part of the table in which each image is, and that of each annotation; 0 for one table."""
    files: defaultdict[str, set[str]] = defaultdict(set)
    for image in images:
        files[_key(image.get("id"))].add(image["file_name"])
    if all(len(names) == 1 for names in files.values()):
        return [0] * len(images), [0] * len(annotations)
    parts = _stretches([annotation.get("id") for annotation in annotations])
    last = max(parts, default=0)
    return [min(part, last) for part in _stretches([image.get("id") for image in images])], parts


def _stretches(numbers: Iterable[Any]) -> list[int]:
    """Return the stretch of each number. A stretch ends where a smaller number follows."""
    found, stretch, last = [], 0, -math.inf
    for number in numbers:
        value = number if isinstance(number, int) else last
        stretch, last = stretch + (value < last), value
        found.append(stretch)
    return found


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: over {MAX_BYTES} bytes; divide the table")
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable JSON file: {one_line(error)[:200]}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: no COCO table; it needs the keys {', '.join(KEYS)}")
    return content


def _records(path: Path, content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    records = content.get(key)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InputError(f"{path}: no COCO table; {key!r} must be a list of objects")
    return records


def _key(value: Any) -> str:
    """Return an id in one spelling: some programs write 7, others 7.0 or "7"."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _box(annotation: Mapping[str, Any]) -> Box | None:
    values = annotation.get("bbox")
    if not isinstance(values, list) or len(values) != 4:
        return None
    try:
        return boxes.checked(*map(float, values))
    except (TypeError, ValueError):
        return None


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    """Return (width, height) of an image by the table, (0, 0) where it does not say."""
    width, height = image.get("width"), image.get("height")
    known = all(isinstance(side, int | float) and 0 < side < boxes.FAR for side in (width, height))
    return (int(width), int(height)) if known else (0, 0)  # type: ignore[arg-type]
