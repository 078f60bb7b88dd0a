"""One row for each file, also where links give it several names: the file in its own place says its leaf and
patient."""

from __future__ import annotations

import os
import shlex
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path

from leukotree.data.sources.layout import Scan, listed, shown
from leukotree.errors import InputError

Row = dict[str, str]


def settle(found: Scan, top: Path) -> None:
    """Drop the rows that name a file again, in place, and note them; `top` is the folder that the user gave.

    A link yields to the file that it leads to. Raises InputError, naming both paths, where two names of a
    file disagree on the leaf, or where two links to a file that stands in no folder of the set disagree on
    the patient.
    """
    home = os.path.realpath(found.root)
    own = {image for image, file in found.files.items() if file.real == os.path.join(home, image)}
    refused = {found.files[image].real for image in found.left_out & own}
    groups: defaultdict[Hashable, list[Row]] = defaultdict(list)
    for row in found.rows:
        file = found.files[row["image"]]
        groups[file.inode or file.real].append(row)
    dropped: dict[str, str] = {}
    copies: list[str] = []
    for rows in groups.values():
        firsts: dict[str, Row] = {}
        for row in sorted(rows, key=lambda row: row["image"] not in own):
            real = found.files[row["image"]].real
            if real in refused and row["image"] not in own:
                found.skipped["link to an image that is left out"] += 1
                dropped[row["image"]] = os.path.relpath(real, home)
                continue
            first = firsts.setdefault(real, row)
            if first is not row:
                _agree(found, top, first, row, patients=first["image"] not in own)
                found.skipped["link to another image of the set"] += 1
                dropped[row["image"]] = first["image"]
        _hard_links(found, top, list(firsts.values()), dropped, copies)
    found.rows = [row for row in found.rows if row["image"] not in dropped]
    if dropped:
        pairs = [f"{link} = {image}" for link, image in dropped.items()]
        found.notes.append(f"{len(dropped)} further names of images were left out: {listed(pairs)}")
    if copies:
        found.notes.append(
            f"{len(copies)} images are one file under two patients (hard links), so copies: {listed(copies)}"
        )


def _hard_links(found: Scan, top: Path, rows: list[Row], dropped: dict[str, str], copies: list[str]) -> None:
    """Keep the first of a patient's; those of several patients stay, as copies do."""
    patients: dict[str, Row] = {}
    for row in rows:
        _agree(found, top, rows[0], row, patients=False)
        first = patients.setdefault(row["patient"], row)
        if first is not row:
            found.skipped["hard link to another image of the set"] += 1
            dropped[row["image"]] = first["image"]
        elif row is not rows[0]:
            copies.append(f"{row['image']} = {rows[0]['image']}")


def _agree(found: Scan, top: Path, first: Row, row: Row, patients: bool) -> None:
    for name in ("leaf", "patient") if patients else ("leaf",):
        if first[name] != row[name]:
            here, there = (os.path.relpath(found.root / one["image"], top) for one in (row, first))
            raise InputError(
                f"{top / here}: {name} {row[name]!r}, but it is the same file as {top / there}, whose {name} is {first[name]!r}; "
                f"remove one of the two, or leave it out with --skip {shlex.quote(_linked(found, top, row) or here)}"
            )


def _linked(found: Scan, top: Path, row: Row) -> str:
    """The linked folder that an image was met in, below `top`: leaving out one image of it would not do.
    Empty without one."""
    followed = {Path(link) for link in found.walk.followed}
    outermost_first = reversed((found.root / row["image"]).parents)
    return next((os.path.relpath(folder, top) for folder in outermost_first if folder in followed), "")


def note_links(found: Scan) -> None:
    """Note which linked folders were followed, and which links were not."""
    followed = [
        f"{os.path.relpath(link, found.root)} -> {real}" for link, real in found.walk.followed.items()
    ]
    circles = [os.path.relpath(link, found.root) for link in found.walk.circles]
    for named, what in (
        (followed, "linked folders were followed"),
        (circles, "linked folders lead in a circle, not followed"),
        (found.broken, "links lead to nothing"),
    ):
        if named:
            found.notes.append(f"{len(named)} {what}: {listed(named)}")


def refuse_outside(found: Scan, top: Path) -> None:
    """Raises InputError for a row whose file a link takes from outside the set: a download must not name
    files of its user."""
    homes = [Path(os.path.realpath(folder)) for folder in (top, found.root)]
    for row in found.rows:
        mask = os.path.realpath(found.root / row["mask"]) if row["mask"] else ""
        for name, real in ((row["image"], found.files[row["image"]].real), (row["mask"], mask)):
            if real and not any(Path(real).is_relative_to(home) for home in homes):
                link = _outermost(found.root, name, top)
                target = shown(os.path.realpath(top / link))
                raise InputError(
                    f"{top / link}: a link out of the data set, to {target}; --follow-links takes what such links lead to, and "
                    f"--skip {shlex.quote(link)} leaves it out"
                )


def _outermost(root: Path, name: str, top: Path) -> str:
    """The first link on the way from `root` to a file, as seen from `top`."""
    way = [*reversed((root / name).parents), root / name]
    links = [path for path in way if path.is_relative_to(root) and path != root and path.is_symlink()]
    return os.path.relpath(links[0] if links else root / name, top)


def outside(found: Scan) -> Path | None:
    """The folder that holds the set and all that its links lead to; None where no link leads out of the
    set."""
    home = os.path.realpath(found.root)
    masks = {os.path.realpath(os.path.join(home, row["mask"])) for row in found.rows if row["mask"]}
    folders = {
        os.path.dirname(real) for real in masks | {found.files[row["image"]].real for row in found.rows}
    }
    away = [folder for folder in folders if not Path(folder).is_relative_to(home)]
    if not away:
        return None
    common = Path(os.path.commonpath([home, *away]))
    found.notes.append(
        f"links lead out of {found.root}: the manifest's root is {common}; keep what lies there in its place"
    )
    return common
