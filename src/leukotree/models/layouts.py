"""Layouts of weights files that timm does not convert itself.

timm renames many: those of torchvision, of DINOv2 and of CLIP, and names that begin with `module.`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import timm
import torch

from leukotree.errors import InputError
from leukotree.models import packaged


def converted(
    file: Path, architecture: str, names: Mapping[str, tuple[int, ...]]
) -> dict[str, torch.Tensor] | None:
    """timm's name -> tensor, of a file in the layout of a package; None for a file that timm reads itself.

    Args: names: the names of the file's tensors, in their order.

    Raises InputError where the package is of another model, or has other tensors than the model.
    """
    first = next(iter(names), None)
    for known in packaged.KNOWN.values():
        if known.first == first:
            if known.architecture != architecture:
                raise InputError(
                    f"{file}: has the weights of {known.architecture}, not of {architecture}; "
                    "set backbone.name"
                )
            return _by_position(file, architecture)
    return None


def _by_position(file: Path, architecture: str) -> dict[str, torch.Tensor]:
    """The tensors under the names of the model, which has them in the same order. Each must have the shape
    and the last part of the name (`weight`, `running_var`) of its place."""
    theirs: Mapping[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        ours = timm.create_model(architecture).state_dict()
    if len(ours) != len(theirs):
        raise InputError(f"{file}: has {len(theirs)} tensors, and {architecture} has {len(ours)}")
    for (name, wanted), (other, given) in zip(ours.items(), theirs.items(), strict=True):
        if wanted.shape != given.shape or name.rpartition(".")[2] != other.rpartition(".")[2]:
            raise InputError(
                f"{file}: {other} of shape {tuple(given.shape)} stands where {architecture} has {name} of "
                f"shape {tuple(wanted.shape)}"
            )
    return dict(zip(ours, (tensor.contiguous() for tensor in theirs.values()), strict=True))
