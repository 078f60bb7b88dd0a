"""Boxes in COCO's JSON, of anybody: one image per box. The leaf is the category.

    <anywhere>.json          images, annotations, categories
    <anywhere>/*.png

A category that is no leaf is left out and counted, unless --leaf gives it one.
"""

from __future__ import annotations

from pathlib import Path

from leukotree.data.sources import cocofile
from leukotree.data.sources.general import OTHER_SIZE, Boxes, Finder, Sizes, note_absent, source_of
from leukotree.data.sources.layout import Options, Scan
from leukotree.data.sources.walk import Walk
from leukotree.errors import InputError

OPTIONS = frozenset({"table", "patient", "slide"})


def scan(root: Path, options: Options) -> Scan:
    """Return the boxes of all tables below `root`, or of `options.table`. Raises InputError without one."""
    paths = [options.table] if options.table else _tables(root, options)
    if not paths:
        raise InputError(
            f"{root}: not this data set's layout; looked there for a .json with {', '.join(cocofile.KEYS)}"
        )
    result = Scan(source_of(root), root, options.skip)
    images = list(result.images(apart_from=set(paths)))
    finder, boxes, sizes = Finder(images), Boxes(result, options), Sizes(root)
    for path in paths:
        table = cocofile.read(path)
        result.skipped.update(table.skipped)
        folder = path.parent.relative_to(root).as_posix() if path.is_relative_to(root) else ""
        absent = set()
        for one in table.boxes:
            image, reason = finder.find(one.file, folder)
            if image is None:
                result.skipped[f"box of a file: {reason}"] += 1
                absent.add(one.file)
            elif sizes.differ(image, one.size):
                boxes.leave_out(one.category, OTHER_SIZE)
            else:
                boxes.add(image, one.category, one.box, one.cut)
        note_absent(result, absent, path.name)
    boxes.finish(images)
    sizes.note(result)
    return result


def _tables(root: Path, options: Options) -> list[Path]:
    files = (file.path for file in Walk(options.skip).files(root))
    return sorted(path for path in files if path.suffix.lower() == ".json" and cocofile.is_table(path))
