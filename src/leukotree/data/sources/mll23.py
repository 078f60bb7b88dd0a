"""MLL23 (Shetab Boushehri et al., Munich Leukemia Laboratory): single cells by type, without patient ids.

    <class>/[<class>/]*.tif      18 classes; each class is an archive of its own

Its patients have all kinds of diagnoses, which are not given. So every leaf is a proxy.
"""

from __future__ import annotations

from pathlib import Path

from leukotree.data.sources import classes, layout
from leukotree.data.sources.classes import NO_LEAF
from leukotree.data.sources.layout import Options, Scan, find_top

OPTIONS = frozenset({"cell_types"})
NORMAL = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil_band", "neutrophil_segmented")
OTHERS = (
    "hairy_cell",
    "lymphocyte_large_granular",
    "lymphocyte_neoplastic",
    "metamyelocyte",
    "myelocyte",
    "normoblast",
    "plasma_cell",
    "promyelocyte",
    "smudge_cell",
)
LEAVES = {
    **dict.fromkeys(NORMAL, "normal"),
    **dict.fromkeys(OTHERS, NO_LEAF),
    "lymphocyte_reactive": "reactive",
    "myeloblast": "AML",
    "promyelocyte_atypical": "APML",
}
OWN = frozenset(name for name in LEAVES if "_" in name)
"""Names of folders that no other set has."""
NEEDED = 2
"""Such folders that show the set, since its archives are loaded one by one."""


def scan(root: Path, options: Options) -> Scan:
    """Return the cells whose type is a proxy. Raises InputError for another layout."""
    looked_for = "its class folders, such as neutrophil_segmented/ and promyelocyte_atypical/"
    top = find_top(root, [root / "MLL23"], _matches, looked_for)
    result = Scan("mll23", top, options.skip)
    classes.add_all(result, options, result.images(), LEAVES, classes.folder)
    return result


def _matches(folder: Path) -> bool:
    return len(layout.folder_names(folder) & OWN) >= NEEDED
