"""Files of pretrained weights: tensors and plain values, never code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from leukotree import files
from leukotree.errors import InputError, one_line

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a tensor -> its shape, in the order of the file."""


def check(path: str | Path) -> None:
    """Raises InputError if a .pt, .pth, .bin or .safetensors file is missing, damaged, or holds more than
    tensors.

    Whether the tensors fit a model is checked when it is built.
    """
    shapes(path)


def shapes(path: str | Path) -> Shapes:
    """The shapes of the tensors in a file. The tensors themselves are not read. Raises InputError as
    `check`."""
    file = Path(path)
    if not file.is_file():
        raise InputError(
            f"backbone.weights: no file {str(path)!r}; use null, hub, or the path of a weights file"
        )
    return _shapes(str(path), files.state(file.stat()))


@lru_cache(maxsize=16)  # a study names the same file in all its specs
def _shapes(path: str, state: tuple[int, ...]) -> Shapes:
    try:
        found = _safetensors(path) if path.endswith(".safetensors") else _tensors(path)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: holds more than tensors, which may run code; save the model's state_dict() alone"
        ) from None
    except Exception as error:  # a damaged file makes torch's readers raise nearly anything
        raise InputError(f"{path}: not a readable weights file: {one_line(error)[:200]}") from error
    if not found:
        raise InputError(f"{path}: holds no tensors; save the model's state_dict()")
    return MappingProxyType(found)


def _safetensors(path: str) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _tensors(path: str) -> dict[str, tuple[int, ...]]:
    """The tensors in a pickle file. torch reads only tensors and plain values; none stays in memory."""
    import argparse

    # timm's training checkpoints hold their arguments, and timm reads them.
    with torch.serialization.safe_globals([argparse.Namespace]):
        pending: list[tuple[str, Any]] = [("", torch.load(path, map_location="meta", weights_only=True))]
    found: dict[str, tuple[int, ...]] = {}
    while pending:
        name, value = pending.pop(0)
        if isinstance(value, torch.Tensor):
            found[name] = tuple(value.shape)
        elif isinstance(value, dict):
            pending += [(str(key), inner) for key, inner in value.items()]
    return found
