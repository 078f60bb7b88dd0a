"""What sets share that sort single cells by their type: the leaf of each type, and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath

from leukotree.data.sources.layout import Options, Scan

NO_LEAF = ""
"""Leaf of cell types that stand for no leaf."""


def add_all(
    scan: Scan,
    options: Options,
    images: Iterable[PurePosixPath],
    leaves: Mapping[str, str],
    kind: Callable[[PurePosixPath], str],
) -> None:
    """Add the images whose cell type is a proxy for a leaf, if the user wants proxies; count the others.

    Args:
        leaves: cell type in lower case -> leaf, or NO_LEAF.
        kind: the cell type of an image, "" where it has none.
    """
    for image in images:
        name = kind(image)
        leaf = leaves.get(name.casefold())
        if leaf is None:
            scan.leave_out(image, f"{name!r} is no class of the set" if name else "not in a class folder")
        elif leaf == NO_LEAF:
            scan.leave_out(image, f"cell type {name!r} has no leaf")
        elif not options.cell_types:
            scan.leave_out(image, f"cell type {name!r} is only a proxy, used with --cell-types")
        else:
            scan.add(image, leaf)


def folder(image: PurePosixPath) -> str:
    """Return the folder directly below the top in which an image lies, "" for none."""
    return image.parts[0] if len(image.parts) > 1 else ""
