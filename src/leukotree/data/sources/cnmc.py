"""C-NMC 2019 (TCIA): segmented single cells on black. The file's name holds the subject and the class.

    .../fold_{0,1,2}/{all,hem}/UID_<subject>_<image>_<cell>_{all,hem}.bmp
    .../<folder>/1.bmp

The second form is the preliminary phase. Beside the folder or in it lies <folder>.csv or <folder>_labels.csv
with the columns Patient_ID (the file's name in the first form), new_names and labels (1 = ALL). The final
phase has no labels and is left out.
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
    """Return the cells of all folds and of the preliminary phase, at any depth below `root`.

    Raises InputError if there are none.
    """
    result = Scan("cnmc", _top(root), options.skip)
    files = sorted(file.path for file in Walk(options.skip).files(result.root))
    tables = [path for path in files if path.suffix.lower() == ".csv" and csvfile.has_columns(path, COLUMNS)]
    renamed = {image: label for path in tables for image, label in _renamed(path).items()}
    for image in result.images(apart_from=set(tables)):
        name = NAME.fullmatch(image.stem)
        if label := renamed.get(result.root / image):
            result.add(image, LEAVES[label[1]], label[0])
        elif name is None:
            reason = "no label: the name is not UID_<subject>_..._{all,hem} and no CSV lists it"
            result.leave_out(image, reason)
        elif (folder := image.parent.name.casefold()) in LEAVES and folder != name[2].casefold():
            result.leave_out(image, f"class {name[2]!r} in the file's name but folder {image.parent.name!r}")
        else:
            result.add(image, LEAVES[name[2].casefold()], name[1])
    if missing := [image for image in renamed if not image.is_file()]:
        result.notes.append(f"{len(missing)} images of the preliminary phase's CSV are missing")
    if not result.rows:
        raise InputError(
            f"{root}: not this data set's layout; looked there for fold_N/{{all,hem}}/UID_*_{{all,hem}}.bmp"
        )
    return result


def _top(root: Path) -> Path:
    """Return the data set's top folder, so that the images' names do not depend on the given folder."""
    inside = root / "C-NMC_Leukemia"
    return inside if inside.is_dir() else root


def _renamed(path: Path) -> dict[Path, tuple[str, str]]:
    """Return image -> (subject, class) from a CSV of the preliminary phase."""
    table = csvfile.read(path, COLUMNS)
    folder = path.with_name(path.stem.removesuffix("_labels"))
    folder = folder if folder.is_dir() else path.parent
    labels = {}
    rows = zip(*(table.columns[column] for column in COLUMNS), table.lines, strict=True)
    for original, name, label, line in rows:
        parts = NAME.fullmatch(Path(original.strip()).stem)
        kind = CLASSES.get(label.strip(), "")
        if not kind or (parts and parts[2].casefold() != kind):
            raise InputError(
                f"{path} row {line}: label {label!r} of {original!r} is not 1 for all or 0 for hem"
            )
        labels[folder / name.strip()] = (parts[1] if parts else original.strip(), kind)
    return labels
