"""The launching: studies, search, folds, clusters. Imports neither timm nor webdataset.

`from hpc import study` opens a study in Python; see `hpc.api`.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "study":
        import importlib

        return importlib.import_module("hpc.api").study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
