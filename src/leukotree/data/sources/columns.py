"""Columns of a table beside a data set, for the rows of its manifest: sites, scanners and readers."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from leukotree import csvfile
from leukotree.data import described
from leukotree.data.patients import identities
from leukotree.data.sources.layout import Scan
from leukotree.errors import InputError


def add(scan: Scan, path: Path, root: Path, new_names: Mapping[str, str], nodes: Collection[str]) -> None:
    """Add the columns of a table to the rows of a scan, in place. Images that it does not name have no value.

    Args:
        path: a CSV with `image`, the path below `root`, and columns of `described`.
        root: the folder that the user gave.
        new_names: label -> node, for readings.
        nodes: the names that a reading can have.

    Raises InputError for a table without such columns, an image that is named twice, a reading that is no
    node, or if the table names no image of the scan.
    """
    table = csvfile.read(path, ("image",), described.PLACES, (described.READER,))
    names = described.present(table.columns)
    if not names:
        raise InputError(f"{path}: no column {', '.join(described.PLACES)} or {described.READER}<name>")
    values: dict[str, dict[str, str]] = {}
    for row, (image, line) in enumerate(zip(table.columns["image"], table.lines, strict=True)):
        place = os.path.normpath(image.strip())
        if place in values:
            raise InputError(f"{path} row {line}: image {image!r} is named twice")
        values[place] = {name: identities.normal(table.columns[name][row].strip()) for name in names}
        for name in described.readers(names):
            reading = new_names.get(values[place][name], values[place][name])
            if reading and reading not in nodes:
                raise InputError(
                    f"{path} row {line}: {name} {reading!r} is no node of the tree, which has "
                    f"{', '.join(nodes)}; rename it with --leaf OLD=NEW, or leave the cell empty"
                )
            values[place][name] = reading
    blank = dict.fromkeys(names, "")
    home = os.path.relpath(scan.root, root)
    used = set()
    for image_row in scan.rows:
        place = os.path.normpath(os.path.join(home, image_row["image"]))
        used.add(place)
        image_row.update(values.get(place, blank))
    absent = values.keys() - used
    if len(absent) == len(values):
        raise InputError(f"{path}: names no image that is imported; its paths start at {root}")
    if absent:
        scan.notes.append(f"{len(absent)} rows of {path} name no image that is imported")
