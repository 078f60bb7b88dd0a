"""Checkpoints that survive a kill: temporary folder, fsync, rename, a marker with the hash; tensors and plain
values only."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from leukotree.errors import RunFailed, one_line
from leukotree.files import is_full, sha256

STATE, MARKER = "state.pt", "marker.json"
FORMAT = 3
"""What `Trainer` puts into a state; one of another version is passed over."""
OVERHEAD = 2**20
"""Bytes that a checkpoint takes beside its tensors, at most."""


def save(folder: Path, number: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `folder/<number>`, unless it is there, then drop all but the newest `keep`. Raises RunFailed
    where there is no room (of the kind "disk"), or where writing fails otherwise; the old ones stay
    intact."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{number:08d}"
    if not _valid(
        final
    ):  # else the same steps were saved before: to replace it would leave a moment without any
        _write(folder, final, number, state)
    # Damaged ones may have higher numbers: they must not push out what was written just now.
    for old in [other for other in _numbered(folder) if other != final][keep - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _write(folder: Path, final: Path, number: int, state: dict[str, Any]) -> None:
    for left in folder.glob(".*.tmp"):  # by a kill in the midst of one
        shutil.rmtree(left, ignore_errors=True)
    temporary = folder / f".{number:08d}.tmp"
    try:
        temporary.mkdir()
        # By a file of ours: torch holds the interpreter lock while it closes its own, which on NFS waits for
        # the server.
        with open(temporary / STATE, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        marker = {"format": FORMAT, "sha256": sha256(temporary / STATE), "number": number}
        (temporary / MARKER).write_text(json.dumps(marker))
        for path in (temporary / MARKER, temporary):
            _sync(path)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(temporary, final)
        _sync(folder)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        needed = size(state) + OVERHEAD
        # torch's writer knows no ENOSPC: it raises a RuntimeError that says how far it came.
        if is_full(error) or (isinstance(error, RuntimeError) and not _fits(folder, needed)):
            room = shutil.disk_usage(folder).free
            raise RunFailed(
                f"{folder}: no room for a checkpoint of {needed:,} bytes, {room:,} are free (a quota may leave less); "
                "make room and run it again",
                "disk",
            ) from error
        raise RunFailed(f"{folder}: a checkpoint cannot be written: {one_line(error)}") from error


def snapshot(state: Any, before: Any = None) -> Any:
    """A copy of a state's tensors on the CPU, to be saved while training changes the originals.

    Args: before: an earlier snapshot that is not needed any more; its memory is used again where the shapes
        are the same.
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
    """Number and state of the newest valid checkpoint, on the CPU; None if there is none. Damaged ones are
    passed over."""
    for candidate in _numbered(folder):
        if _valid(candidate):
            with contextlib.suppress(OSError, ValueError):
                return int(candidate.name), torch.load(
                    candidate / STATE, map_location="cpu", weights_only=True
                )
    return None


def _valid(candidate: Path) -> bool:
    """Whether a checkpoint is there, of this format, and as it was written."""
    try:
        marker = json.loads((candidate / MARKER).read_text())
        return bool(marker["format"] == FORMAT and marker["sha256"] == sha256(candidate / STATE))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fits(folder: Path, needed: int) -> bool:
    """Whether a folder takes a file of so many bytes. Only trying tells of a quota."""
    probe = folder / ".room"
    try:
        with open(probe, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, needed)
    except OSError as error:
        return not is_full(error)
    finally:
        probe.unlink(missing_ok=True)
    return True


def size(state: Any) -> int:
    """Bytes of the tensors of a state."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(size, parts))


def _numbered(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if path.name.isdigit() and path.is_dir()), reverse=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
