"""C-NMC 2019 (TCIA): segmented single cells on black; the file's name holds the subject and the class.

    .../fold_{0,1,2}/{all,hem}/UID_<subject>_<image>_<cell>_{all,hem}.bmp .../<folder>/1.bmp with <folder>.csv
    or <folder>_labels.csv beside it or in it: Patient_ID, new_names, labels (1 = ALL)

The second form is the preliminary phase; `Patient_ID` is the name that the file would have in the first. The
final phase has no labels and is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from leukotree import csvfile
from leukotree.data.sources.layout import Options, Scan
from leukotree.data.sources.walk import Walk
from leukotree.errors import InputError

OPTIONS: frozenset[str] = frozenset()
LEAVES = {"all": "ALL", "hem": "normal"}
CLASSES = {"1": "all", "0": "hem"}
NAME = re.compile(r"UID_([^_]+)_.+_(all|hem)", re.IGNORECASE)
COLUMNS = ("Patient_ID", "new_names", "labels")


def scan(root: Path, options: Options) -> Scan:
    """Cells of all folds and of the preliminary phase, wherever they lie below `root`. Raises InputError if
    there are none."""
    found = Scan("cnmc", _top(root), options.skip)
    files = sorted(file.path for file in Walk(options.skip).files(found.root))
    tables = [path for path in files if path.suffix.lower() == ".csv" and csvfile.has_columns(path, COLUMNS)]
    renamed = {image: label for path in tables for image, label in _renamed(path).items()}
    for image in found.images(apart_from=set(tables)):
        name = NAME.fullmatch(image.stem)
        if label := renamed.get(found.root / image):
            found.place(image, LEAVES[label[1]], label[0])
        elif name is None:
            found.leave_out(
                image, "no label: the name is not UID_<subject>_..._{all,hem} and no CSV lists it"
            )
        elif (folder := image.parent.name.casefold()) in LEAVES and folder != name[2].casefold():
            found.leave_out(image, f"class {name[2]!r} in the file's name but folder {image.parent.name!r}")
        else:
            found.place(image, LEAVES[name[2].casefold()], name[1])
    if missing := [image for image in renamed if not image.is_file()]:
        found.notes.append(f"{len(missing)} images of the preliminary phase's CSV are not there")
    if not found.rows:
        raise InputError(
            f"{root}: not this data set's layout; looked there for fold_N/{{all,hem}}/UID_*_{{all,hem}}.bmp"
        )
    return found


def _top(root: Path) -> Path:
    """The data set's top folder, so that images have the same names whichever folder was given."""
    inside = root / "C-NMC_Leukemia"
    return inside if inside.is_dir() else root


def _renamed(path: Path) -> dict[Path, tuple[str, str]]:
    """Image -> (subject, class) from a CSV of the preliminary phase."""
    table = csvfile.read(path, COLUMNS)
    folder = path.with_name(path.stem.removesuffix("_labels"))
    folder = folder if folder.is_dir() else path.parent
    labels = {}
    for original, name, label, line in zip(
        *(table.columns[column] for column in COLUMNS), table.lines, strict=True
    ):
        parts = NAME.fullmatch(Path(original.strip()).stem)
        kind = CLASSES.get(label.strip(), "")
        if not kind or (parts and parts[2].casefold() != kind):
            raise InputError(
                f"{path} row {line}: label {label!r} of {original!r} is not 1 for all or 0 for hem"
            )
        labels[folder / name.strip()] = (parts[1] if parts else original.strip(), kind)
    return labels
