"""Checkpoints that survive a kill: a temporary folder, fsync, rename, and a marker with the hash.

They hold tensors and plain values only.
"""

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
"""Version of a `Trainer`'s state. Checkpoints of another version are skipped."""
OVERHEAD = 2**20
"""Largest number of bytes of a checkpoint beside its tensors."""


def save(folder: Path, number: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `folder/<number>`, unless it exists, then remove all but the newest `keep`; the path.

    Raises RunFailed where there is no room (of the kind "disk"), or where writing fails for another reason.
    Older checkpoints stay intact.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{number:08d}"
    # A valid one holds the same steps. Replacing it would leave a moment without any checkpoint.
    if not _valid(final):
        _write(folder, final, number, state)
    # Damaged ones may have higher numbers: they must not replace the one that was just written.
    for old in [other for other in _numbered(folder) if other != final][keep - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _write(folder: Path, final: Path, number: int, state: dict[str, Any]) -> None:
    for unfinished in folder.glob(".*.tmp"):  # a kill leaves them
        shutil.rmtree(unfinished, ignore_errors=True)
    temporary = folder / f".{number:08d}.tmp"
    try:
        temporary.mkdir()
        # torch holds the interpreter lock while it closes a file that it opened, and on NFS that waits for
        # the server. So the file is opened here.
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
        # torch's writer does not raise ENOSPC but a RuntimeError.
        if is_full(error) or (isinstance(error, RuntimeError) and not _fits(folder, needed)):
            room = shutil.disk_usage(folder).free
            raise RunFailed(
                f"{folder}: no room for a checkpoint of {needed:,} bytes, {room:,} are free "
                "(a quota may leave less); make room and run it again",
                "disk",
            ) from error
        raise RunFailed(f"{folder}: a checkpoint cannot be written: {one_line(error)}") from error


def snapshot(state: Any, before: Any = None) -> Any:
    """A copy of a state on the CPU, which can be saved while training changes the original tensors.

    Args: before: an earlier snapshot that is no longer needed. Its memory is reused where shapes are the
        same.
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
    """Number and state of the newest valid checkpoint, on the CPU; None if there is none.

    Damaged ones are skipped.
    """
    for candidate in _numbered(folder):
        if _valid(candidate):
            with contextlib.suppress(OSError, ValueError):
                return int(candidate.name), torch.load(
                    candidate / STATE, map_location="cpu", weights_only=True
                )
    return None


def _valid(candidate: Path) -> bool:
    """Whether a checkpoint exists, has this format, and is not damaged."""
    try:
        marker = json.loads((candidate / MARKER).read_text())
        return bool(marker["format"] == FORMAT and marker["sha256"] == sha256(candidate / STATE))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fits(folder: Path, needed: int) -> bool:
    """Whether a file of so many bytes fits into a folder. Only trying shows a quota."""
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
    """Number of bytes of the tensors of a state."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(size, parts))


def _numbered(folder: Path) -> list[Path]:
    """The folders of the checkpoints, newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if path.name.isdigit() and path.is_dir()), reverse=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
