"""Which trackers a run has, and where MLflow is. No tracker is imported here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Literal
from urllib.parse import urlsplit

from leukotree.errors import InputError

Tracker = Literal["tensorboard", "mlflow"]
PACKAGES: dict[Tracker, tuple[str, str]] = {
    "tensorboard": ("tensorboardX", "tensorboardX"),
    "mlflow": ("mlflow", "mlflow-skinny"),
}
"""Tracker -> the module that it needs, and the package that has it."""
STORES = ("http", "https", "sqlite", "postgresql", "mysql", "databricks")
"""Begins of an address that MLflow writes to. It does not write to plain folders any more."""


def check_uri(uri: str) -> str:
    """The address of MLflow itself. Raises ValueError for one that MLflow cannot write to, and for one that
    has a password: it would be in files that others read."""
    try:
        parts = urlsplit(uri)
        scheme, password = parts.scheme.partition("+")[0], parts.password
    except ValueError:
        scheme, password = "", None
    if scheme not in STORES:
        raise ValueError(f"{uri!r} is no store of MLflow; give http://HOST:PORT, or sqlite:///FILE.db")
    if password:
        raise ValueError(
            "leave the password out; MLflow takes it from the variables MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    return uri


def check(trackers: Iterable[Tracker], mlflow_uri: str | None) -> None:
    """Raises InputError for a tracker that is not installed, and for MLflow without its address."""
    for name in trackers:
        module, package = PACKAGES[name]
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"trackers: {name} needs the package {package}; install it (pip install {package}), or leave "
                f"{name} out"
            )
        if name == "mlflow" and not mlflow_uri:
            raise InputError(
                "trackers: mlflow needs `mlflow_uri` in the site or the study, such as http://HOST:PORT or "
                "sqlite:///results/mlflow.db"
            )
