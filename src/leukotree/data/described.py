"""The columns that a manifest may have more: where and with what an image was taken, and who read it.

* `site`: the hospital or laboratory that took the image.
* `scanner`: the microscope or camera.
* `reader:<name>`: the leaf that one reader gave. It is empty where the reader did not read the image. It is
  an inner node of the tree where the reader did not decide further. A second reading by the same person is
  another reader, with a name of its own.

They pass from the manifest through the index of the shards into the predictions of a run. No model is trained
on them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

PLACES = ("site", "scanner")
READER = "reader:"
"""What the name of a reader's column begins with."""


def readers(columns: Iterable[Hashable]) -> list[str]:
    """Return the columns of readers, in their order."""
    return [name for name in columns if isinstance(name, str) and name.startswith(READER)]


def present(columns: Iterable[Hashable]) -> list[str]:
    """Return those of `columns` that this module describes: `PLACES`, then readers in their order."""
    names = list(columns)
    return [*(name for name in PLACES if name in names), *readers(names)]
