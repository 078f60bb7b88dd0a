"""Lyon Sud (the set of lymphoMIL): single lymphocytes. A patient's label is in a table.

    clinical_annotation.csv        ID, LABEL (0 reactive, 1 tumoral)
    trainset/<ID>/*.jpg

A tumoral patient has a lymphoma or a leukemia, which one is not said. So the leaf is the user's choice.
"""

from __future__ import annotations

from pathlib import Path

from leukotree import csvfile
from leukotree.data.sources.layout import Options, Scan, find_top, listed

OPTIONS = frozenset({"tumoral"})
LABELS = "clinical_annotation.csv"
IMAGES = "trainset"
REACTIVE, TUMORAL = "0", "1"


def scan(root: Path, options: Options) -> Scan:
    """Return the cells of reactive patients, and of tumoral ones only with `options.tumoral`.

    Raises InputError for another layout or a broken table.
    """
    top = find_top(root, sorted(root.iterdir()), _matches, f"{LABELS} and {IMAGES}/")
    labels = csvfile.lookup(top / LABELS, "ID", "LABEL")
    leaves = {REACTIVE: "reactive", TUMORAL: (options.tumoral or "").strip()}
    result = Scan("lyon", top, options.skip)
    left_out: set[str] = set()
    for image in result.images(IMAGES):
        patient = image.parts[1] if len(image.parts) > 2 else ""
        label = labels.get(patient, "")
        if leaf := leaves.get(label):
            result.add(image, leaf, patient)
        elif label == TUMORAL:
            left_out.add(patient)
            result.leave_out(image, "tumoral has no leaf; --tumoral LEAF gives it one, as a proxy")
        elif patient in labels:
            result.leave_out(image, f"label {label!r} is neither 0 (reactive) nor 1 (tumoral)")
        else:
            result.leave_out(image, f"patient not in {LABELS}")
    if left_out:
        result.notes.append(f"{len(left_out)} tumoral patients are left out")
    folders = {path.name for path in (top / IMAGES).iterdir() if path.is_dir()}
    if absent := {patient for patient in labels if patient not in folders}:
        result.notes.append(f"{len(absent)} patients of {LABELS} have no folder: {listed(absent)}")
    return result


def _matches(folder: Path) -> bool:
    return (folder / LABELS).is_file() and (folder / IMAGES).is_dir()
