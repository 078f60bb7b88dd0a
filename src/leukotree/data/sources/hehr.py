"""AML of four genetic types, and healthy donors (Hehr et al., TCIA AML-Cytomorphology_MLL_Helmholtz).

metadata.csv                         patient_id, bag_label, ...
data/<bag_label>/<patient_id>/*.tif  all white cells of a smear
"""

from __future__ import annotations

from pathlib import Path

from leukotree import csvfile
from leukotree.data.sources.layout import Options, Scan, find_top, listed

OPTIONS: frozenset[str] = frozenset()
TABLE = "metadata.csv"
COLUMNS = ("patient_id", "bag_label")
LEAVES = {
    "control": "normal",
    "PML_RARA": "APML",
    "NPM1": "AML",
    "CBFB_MYH11": "AML",
    "RUNX1_RUNX1T1": "AML",
}


def scan(root: Path, options: Options) -> Scan:
    """Return the cells of patients whose label is in the table.

    Raises InputError for another layout or a broken table.
    """
    top = find_top(root, sorted(root.iterdir()), _matches, f"{TABLE} and data/<bag_label>/<patient_id>/")
    labels = csvfile.lookup(top / TABLE, *COLUMNS)
    result = Scan("hehr", top, options.skip)
    seen: set[str] = set()
    for image in result.images("data"):
        folder, patient = (image.parts[1], image.parts[2]) if len(image.parts) > 3 else ("", "")
        label = labels.get(patient)
        seen.add(patient)
        if label is None:
            result.leave_out(image, f"patient not in {TABLE}" if patient else "not in a patient's folder")
        elif label not in LEAVES:
            result.leave_out(image, f"label {label!r} has no leaf")
        elif folder != label:
            result.leave_out(image, f"in folder {folder!r}, but {TABLE} says {label!r}")
        else:
            result.add(image, LEAVES[label], patient)
    if absent := set(labels) - seen:
        result.notes.append(f"{len(absent)} patients of {TABLE} have no images: {listed(absent)}")
    return result


def _matches(folder: Path) -> bool:
    table = folder / TABLE
    return table.is_file() and (folder / "data").is_dir() and csvfile.has_columns(table, COLUMNS)
