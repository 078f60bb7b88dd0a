"""Labels of a data set against the leaves of the tree: renamed where the user says so, suggested, never
guessed."""

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

MEANT = {
    "APML": "apl m3 amlm3 promyelocytic promyelocyticleukemia acutepromyelocytic acutepromyelocyticleukemia pmlrara",
    "AML": "m0 m1 m2 m4 m5 m6 m7 anll acutemyeloid acutemyeloidleukemia acutemyelogenousleukemia acutemyeloblasticleukemia",
    "ALL": "l1 l2 l3 ball tall preb prob acutelymphoblastic acutelymphoblasticleukemia acutelymphocyticleukemia lymphoblastic",
    "CLL": "bcll sll cllsll chroniclymphocytic chroniclymphocyticleukemia",
    "CML": "cgl bcrabl chronicmyeloid chronicmyeloidleukemia chronicmyelogenousleukemia",
    "normal": "healthy health control controls hem donor donors healthydonor healthydonors benign nonleukemia negative",
    "reactive": "benign nonleukemia negative variant variantlymphocyte atypicallymphocyte reactivelymphocyte infection",
}
"""Leaf -> other names of it, as `_plain` leaves them. A name under two leaves is one that does not say
which."""
MOST = 5
"""Names that a message lists."""


def renames(texts: Iterable[str]) -> dict[str, str]:
    """OLD=NEW texts as a mapping. Raises InputError for another form, or two names for one."""
    found: dict[str, str] = {}
    for text in texts:
        old, equals, new = text.rpartition("=")
        old, new = normal(old), normal(new)
        if not (equals and old and new):
            raise InputError(
                f"--leaf {text!r}: write OLD=NEW, the folder's name and a leaf; --skip leaves a folder out"
            )
        if found.setdefault(old, new) != new:
            raise InputError(f"--leaf {text!r}: {old!r} is renamed to {found[old]!r} before")
    return found


def check(found: Scan, leaves: tuple[str, ...], new_names: Mapping[str, str], top: Path) -> None:
    """Rename the rows' leaves, in place. Raises InputError for one that is none of `leaves`, with what may be
    meant, and for a folder of a leaf whose files are all left out."""
    exact = {normal(leaf): leaf for leaf in leaves}
    if wrong := [new for new in new_names.values() if new not in exact]:
        raise InputError(f"--leaf ...={wrong[0]}: {wrong[0]!r} is no leaf; the tree has {', '.join(leaves)}")
    labels = {normal(label) for label in (*(row["leaf"] for row in found.rows), *found.folders)}
    if absent := [old for old in new_names if old not in labels]:
        raise InputError(
            f"--leaf {absent[0]}=...: no such label in {top}; it has {', '.join(sorted(labels)) or 'none'}"
        )
    counts: Counter[str] = Counter()
    for row in found.rows:
        label = normal(row["leaf"])
        row["leaf"] = exact.get(new_names.get(label, label), label)
        counts[label] += row["leaf"] not in leaves
    if unknown := sorted(label for label, count in counts.items() if count):
        raise InputError(f"{top}: {_unknown(unknown, counts, leaves, found.root)}")
    _refuse_lost(found, {old: exact[new] for old, new in new_names.items()}, leaves)


def _unknown(unknown: list[str], counts: Counter[str], leaves: tuple[str, ...], root: Path) -> str:
    """What is said of labels that are no leaves."""
    meant = {label: suggest(label, leaves) for label in unknown}
    hints = {label: f"; {' or '.join(near)}?" if near else "" for label, near in meant.items()}
    named = [f"{label!r} ({counts[label]} images{hints[label]})" for label in unknown]
    more = f" and {len(unknown) - MOST} more" if len(unknown) > MOST else ""
    # `all` is a word too: a folder of that name may hold everything.
    clear = (
        f"{label}={near[0]}" for label, near in meant.items() if len(near) == 1 and label.casefold() != "all"
    )
    example = next(clear, "OLD=NEW")
    out = next((label for label in reversed(unknown) if (root / label).is_dir()), None)
    skip = f", or leave it out with --skip {shlex.quote(out)}" if out else ""
    return (
        f"{', '.join(named[:MOST])}{more}: no leaf of the tree, which has {', '.join(leaves)}; "
        f"name the leaf with --leaf {shlex.quote(example)}{skip}"
    )


def suggest(label: str, leaves: Iterable[str]) -> list[str]:
    """Leaves that a label may mean, the likeliest first."""
    name = _plain(label)
    words = {leaf: {_plain(leaf), *MEANT.get(leaf, "").split()} for leaf in leaves}
    if same := [leaf for leaf, others in words.items() if name in others]:
        return same
    plain = {_plain(leaf): leaf for leaf in words}
    return [plain[near] for near in difflib.get_close_matches(name, plain, n=2, cutoff=0.75)]


def _refuse_lost(found: Scan, new_names: Mapping[str, str], leaves: tuple[str, ...]) -> None:
    """A leaf that has a folder must not be missing from the manifest without a word."""
    taken = {row["image"].split("/")[0] for row in found.rows}
    for folder, files in found.folders.items():
        leaf = new_names.get(normal(folder), normal(folder))
        if folder in taken or leaf not in leaves:
            continue
        if files:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(found.skipped.items()))
            raise InputError(
                f"{found.root / folder}: none of its {files} files can be imported, so leaf {leaf!r} would lose them "
                f"(skipped in all: {reasons}); --skip {shlex.quote(folder)} leaves the folder out"
            )
        found.notes.append(f"folder {folder!r} is empty")


def _plain(name: str) -> str:
    """Letters and digits only, in one case and one spelling."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", name).casefold()).replace(
        "leukaemia", "leukemia"
    )
