"""Import a public data set: write a manifest for the files as they were downloaded.

Each layout has a module with `scan` and `OPTIONS`; see `SOURCES`.
"""

from __future__ import annotations

import importlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leukotree.data.sources import SOURCES, leaves, links
from leukotree.data.sources.layout import Options, Scan
from leukotree.errors import InputError

if TYPE_CHECKING:
    from leukotree.data.patients.doubts import Doubt
    from leukotree.taxonomy import Taxonomy


@dataclass(frozen=True)
class ImportSummary:
    """What a manifest contains, and what was left out."""

    source: str
    manifest: Path
    rows: int
    patients: int
    leaves: dict[str, int]
    """Leaf -> images."""
    skipped: dict[str, int]
    """Reason -> files that were left out."""
    files: int = 0
    """Image files. There are less than rows if the images are boxes in them."""
    groups: tuple[str, ...] = ()
    """What the ids are of: `patient`, `slide` or both."""
    notes: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    """Doubts about the ids of patients."""

    def lines(self) -> list[str]:
        """Return lines for people: rows and leaves, one line per reason for leaving files out, remarks."""
        word = (
            "slides" if self.groups == ("slide",) else "patients or slides" if self.groups[1:] else "patients"
        )
        people = f"{self.patients} {word}" if self.patients else "no patient ids"
        what = "images" if self.files in (0, self.rows) else f"boxes of {self.files} images"
        counts = ", ".join(f"{leaf} {count}" for leaf, count in self.leaves.items())
        skips = [f"skipped {count}: {reason}" for reason, count in self.skipped.items()]
        remarks = [*(f"note: {note}" for note in self.notes), *(doubt.line() for doubt in self.doubts)]
        return [f"{self.manifest}: {self.rows} {what}, {people}: {counts}", *skips, *remarks]


def import_source(
    source: str,
    root: str | Path,
    manifest: str | Path,
    cell_types: bool = False,
    benign: str | None = None,
    *,
    tumoral: str | None = None,
    cells: bool = False,
    table: Path | None = None,
    mapped: Mapping[str, str] | None = None,
    patient: str | None = None,
    slide: str | None = None,
    extract: Path | None = None,
    taxonomy: Taxonomy | None = None,
    new_names: Mapping[str, str] | None = None,
    skip: Iterable[str] = (),
    follow_links: bool = False,
    columns: Path | None = None,
) -> ImportSummary:
    """Write the manifest of a data set below `root` with the layout of `source`.

    No image is decoded or copied.

    Args:
        cell_types: use cell types as proxies for leaves.
        benign: the leaf of images that are labelled benign; None leaves them out.
        tumoral: the same for images that are labelled tumoral.
        cells: cut single cells out of whole fields.
        table: the file with the labels or boxes, for sources whose files have no fixed names.
        mapped: column of a manifest -> its name in the source.
        patient, slide: regular expressions that find an id in the path of an image.
        extract: the folder for images from archives; by default a folder beside the manifest.
        taxonomy: the tree whose leaves the labels must be; None for the paper's.
        new_names: label -> leaf.
        skip: paths below `root` that are left out.
        follow_links: allow links out of the data set.
        columns: a CSV with sites, scanners or readers of the images, see `columns.add`.

    Raises InputError, with nothing written, for an unknown source, a folder of another layout, a label that
    is no leaf, one file with two leaves, or if there is nothing to import.
    """
    root, manifest = Path(root), Path(manifest)
    tree = _check(source, root, manifest, {"benign": benign, "tumoral": tumoral}, taxonomy)
    options = Options(
        cell_types=cell_types,
        benign=benign,
        tumoral=tumoral,
        cells=cells,
        table=table,
        map=mapped or {},
        patient=_pattern("patient", patient),
        slide=_pattern("slide", slide),
        extract=extract or (manifest.with_name(f"{manifest.stem}-images") if source == "wds" else None),
        skip=_skipped(root, skip),
    )
    scan = _scan(source, root, options)
    leaves.check(scan, tree, new_names or {}, root)
    links.settle(scan, root)
    if not follow_links:
        links.refuse_outside(scan, root)
    _refuse_nothing(source, root, scan)
    links.note_links(scan)
    if columns is not None:
        from leukotree.data.sources.columns import add

        add(scan, columns, root, new_names or {}, (taxonomy or _paper()).edges)
    _refuse_nobody(scan)
    _refuse_torn(scan)
    for write in scan.writes:
        write()
    doubts = _write(scan, manifest)
    return ImportSummary(
        source,
        manifest,
        rows=len(scan.rows),
        patients=len({row["patient"] for row in scan.rows} - {""}),
        leaves=dict(sorted(Counter(row["leaf"] for row in scan.rows).items())),
        skipped=dict(sorted(scan.skipped.items())),
        files=len({row["image"] for row in scan.rows}),
        groups=tuple(sorted({row["group"] for row in scan.rows} - {"image"})),
        notes=tuple(scan.notes),
        doubts=doubts,
    )


def _check(
    source: str, root: Path, manifest: Path, given: Mapping[str, str | None], taxonomy: Taxonomy | None
) -> tuple[str, ...]:
    """Return the leaves of the tree. Raises InputError for arguments that can be refused before the scan.

    Args: given: option -> the leaf that it names, or None.
    """
    from leukotree import csvfile
    from leukotree.data.manifest import WRITTEN
    from leukotree.taxonomy import Taxonomy

    if source not in SOURCES:
        raise InputError(f"unknown source {source!r}; there are {', '.join(SOURCES)}")
    csvfile.check_ending(manifest, WRITTEN)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    tree = (taxonomy or Taxonomy.paper()).leaves
    for option, leaf in given.items():
        if leaf is not None and not leaf.strip():
            raise InputError(f"{option}: the name of a leaf is empty")
        if leaf is not None and leaf.strip() not in tree:
            raise InputError(f"--{option} {leaf!r}: no leaf of the tree, which has {', '.join(tree)}")
    return tree


def mapped(texts: Iterable[str]) -> dict[str, str]:
    """Return texts COLUMN=NAME as a mapping. Raises InputError for another form, or two names of a column."""
    names: dict[str, str] = {}
    for text in texts:
        column, equals, name = (part.strip() for part in text.partition("="))
        if not (equals and column and name):
            raise InputError(f"--map {text!r}: write COLUMN=NAME, such as leaf=Diagnosis")
        if names.setdefault(column, name) != name:
            raise InputError(f"--map {text!r}: {column!r} is already {names[column]!r}")
    return names


def _pattern(option: str, text: str | None) -> str | None:
    """Return a regular expression. Raises InputError for one that is wrong."""
    try:
        re.compile(text or "")
    except re.error as error:
        raise InputError(f"--{option} {text!r}: no regular expression: {error}") from error
    return text or None


def _paper() -> Taxonomy:
    from leukotree.taxonomy import Taxonomy

    return Taxonomy.paper()


def _scan(source: str, root: Path, options: Options) -> Scan:
    """Return what the source's module finds."""
    module = importlib.import_module(f"{__package__}.{source}")
    try:
        scan: Scan = module.scan(root, options)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error
    used = {*module.OPTIONS, "skip"}
    unused = [name for name, value in vars(options).items() if value and name not in used]
    scan.notes += [f"--{name.replace('_', '-')} changes nothing for {source}" for name in unused]
    unmet = [name for name in options.skip.values() if f"left out by --skip {name}" not in scan.skipped]
    scan.notes += [f"--skip {name} changes nothing: {source} does not read it" for name in unmet]
    _refuse_nothing(source, root, scan)
    return scan


def _refuse_nothing(source: str, root: Path, scan: Scan) -> None:
    """Raise InputError if there is nothing to import."""
    if not scan.rows:
        reasons = "; ".join(f"{count} skipped: {reason}" for reason, count in scan.skipped.most_common())
        raise InputError(
            f"{root}: nothing to import as {source}{': ' + reasons if reasons else ', no images'}"
        )


def _skipped(root: Path, names: Iterable[str]) -> dict[Path, str]:
    """Return the path of each file or folder to leave out -> its name.

    Raises InputError for a path that does not exist, or is not below `root`.
    """
    skip = {}
    for name in names:
        path = os.path.normpath(name)
        if os.path.isabs(path) or path.split(os.sep)[0] in (os.curdir, os.pardir):
            raise InputError(f"--skip {name!r}: name a folder by its path below {root}")
        if not os.path.lexists(root / path):
            raise InputError(f"--skip {name!r}: {root / path} does not exist")
        skip[root / path] = path
    return skip


def _refuse_nobody(scan: Scan) -> None:
    """Raise InputError for a patient id that means "no patient"."""
    from leukotree.data.patients import identities

    patients = {row["patient"] for row in scan.rows}
    nobody = {patient for patient in patients if identities.names_nobody(patient)}
    if nobody:
        images = [row["image"] for row in scan.rows if row["patient"] in nobody]
        raise InputError(
            f"{scan.root}: patient {', '.join(map(repr, sorted(nobody)))} names nobody, and {len(images)} "
            f"images, such as {images[0]}, would be one patient's; where patients are not known, put the "
            "images into the leaf's folder itself"
        )


def _refuse_torn(scan: Scan) -> None:
    """Raise InputError for a slide that has images with a patient and others without one: they would be two
    groups, which the folds may divide."""
    for slide, owners in scan.slides.items():
        if "" in owners and len(owners) > 1:
            patient, image = next((owner, image) for owner, image in owners.items() if owner)
            raise InputError(
                f"{scan.root}: slide {slide!r} has images with a patient, such as {image} of {patient!r}, "
                f"and others without one, such as {owners['']}; give all of them their patient, or none"
            )


def _write(scan: Scan, path: Path) -> tuple[Doubt, ...]:
    """Write the manifest; return the doubts about its ids."""
    # Imported here, since the command's help needs the names of the sources and not pandas.
    import pandas as pd

    from leukotree.data import manifest
    from leukotree.data.patients import doubts

    frame = pd.DataFrame(scan.rows)
    common = links.common_folder(scan)
    if common:
        home = os.path.realpath(scan.root)
        for column in ("image", "mask"):
            frame[column] = [os.path.join(home, name) if name else "" for name in frame[column]]
    empty = [name for name in ("mask", "box") if not (frame[name] != "").any()]
    table = frame.drop(columns=empty)
    manifest.write(table, path, common or scan.root)
    return doubts.find(frame)
