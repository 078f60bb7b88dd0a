"""Files of pretrained weights: tensors and plain values, never code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from leukotree import files
from leukotree.errors import InputError, one_line

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a tensor -> its shape, in the order of the file."""
FLOATS = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
"""Kinds of numbers that weights may have, with the names that safetensors gives them. Numbers of others
(int8, float8) would be copied into a model without their scales."""
_OF_MODELS = ("weight", "bias", "running_mean", "running_var")
"""Last parts of names that stand for weights. Counters and indices have integers."""


class _Tensor(NamedTuple):
    """A tensor in a file."""

    shape: tuple[int, ...]
    kind: str
    """The kind of its numbers."""


def check(path: str | Path) -> None:
    """Raises InputError if a .pt, .pth, .bin or .safetensors file is missing, damaged, quantised, or holds
    more than tensors.

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
    for name, tensor in found.items():
        if name.rpartition(".")[2] in _OF_MODELS and tensor.kind not in FLOATS.values():
            raise InputError(quantised(path, name, tensor.kind))
    return MappingProxyType({name: tensor.shape for name, tensor in found.items()})


def quantised(file: object, name: str, kind: object) -> str:
    """What is wrong with a file that has other numbers than floating-point ones as weights."""
    return (
        f"{file}: {name} has numbers of the kind {kind}, so it is quantised; give the weights as float32, "
        "float16 or bfloat16"
    )


def _safetensors(path: str) -> dict[str, _Tensor]:
    from safetensors import safe_open

    found = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            part = file.get_slice(name)
            found[name] = _Tensor(tuple(part.get_shape()), part.get_dtype())
    return found


def _tensors(path: str) -> dict[str, _Tensor]:
    """The tensors in a pickle file. torch reads only tensors and plain values; none stays in memory."""
    import argparse

    # timm's training checkpoints hold their arguments, and timm reads them.
    with torch.serialization.safe_globals([argparse.Namespace]):
        pending: list[tuple[str, Any]] = [("", torch.load(path, map_location="meta", weights_only=True))]
    found: dict[str, _Tensor] = {}
    while pending:
        name, value = pending.pop(0)
        if isinstance(value, torch.Tensor):
            found[name] = _Tensor(tuple(value.shape), FLOATS.get(value.dtype, str(value.dtype)))
        elif isinstance(value, dict):
            pending += [(str(key), inner) for key, inner in value.items()]
    return found
