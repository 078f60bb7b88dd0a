"""LeukoTree: hierarchical leukemia classification, from image to log p(child | parent) and what follows from
it.

In Python: `open` a packed data set, `load` a finished run and predict with it, read the `results` of a
`study`. They are functions of `leukotree.api`, which is imported when one of them is first used.
"""

from typing import Any

__version__ = "0.1.0"
NAMES = ("load", "open", "results", "study")
"""What `leukotree.api` has."""


def __getattr__(name: str) -> Any:
    if name in NAMES:
        import importlib

        return getattr(importlib.import_module("leukotree.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *NAMES])
