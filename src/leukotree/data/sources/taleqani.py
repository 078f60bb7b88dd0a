"""The ALL set of Taleqani hospital (Aria et al.): fields of view, no patient ids. Two releases:

Original/{Benign,Early,Pre,Pro}/*.jpg                                     beside it Segmented/, the same
fields again Blood cell Cancer [ALL]/{Benign,[Malignant] early Pre-B,...}/*.jpg
"""

from __future__ import annotations

from pathlib import Path

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
    """Fields of view; `options.benign` is the leaf of the benign ones, None leaves them out. InputError for
    another layout."""
    looked_for = "Original/{Benign,Early,Pre,Pro}/ or 'Blood cell Cancer [ALL]/[Malignant] .../'"
    top = find_top(root, [root / name for name in TOPS], _matches, looked_for)
    found = Scan("taleqani", top, options.skip)
    for image in found.images():
        folder = image.parts[0] if len(image.parts) > 1 else ""
        if folder.casefold() in MALIGNANT:
            found.place(image, "ALL")
        elif folder.casefold() != BENIGN:
            found.leave_out(
                image, f"folder {folder!r} is no class of the set" if folder else "not in a class folder"
            )
        elif options.benign:
            found.place(image, options.benign.strip())
        else:
            found.leave_out(image, "Benign has no leaf of its own; --benign LEAF takes it as one")
    beside = top.resolve().parent / "Segmented"
    if beside.is_dir():
        found.skipped["Segmented: the same fields again"] = sum(1 for _ in Scan("", beside).images())
    return found


def _matches(folder: Path) -> bool:
    """Whether at most one class folder of a release is missing: `pre` alone may be anything."""
    inside = {child.name.casefold() for child in folder.iterdir() if child.is_dir()}
    return any(len(classes - inside) <= 1 for classes in RELEASES)
