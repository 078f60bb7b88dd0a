"""Compare the labels of a data set with the leaves of the tree: rename on request, suggest, never guess."""

from __future__ import annotations

import difflib
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from leukotree.data.patients.identities import normal
from leukotree.data.sources.layout import Scan
from leukotree.errors import InputError

SYNONYMS = {
    "APML": (
        "apl m3 amlm3 promyelocytic promyelocyticleukemia acutepromyelocytic acutepromyelocyticleukemia "
        "pmlrara"
    ),
    "AML": (
        "m0 m1 m2 m4 m5 m6 m7 anll acutemyeloid acutemyeloidleukemia acutemyelogenousleukemia "
        "acutemyeloblasticleukemia"
    ),
    "ALL": (
        "l1 l2 l3 ball tall preb prob acutelymphoblastic acutelymphoblasticleukemia "
        "acutelymphocyticleukemia lymphoblastic"
    ),
    "CLL": "bcll sll cllsll chroniclymphocytic chroniclymphocyticleukemia",
    "CML": "cgl bcrabl chronicmyeloid chronicmyeloidleukemia chronicmyelogenousleukemia",
    "normal": (
        "healthy health control controls hem donor donors healthydonor healthydonors benign nonleukemia "
        "negative"
    ),
    "reactive": (
        "benign nonleukemia negative variant variantlymphocyte atypicallymphocyte reactivelymphocyte "
        "infection"
    ),
}
"""Leaf -> its other names, as `_plain` gives them. A name of two leaves is ambiguous."""
MAX_NAMES = 5
"""Largest number of names in a message."""


def renames(texts: Iterable[str]) -> dict[str, str]:
    """Return texts OLD=NEW as a mapping. Raises InputError for another form, or two new names of a label."""
    names: dict[str, str] = {}
    for text in texts:
        old, equals, new = text.rpartition("=")
        old, new = normal(old), normal(new)
        if not (equals and old and new):
            raise InputError(
                f"--leaf {text!r}: write OLD=NEW, the folder's name and a leaf; --skip leaves a folder out"
            )
        if names.setdefault(old, new) != new:
            raise InputError(f"--leaf {text!r}: {old!r} is already renamed to {names[old]!r}")
    return names


def check(scan: Scan, leaves: tuple[str, ...], new_names: Mapping[str, str], top: Path) -> None:
    """Rename the rows' leaves, in place. Rows whose label is no leaf are left out if the scan is loose.

    Raises InputError for a label that is no leaf, with suggestions. It is also raised for the folder of a
    leaf whose files are all left out.
    """
    exact = {normal(leaf): leaf for leaf in leaves}
    if wrong := [new for new in new_names.values() if new not in exact]:
        raise InputError(f"--leaf ...={wrong[0]}: {wrong[0]!r} is no leaf; the tree has {', '.join(leaves)}")
    labels = {normal(text) for text in (*(row["leaf"] for row in scan.rows), *scan.folders, *scan.labels)}
    if absent := [old for old in new_names if old not in labels]:
        known = ", ".join(sorted(labels)) or "none"
        raise InputError(f"--leaf {absent[0]}=...: no such label in {top}; it has {known}")
    counts: Counter[str] = Counter()
    for row in scan.rows:
        label = normal(row["leaf"])
        row["leaf"] = exact.get(new_names.get(label, label), label)
        counts[label] += row["leaf"] not in leaves
    if scan.loose and any(row["leaf"] in leaves for row in scan.rows):
        scan.skipped.update(
            {
                f"{label!r} is no leaf; --leaf {shlex.quote(f'{label}=LEAF')} gives it one": count
                for label, count in counts.items()
                if count
            }
        )
        scan.rows = [row for row in scan.rows if row["leaf"] in leaves]
        counts.clear()
    if unknown := sorted(label for label, count in counts.items() if count):
        raise InputError(f"{top}: {_unknown(unknown, counts, leaves, scan.root)}")
    _refuse_lost(scan, {old: exact[new] for old, new in new_names.items()}, leaves)


def _unknown(unknown: list[str], counts: Counter[str], leaves: tuple[str, ...], root: Path) -> str:
    """Return the message about labels that are no leaves, with suggestions."""
    suggestions = {label: suggest(label, leaves) for label in unknown}
    hints = {label: f"; {' or '.join(near)}?" if near else "" for label, near in suggestions.items()}
    named = [f"{label!r} ({counts[label]} images{hints[label]})" for label in unknown]
    more = f" and {len(unknown) - MAX_NAMES} more" if len(unknown) > MAX_NAMES else ""
    # No example for `all`: it is also a word, and a folder of that name may hold everything.
    clear = [label for label, near in suggestions.items() if len(near) == 1 and label.casefold() != "all"]
    example = f"{clear[0]}={suggestions[clear[0]][0]}" if clear else "OLD=NEW"
    folder = next((label for label in reversed(unknown) if (root / label).is_dir()), None)
    skip = f", or leave it out with --skip {shlex.quote(folder)}" if folder else ""
    return (
        f"{', '.join(named[:MAX_NAMES])}{more}: no leaf of the tree, which has {', '.join(leaves)}; "
        f"name the leaf with --leaf {shlex.quote(example)}{skip}"
    )


def suggest(label: str, leaves: Iterable[str]) -> list[str]:
    """Return the leaves that a label may mean, the most likely one first."""
    name = _plain(label)
    names = {leaf: {_plain(leaf), *SYNONYMS.get(leaf, "").split()} for leaf in leaves}
    if same := [leaf for leaf, others in names.items() if name in others]:
        return same
    plain = {_plain(leaf): leaf for leaf in names}
    return [plain[near] for near in difflib.get_close_matches(name, plain, n=2, cutoff=0.75)]


def _refuse_lost(scan: Scan, new_names: Mapping[str, str], leaves: tuple[str, ...]) -> None:
    """Raise InputError for the folder of a leaf without any imported file; note an empty folder."""
    imported = {row["image"].split("/")[0] for row in scan.rows}
    for folder, files in scan.folders.items():
        leaf = new_names.get(normal(folder), normal(folder))
        if folder in imported or leaf not in leaves:
            continue
        if files:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(scan.skipped.items()))
            raise InputError(
                f"{scan.root / folder}: none of its {files} files can be imported, so leaf {leaf!r} would "
                f"lose them (skipped in all: {reasons}); --skip {shlex.quote(folder)} leaves the folder out"
            )
        scan.notes.append(f"folder {folder!r} is empty")


def _plain(name: str) -> str:
    """Return a name's letters and digits, in one case and one spelling."""
    plain = re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", name).casefold())
    return plain.replace("leukaemia", "leukemia")
