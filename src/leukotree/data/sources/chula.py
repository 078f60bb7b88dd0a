"""Chula-WBC (Chulalongkorn University, Bangkok): single cells with one label by five experts, without ids.

    labels.csv               Order.jpg (the file), Original name(label machine), Summary by 5 experts
    <anywhere>/000001.jpg

Its patients are not described. So every leaf is a proxy.
"""

from __future__ import annotations

from pathlib import Path

from leukotree import csvfile
from leukotree.data.sources import classes
from leukotree.data.sources.classes import NO_LEAF
from leukotree.data.sources.layout import Options, Scan, find_top, listed

OPTIONS = frozenset({"cell_types"})
LABELS = "labels.csv"
FILE, LABEL = "Order.jpg", "Summary by 5 experts"
NORMAL = ("basophil", "bne", "eosinophil", "eosinophill", "lymphocyte", "monocyte", "sne")
OTHERS = (
    "giant platelet",
    "lqi",
    "metamyelocyte",
    "monoblast",
    "myelocyte",
    "promyelocyte",
    "smudge cell",
)
LEAVES = {
    **dict.fromkeys(NORMAL, "normal"),
    **dict.fromkeys(OTHERS, NO_LEAF),
    **dict.fromkeys(("myeloblast", "myeolblast"), "AML"),
    "atypical lymphocyte": "reactive",
}
"""Label in lower case, also as it is misspelt in the table -> leaf."""


def scan(root: Path, options: Options) -> Scan:
    """Return the cells whose label is a proxy. Raises InputError for another layout or a broken table."""
    top = find_top(root, [], _matches, f"{LABELS} with the columns {FILE!r} and {LABEL!r}")
    labels = csvfile.lookup(top / LABELS, FILE, LABEL)
    result = Scan("chula", top, options.skip)
    images = list(result.images(apart_from={top / LABELS}))
    labelled = [image for image in images if image.name in labels]
    for image in set(images) - set(labelled):
        result.leave_out(image, f"not in {LABELS}")
    classes.add_all(result, options, labelled, LEAVES, lambda image: labels[image.name])
    if absent := set(labels) - {image.name for image in images} - {""}:
        result.notes.append(f"{len(absent)} files of {LABELS} are not there: {listed(absent)}")
    return result


def _matches(folder: Path) -> bool:
    return (folder / LABELS).is_file() and csvfile.has_columns(folder / LABELS, (FILE, LABEL))
