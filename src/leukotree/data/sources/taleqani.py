"""The ALL set of Taleqani hospital (Aria et al.): fields of view, without patient ids. It has two releases:

    Original/{Benign,Early,Pre,Pro}/*.jpg
    Blood cell Cancer [ALL]/{Benign,[Malignant] early Pre-B,...}/*.jpg

Beside Original lies Segmented, with the same fields again.
"""

from __future__ import annotations

from pathlib import Path

from leukotree.data.sources import layout
from leukotree.data.sources.layout import Options, Scan, find_top

OPTIONS = frozenset({"benign"})
TOPS = ("Original", "Blood cell Cancer [ALL]")
BENIGN = "benign"
RELEASES = (
    frozenset({BENIGN, "early", "pre", "pro"}),
    frozenset({BENIGN, "[malignant] early pre-b", "[malignant] pre-b", "[malignant] pro-b"}),
)
MALIGNANT = frozenset().union(*RELEASES) - {BENIGN}


def scan(root: Path, options: Options) -> Scan:
    """Return the fields of view, the benign ones only with `options.benign`.

    Raises InputError for another layout.
    """
    looked_for = "Original/{Benign,Early,Pre,Pro}/ or 'Blood cell Cancer [ALL]/[Malignant] .../'"
    top = find_top(root, [root / name for name in TOPS], _matches, looked_for)
    result = Scan("taleqani", top, options.skip)
    for image in result.images():
        folder = image.parts[0] if len(image.parts) > 1 else ""
        if folder.casefold() in MALIGNANT:
            result.add(image, "ALL")
        elif folder.casefold() != BENIGN:
            reason = f"folder {folder!r} is no class of the set" if folder else "not in a class folder"
            result.leave_out(image, reason)
        elif options.benign:
            result.add(image, options.benign.strip())
        else:
            result.leave_out(image, "Benign has no leaf; --benign LEAF gives it one")
    beside = top.resolve().parent / "Segmented"
    if beside.is_dir():
        result.skipped["Segmented: the same fields again"] = sum(1 for _ in Scan("", beside).images())
    return result


def _matches(folder: Path) -> bool:
    """Return whether at most one class folder of a release is missing. `pre` alone may be anything."""
    inside = layout.folder_names(folder)
    return any(len(classes - inside) <= 1 for classes in RELEASES)
