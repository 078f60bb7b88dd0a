"""LeukemiaAttri / LLD (Lahore): whole fields, and single cells by boxes. The file's name has slide and leaf.

    <SUB>/Images/{train,test}/<slide>_<field>_<magnification>_<LEAF>.png
    <SUB>/json_labels/{train,test}.json                                     boxes (COCO) with cell types

SUB is a microscope (H or L), a magnification and a camera, such as H_100X_C1. They show the same slides, so a
slide is one group in all of them. A cell has the leaf of its field. The set has no boxes in AML fields.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

from leukotree.data.sources import cocofile
from leukotree.data.sources.general import OTHER_SIZE, Sizes
from leukotree.data.sources.layout import Options, Scan, find_top, listed

OPTIONS = frozenset({"cells"})
SUB = re.compile("[HL]_(10|40|100)X_C[0-9]+", re.IGNORECASE)
NAME = re.compile("([0-9]+)_([0-9]+)_([0-9]+)_([A-Za-z]+)")
LEAVES = {"ALL": "ALL", "AML": "AML", "APL": "APML", "APML": "APML", "CLL": "CLL", "CML": "CML"}
NO_CELL = "none"
"""Category of boxes that hold no white cell."""


def scan(root: Path, options: Options) -> Scan:
    """Return the fields, or with `options.cells` the boxes of those that have some.

    Raises InputError for another layout or a broken table of boxes.
    """
    alone = SUB.fullmatch(root.name) is not None and (root / "Images").is_dir()
    top = root.parent if alone else find_top(root, sorted(root.iterdir()), _matches, "H_100X_C1/Images/")
    result = Scan("leukemiaattri", top, options.skip)
    subs = [root.name] if alone else sorted(path.name for path in top.iterdir() if _is_sub(path))
    slides: defaultdict[str, set[str]] = defaultdict(set)
    for sub in subs:
        fields = _fields(result, sub)
        for leaf, slide in fields.values():
            slides[slide].add(leaf)
        if options.cells:
            _add_cells(result, sub, fields)
        else:
            for image, (leaf, slide) in fields.items():
                result.add(image, leaf, slide=slide)
    result.rows.sort(key=lambda row: row["image"])  # so that each field is decoded once
    if several := {slide for slide, leaves in slides.items() if len(leaves) > 1}:
        result.notes.append(f"{len(several)} slides have fields of several leaves: {listed(several)}")
    if len(subs) > 1:
        result.notes.append(f"{len(subs)} folders show the same slides again: {listed(subs)}")
    return result


def _matches(folder: Path) -> bool:
    return any(_is_sub(path) for path in folder.iterdir())


def _is_sub(folder: Path) -> bool:
    return SUB.fullmatch(folder.name) is not None and (folder / "Images").is_dir()


def _fields(result: Scan, sub: str) -> dict[PurePosixPath, tuple[str, str]]:
    """Return the fields of a folder -> (leaf, slide), and leave out what has no leaf."""
    fields = {}
    for image in result.images(f"{sub}/Images"):
        name = NAME.fullmatch(image.stem)
        leaf = LEAVES.get(name[4].upper()) if name else None
        if name is None:
            result.leave_out(image, "the name is not <slide>_<field>_<magnification>_<LEAF>")
        elif leaf is None:
            result.leave_out(image, f"diagnosis {name[4]!r} has no leaf")
        else:
            fields[image] = leaf, name[1]
    return fields


def _add_cells(result: Scan, sub: str, fields: dict[PurePosixPath, tuple[str, str]]) -> None:
    """Add the boxes of the fields that are there, each once."""
    folder = result.root / sub / "json_labels"
    tables = [path for path in sorted(folder.glob("*.json")) if not path.name.startswith(".")]
    added: dict[tuple[PurePosixPath, str], str] = {}
    boxed: set[PurePosixPath] = set()
    types: Counter[str] = Counter()
    sizes, cut = Sizes(result.root), 0
    for path in tables:
        table = cocofile.read(path)
        places = _places(fields, path.stem)
        absent = {name for name in table.files if name not in places}
        result.skipped.update(table.skipped)
        if absent:
            result.notes.append(f"{len(absent)} files of {sub}/{path.name} are not there: {listed(absent)}")
        for one in table.boxes:
            image, box = places.get(one.file), str(one.box)
            if image is None:
                result.skipped["box of a file that is not there"] += 1
                continue
            boxed.add(image)
            if one.category.casefold() == NO_CELL:
                result.skipped[f"box of category {one.category!r}: no white cell"] += 1
            elif sizes.differ(image, one.size):
                result.skipped[OTHER_SIZE] += 1
            elif (before := added.get((image, box))) is not None:
                again = "there twice" if before == one.category else f"{before!r} and {one.category!r}"
                result.skipped[f"box that is {again}"] += 1
            else:
                added[image, box] = one.category
                leaf, slide = fields[image]
                result.add(image, leaf, slide=slide, box=box)
                types[one.category] += 1
                cut += one.cut
    sizes.note(result)
    for image in fields.keys() - boxed:
        result.skipped[f"field of {fields[image][0]} without a box"] += 1
    if types:
        counts = ", ".join(f"{name} {count}" for name, count in types.most_common())
        result.notes.append(f"cell types in {sub}, which have the leaf of their field: {counts}")
        result.notes.append(f"{cut} boxes in {sub} reach the edge of their field, so may be cut off there")


def _places(fields: dict[PurePosixPath, tuple[str, str]], split: str) -> dict[str, PurePosixPath]:
    """Return the name of a file in a table -> the field; of two with one name, that in the table's folder."""
    ordered = sorted(fields, key=lambda image: image.parent.name == split)
    return {image.name: image for image in ordered}
