"""Files of pretrained weights: tensors and plain values, never code."""

from __future__ import annotations

import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from leukotree import files
from leukotree.errors import InputError, one_line

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""The files that timm looks for in a repository of the hub."""


def check(path: str | Path) -> None:
    """Raises InputError if a .pt, .pth or .safetensors file is missing, damaged, or holds more than tensors.

    Whether the tensors fit a model is checked when it is built.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(
            f"backbone.weights: no file {str(path)!r}; use null, hub, or the path of a weights file"
        )
    _check(str(path), files.state(file.stat()))


@lru_cache(maxsize=16)  # a study names the same file in all its specs
def _check(path: str, state: tuple[int, ...]) -> None:
    try:
        names = _safetensors(path) if path.endswith(".safetensors") else _tensors(path)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: holds more than tensors, which may run code; save the model's state_dict() alone"
        ) from None
    except Exception as error:  # a damaged file makes torch's readers raise nearly anything
        raise InputError(f"{path}: not a readable weights file: {one_line(error)[:200]}") from error
    if not names:
        raise InputError(f"{path}: holds no tensors; save the model's state_dict()")


def _safetensors(path: str) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _tensors(path: str) -> list[str]:
    """Names of the tensors in a pickle file. torch reads only tensors and plain values; none stays in
    memory."""
    import argparse

    # timm's training checkpoints hold their arguments, and timm reads them.
    with torch.serialization.safe_globals([argparse.Namespace]):
        pending: list[tuple[str, Any]] = [("", torch.load(path, map_location="meta", weights_only=True))]
    names = []
    while pending:
        name, value = pending.pop()
        if isinstance(value, torch.Tensor):
            names.append(name)
        elif isinstance(value, dict):
            pending += [(str(key), inner) for key, inner in value.items()]
    return names


def cached(name: str) -> Path | None:
    """The file with the pretrained weights of a timm model; None if it is not on this machine."""
    import timm
    from huggingface_hub import constants, try_to_load_from_cache
    from timm.models._hub import check_cached_file, get_cache_dir, hf_split

    config = timm.get_pretrained_cfg(name)
    if config is None:
        return None
    if config.hf_hub_id:
        repository, revision = hf_split(config.hf_hub_id)
        for file in (config.hf_hub_filename, *HUB_FILES):
            path = (
                try_to_load_from_cache(repository, file, constants.HF_HUB_CACHE, revision) if file else None
            )
            if isinstance(path, str):
                return Path(path)
    if config.url and check_cached_file(config.url):
        return Path(get_cache_dir(), Path(str(config.url)).name)
    return None
