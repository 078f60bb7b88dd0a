"""The error for a damaged file of a run."""

from __future__ import annotations

from pathlib import Path

from leukotree.errors import InputError


def damaged(path: Path, problem: str) -> InputError:
    """The error for a damaged file of a run, with the way to fix it."""
    return InputError(f"{path}: {problem}; remove the run's folder and run folds again")
