"""DeepAPL (Sidhom et al., Johns Hopkins): single cells of AML and APL patients, in folders by cell type.

Data/master.csv                                               Patient_ID, Diagnosis (AML or APL), ...
Data/All/Patient_NN/[date/]Signed slides/<cell type>/*.jpg
Data/All/Patient_NN/[date/]Unsigned slides/*.jpg              no cell type: left out
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from leukotree import csvfile
from leukotree.data.sources.layout import Options, Scan, find_top, listed

OPTIONS = frozenset({"cell_types"})
DIAGNOSES = {"AML": "AML", "APL": "APML"}
LEUKEMIC = frozenset(
    {
        "blast, no lineage spec",
        "promyelocyte",
        "myelocyte",
        "metamyelocyte",
        "promonocyte",
        "young unidentified",
    }
)
"""Cells whose leaf is the patient's diagnosis."""
PROXIES = dict.fromkeys(
    ("lymphocyte", "segmented neutrophils", "monocyte", "band neutrophils", "eosinophils"), "normal"
)
PROXIES["lymphocyte, variant"] = "reactive"


def scan(root: Path, options: Options) -> Scan:
    """Return the cells of patients whose diagnosis is in master.csv.

    Raises InputError for another layout or a broken master.csv.
    """
    top = find_top(root, [root / "Data"], _matches, "Data/master.csv and Data/All/Patient_NN/")
    diagnoses = csvfile.lookup(top / "master.csv", "Patient_ID", "Diagnosis")
    result = Scan("deepapl", top, options.skip)
    for image in result.images("All"):
        leaf, reason = _label(image, diagnoses, options)
        if leaf:
            result.add(image, leaf, image.parts[1])
        else:
            result.leave_out(image, reason)
    folders = (path.name for path in (top / "All").iterdir() if path.is_dir())
    on_disk = {name for name in folders if not name.startswith(".")}
    if absent := set(diagnoses) - on_disk:
        result.notes.append(f"{len(absent)} patients of master.csv have no folder: {listed(absent)}")
    if unlisted := on_disk - set(diagnoses):
        result.notes.append(f"{len(unlisted)} folders have no patient in master.csv: {listed(unlisted)}")
    return result


def _matches(folder: Path) -> bool:
    return (folder / "master.csv").is_file() and (folder / "All").is_dir()


def _label(image: PurePosixPath, diagnoses: dict[str, str], options: Options) -> tuple[str, str]:
    """Return (leaf, "") or ("", why the image is left out) for All/<patient>/.../<file>."""
    _, patient, *folders = image.parts[:-1] if len(image.parts) > 2 else ("", "")
    if patient not in diagnoses:
        return "", "patient not in master.csv"
    if diagnoses[patient] not in DIAGNOSES:
        return "", f"diagnosis {diagnoses[patient]!r} has no leaf"
    lower = [name.casefold() for name in folders]
    if "unsigned slides" in lower:
        return "", "unsigned slides, no cell type"
    if "signed slides" not in lower[:-1]:
        return "", "not below 'Signed slides/<cell type>'"
    cell_type = folders[lower.index("signed slides") + 1]
    if cell_type.casefold() in LEUKEMIC:
        return DIAGNOSES[diagnoses[patient]], ""
    if cell_type.casefold() not in PROXIES:
        return "", f"cell type {cell_type!r} has no leaf"
    if not options.cell_types:
        return "", f"cell type {cell_type!r} is only a proxy, used with --cell-types"
    return PROXIES[cell_type.casefold()], ""
