"""Bodzas et al. (Ostrava): single cells of 78 patients by type. Which cell is whose is not given.

    [Labelled/]{Basophile,Eosinophile,Lymphoblast,...,Normoblast}/*.bmp        nine classes

The blasts are those of patients with an acute leukemia, so with `cell_types` they are a proxy for it.
"""

from __future__ import annotations

from pathlib import Path

from leukotree.data.sources import classes, layout
from leukotree.data.sources.classes import NO_LEAF
from leukotree.data.sources.layout import Options, Scan, find_top

OPTIONS = frozenset({"cell_types"})
OWN = frozenset({"basophile", "eosinophile", "neutrophile band", "neutrophile segment"})
"""Names of folders that no other set spells so."""
LEAVES = {
    **dict.fromkeys((*OWN, "lymphocyte", "monocyte"), "normal"),
    "lymphoblast": "ALL",
    "myeloblast": "AML",
    "normoblast": NO_LEAF,
}
NEEDED = 2


def scan(root: Path, options: Options) -> Scan:
    """Return the cells whose type is a proxy. Raises InputError for another layout."""
    looked_for = "its class folders, such as 'Neutrophile Band' and Basophile"
    top = find_top(root, [root / "Labelled"], _matches, looked_for)
    result = Scan("bodzas", top, options.skip)
    classes.add_all(result, options, result.images(), LEAVES, classes.folder)
    return result


def _matches(folder: Path) -> bool:
    return len(layout.folder_names(folder) & OWN) >= NEEDED
