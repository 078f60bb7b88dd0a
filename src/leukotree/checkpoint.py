"""Checkpoints that survive a kill: temporary folder, fsync, rename, a marker with the hash; tensors and plain values only."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

STATE, MARKER = "state.pt", "marker.json"


def save(folder: Path, number: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `folder/<number>`, then drop all but the newest `keep`. Raises OSError (a full disk) with the old ones intact."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{number:06d}"
    temporary = folder / f".{number:06d}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        torch.save(state, temporary / STATE)
        marker = {"sha256": sha256(temporary / STATE), "number": number}
        (temporary / MARKER).write_text(json.dumps(marker))
        for path in (temporary / STATE, temporary / MARKER, temporary):
            _sync(path)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(temporary, final)
        _sync(folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in _numbered(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def snapshot(state: Any, before: Any = None) -> Any:
    """A copy of a state's tensors on the CPU, to be saved while training changes the originals.

    Args:
        before: an earlier snapshot that is not needed any more; its memory is used again where the shapes are the same.
    """
    copied = _copied(state, before)
    if torch.cuda.is_initialized():
        torch.cuda.current_stream().synchronize()  # one wait for all copies
    return copied


def _copied(value: Any, before: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if not isinstance(before, torch.Tensor) or (before.shape, before.dtype) != (value.shape, value.dtype):
            before = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
        return before.copy_(value, non_blocking=True)
    if isinstance(value, dict):
        known = before if isinstance(before, dict) else {}
        return {key: _copied(inner, known.get(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner, None) for inner in value]
    return value


def load_latest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Number and state of the newest valid checkpoint, on the CPU; None if there is none. Damaged ones are passed over."""
    for candidate in _numbered(folder):
        try:
            marker = json.loads((candidate / MARKER).read_text())
            if marker["sha256"] == sha256(candidate / STATE):
                return int(candidate.name), torch.load(candidate / STATE, map_location="cpu", weights_only=True)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _numbered(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if path.name.isdigit() and path.is_dir()), reverse=True)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
