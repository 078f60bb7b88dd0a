"""Links in a data set: one row for each file, and refusals of links that contradict or lead outside.

The real path of a file decides its leaf and patient.
"""

from __future__ import annotations

import os
import shlex
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path

from leukotree.data.sources.layout import Scan, listed, shown
from leukotree.errors import InputError

Row = dict[str, str]


def settle(scan: Scan, top: Path) -> None:
    """Drop the rows that name a file again, in place, and note them. `top` is the folder that the user gave.

    The row of a link is dropped in favour of the row of its file. Raises InputError, naming both paths, if
    two names of a file have different leaves. It is also raised if two links to a file outside of the set
    have different patients.
    """
    home = os.path.realpath(scan.root)
    unlinked = {image for image, file in scan.files.items() if file.real == os.path.join(home, image)}
    refused = {scan.files[image].real for image in scan.left_out & unlinked}
    groups: defaultdict[Hashable, list[Row]] = defaultdict(list)
    for row in scan.rows:
        file = scan.files[row["image"]]
        groups[file.inode or file.real, row["box"]].append(row)
    dropped: dict[str, str] = {}
    copies: list[str] = []
    for rows in groups.values():
        firsts: dict[str, Row] = {}
        for row in sorted(rows, key=lambda row: row["image"] not in unlinked):
            real = scan.files[row["image"]].real
            if real in refused and row["image"] not in unlinked:
                scan.skipped["link to an image that is left out"] += 1
                dropped[row["image"]] = os.path.relpath(real, home)
                continue
            first = firsts.setdefault(real, row)
            if first is not row:
                _check_same(scan, top, first, row, patients=first["image"] not in unlinked)
                scan.skipped["link to another image of the set"] += 1
                dropped[row["image"]] = first["image"]
        _drop_hard_links(scan, top, list(firsts.values()), dropped, copies)
    scan.rows = [row for row in scan.rows if row["image"] not in dropped]
    if dropped:
        pairs = [f"{link} = {image}" for link, image in dropped.items()]
        scan.notes.append(f"{len(dropped)} further names of images were left out: {listed(pairs)}")
    if copies:
        scan.notes.append(
            f"{len(copies)} images are one file under two patients (hard links), so copies: {listed(copies)}"
        )


def _drop_hard_links(
    scan: Scan, top: Path, rows: list[Row], dropped: dict[str, str], copies: list[str]
) -> None:
    """Drop hard links to one file except the first of each patient; those of other patients are copies."""
    patients: dict[str, Row] = {}
    for row in rows:
        _check_same(scan, top, rows[0], row, patients=False)
        first = patients.setdefault(row["patient"], row)
        if first is not row:
            scan.skipped["hard link to another image of the set"] += 1
            dropped[row["image"]] = first["image"]
        elif row is not rows[0]:
            copies.append(f"{row['image']} = {rows[0]['image']}")


def _check_same(scan: Scan, top: Path, first: Row, row: Row, patients: bool) -> None:
    """Raise InputError if two rows of one file have different leaves (or, with `patients`, patients)."""
    for name in ("leaf", "patient") if patients else ("leaf",):
        if first[name] != row[name]:
            here, there = (os.path.relpath(scan.root / one["image"], top) for one in (row, first))
            skip = shlex.quote(_linked_folder(scan, top, row) or here)
            raise InputError(
                f"{top / here}: {name} {row[name]!r}, but it is the same file as {top / there}, whose {name} "
                f"is {first[name]!r}; remove one of the two, or leave it out with --skip {skip}"
            )


def _linked_folder(scan: Scan, top: Path, row: Row) -> str:
    """Return the outermost linked folder that contains an image, relative to `top`; "" without one.

    The user has to leave out this folder, not only one of its images.
    """
    followed = {Path(link) for link in scan.walk.followed}
    outermost_first = reversed((scan.root / row["image"]).parents)
    return next((os.path.relpath(folder, top) for folder in outermost_first if folder in followed), "")


def note_links(scan: Scan) -> None:
    """Note which linked folders were followed, and which links were not."""
    pairs = scan.walk.followed.items()
    followed = [f"{os.path.relpath(link, scan.root)} -> {real}" for link, real in pairs]
    circles = [os.path.relpath(link, scan.root) for link in scan.walk.circles]
    for names, what in (
        (followed, "linked folders were followed"),
        (circles, "linked folders lead in a circle, not followed"),
        (scan.broken, "links lead to nothing"),
    ):
        if names:
            scan.notes.append(f"{len(names)} {what}: {listed(names)}")


def refuse_outside(scan: Scan, top: Path) -> None:
    """Raise InputError for a row whose file lies outside of the set, reached by a link.

    Otherwise a downloaded set could name private files of its user.
    """
    homes = [Path(os.path.realpath(folder)) for folder in (top, scan.root)]
    for row in scan.rows:
        mask = os.path.realpath(scan.root / row["mask"]) if row["mask"] else ""
        for name, real in ((row["image"], scan.files[row["image"]].real), (row["mask"], mask)):
            if real and not any(Path(real).is_relative_to(home) for home in homes):
                link = _first_link(scan.root, name, top)
                target = shown(os.path.realpath(top / link))
                raise InputError(
                    f"{top / link}: a link out of the data set, to {target}; "
                    f"--follow-links allows such links, and --skip {shlex.quote(link)} leaves it out"
                )


def _first_link(root: Path, name: str, top: Path) -> str:
    """Return the first link on the path from `root` to a file, relative to `top`."""
    steps = [*reversed((root / name).parents), root / name]
    links = [path for path in steps if path.is_relative_to(root) and path != root and path.is_symlink()]
    return os.path.relpath(links[0] if links else root / name, top)


def common_folder(scan: Scan) -> Path | None:
    """Return the folder that contains the set and all targets of its links; None if all are in the set."""
    home = os.path.realpath(scan.root)
    masks = {os.path.realpath(os.path.join(home, row["mask"])) for row in scan.rows if row["mask"]}
    images = {scan.files[row["image"]].real for row in scan.rows}
    folders = {os.path.dirname(path) for path in masks | images}
    outside = [folder for folder in folders if not Path(folder).is_relative_to(home)]
    if not outside:
        return None
    common = Path(os.path.commonpath([home, *outside]))
    scan.notes.append(
        f"links lead out of {scan.root}: the manifest's root is {common}; do not move the files there"
    )
    return common
