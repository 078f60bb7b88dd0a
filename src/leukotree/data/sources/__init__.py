"""Importers: a public data set in its own layout -> a manifest. One module per layout, each with `scan` and
`OPTIONS`."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leukotree.data.sources import leaves as labels
from leukotree.data.sources import links
from leukotree.data.sources.layout import Options, Scan
from leukotree.errors import InputError

if TYPE_CHECKING:
    from leukotree.data.patients.doubts import Doubt
    from leukotree.taxonomy import Taxonomy

SOURCES = {name: f"{__name__}.{name}" for name in ("cnmc", "deepapl", "folder", "krd", "pbc", "taleqani")}
"""Name on the command line -> module with `scan(root, options) -> Scan` and `OPTIONS`, the names of the
options it heeds."""


@dataclass(frozen=True)
class ImportSummary:
    """What went into a manifest, and what did not."""

    source: str
    manifest: Path
    rows: int
    patients: int
    leaves: dict[str, int]
    skipped: dict[str, int]
    notes: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    """About the ids of patients."""

    def lines(self) -> list[str]:
        """For a person to read: rows and leaves, then a line per reason for leaving files out, then
        remarks."""
        people = f"{self.patients} patients" if self.patients else "no patient ids"
        counts = ", ".join(f"{leaf} {count}" for leaf, count in self.leaves.items())
        skips = [f"skipped {count}: {reason}" for reason, count in self.skipped.items()]
        remarks = [*(f"note: {note}" for note in self.notes), *(doubt.line() for doubt in self.doubts)]
        return [f"{self.manifest}: {self.rows} images, {people}: {counts}", *skips, *remarks]


def import_source(
    source: str,
    root: str | Path,
    manifest: str | Path,
    cell_types: bool = False,
    benign: str | None = None,
    *,
    taxonomy: Taxonomy | None = None,
    new_names: Mapping[str, str] | None = None,
    skip: Iterable[str] = (),
    follow_links: bool = False,
) -> ImportSummary:
    """Write the manifest of a data set that lies below `root` in the layout of `source`; no image is decoded
    or copied.

    `cell_types` takes cell types as proxies for leaves; `benign` is the leaf for images labelled benign;
    `taxonomy` is the
    tree (the paper's by default) whose leaves the labels must be, `new_names` maps labels to leaves, and
    `skip` names what lies below `root` and is left out. Links out of the data set are refused without
    `follow_links`.

    Raises InputError, with nothing written, for an unknown source, a folder of another layout, a label that
    is no leaf, one file under two leaves, or when nothing is left to import.
    """
    from leukotree import csvfile
    from leukotree.data.manifest import WRITTEN
    from leukotree.taxonomy import Taxonomy

    if source not in SOURCES:
        raise InputError(f"unknown source {source!r}; there are {', '.join(SOURCES)}")
    root, manifest = Path(root), Path(manifest)
    csvfile.check_ending(manifest, WRITTEN)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    if benign is not None and not benign.strip():
        raise InputError("benign: the name of a leaf is empty")
    leaves = (taxonomy or Taxonomy.paper()).leaves
    if benign is not None and benign.strip() not in leaves:
        raise InputError(f"--benign {benign!r}: no leaf of the tree, which has {', '.join(leaves)}")
    found = _scan(source, root, Options(cell_types, benign, _skipped(root, skip)))
    labels.check(found, leaves, new_names or {}, root)
    links.settle(found, root)
    if not follow_links:
        links.refuse_outside(found, root)
    _refuse_nothing(source, root, found)
    links.note_links(found)
    _refuse_nobody(found)
    doubts = _write(found, manifest)
    counts = Counter(row["leaf"] for row in found.rows)
    patients = {row["patient"] for row in found.rows} - {""}
    skipped = dict(sorted(found.skipped.items()))
    return ImportSummary(
        source,
        manifest,
        len(found.rows),
        len(patients),
        dict(sorted(counts.items())),
        skipped,
        tuple(found.notes),
        doubts,
    )


def _scan(source: str, root: Path, options: Options) -> Scan:
    """What the source's own importer finds."""
    module = importlib.import_module(SOURCES[source])
    try:
        found: Scan = module.scan(root, options)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error
    idle = [name for name, value in vars(options).items() if value and name not in {*module.OPTIONS, "skip"}]
    found.notes += [f"--{name.replace('_', '-')} changes nothing for {source}" for name in idle]
    unmet = [name for name in options.skip.values() if f"left out by --skip {name}" not in found.skipped]
    found.notes += [f"--skip {name} changes nothing: it is not looked at for {source}" for name in unmet]
    _refuse_nothing(source, root, found)
    return found


def _refuse_nothing(source: str, root: Path, found: Scan) -> None:
    if not found.rows:
        reasons = "; ".join(f"{count} skipped: {reason}" for reason, count in found.skipped.most_common())
        raise InputError(
            f"{root}: nothing to import as {source}{': ' + reasons if reasons else ', no images'}"
        )


def _skipped(root: Path, names: Iterable[str]) -> dict[Path, str]:
    """Path of each file or folder to leave out -> its name. Raises InputError for one that is not there, or
    not below `root`."""
    skip = {}
    for name in names:
        path = os.path.normpath(name)
        if os.path.isabs(path) or path.split(os.sep)[0] in (os.curdir, os.pardir):
            raise InputError(f"--skip {name!r}: name a folder by its path below {root}")
        if not os.path.lexists(root / path):
            raise InputError(f"--skip {name!r}: {root / path} is not there")
        skip[root / path] = path
    return skip


def _refuse_nobody(found: Scan) -> None:
    from leukotree.data.patients import identities

    nobody = {row["patient"] for row in found.rows}
    nobody = {patient for patient in nobody if identities.names_nobody(patient)}
    if nobody:
        images = [row["image"] for row in found.rows if row["patient"] in nobody]
        raise InputError(
            f"{found.root}: patient {', '.join(map(repr, sorted(nobody)))} names nobody, and {len(images)} images, such as "
            f"{images[0]}, would be one patient's; where patients are not known, put the images into the leaf's folder itself"
        )


def _write(found: Scan, path: Path) -> tuple[Doubt, ...]:
    """Write the manifest; the doubts about its ids."""
    # pandas takes longer to import than the names of the sources, which a command's help shows, are worth.
    import pandas as pd

    from leukotree.data import manifest
    from leukotree.data.patients import doubts

    frame = pd.DataFrame(found.rows)
    common = links.outside(found)
    if common:
        home = os.path.realpath(found.root)
        for column in ("image", "mask"):
            frame[column] = [os.path.join(home, name) if name else "" for name in frame[column]]
    manifest.write(
        frame if (frame["mask"] != "").any() else frame.drop(columns="mask"), path, common or found.root
    )
    return doubts.find(frame)
