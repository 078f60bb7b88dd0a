"""Files of pretrained weights: tensors and plain values, never code."""

from __future__ import annotations

import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from leukotree.errors import InputError, one_line

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm looks for in a repository of the hub."""


def check(path: str | Path) -> None:
    """Whether a .pt, .pth or .safetensors file holds tensors and nothing that runs; whether they fit, the
    model says.

    Raises InputError naming the file.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(
            f"backbone.weights: no file {str(path)!r}; use null, hub, or the path of a weights file"
        )
    found = file.stat()
    _check(str(path), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=16)  # a study names the same file in all its specs
def _check(path: str, size: int, changed: int) -> None:
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
    """Names of the tensors of a pickle that torch restricts to tensors and plain values; nothing is kept in
    memory."""
    import argparse

    # timm's own training checkpoints hold their arguments, and timm reads them.
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
    """Where the pretrained weights of a timm model lie on this machine; None where they would have to be
    fetched."""
    import timm
    from huggingface_hub import constants, try_to_load_from_cache
    from timm.models._hub import check_cached_file, get_cache_dir, hf_split

    config = timm.get_pretrained_cfg(name)
    if config is None:
        return None
    if config.hf_hub_id:
        repository, revision = hf_split(config.hf_hub_id)
        for file in (config.hf_hub_filename, *HUB_FILES):
            found = (
                try_to_load_from_cache(repository, file, constants.HF_HUB_CACHE, revision) if file else None
            )
            if isinstance(found, str):
                return Path(found)
    if config.url and check_cached_file(config.url):
        return Path(get_cache_dir(), Path(str(config.url)).name)
    return None
