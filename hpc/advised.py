"""Commands that a message advises. They work as they are typed, except for a clear placeholder."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from hpc.studies import study as studies
from leukotree.errors import InputError


def first(given: str, overrides: Sequence[str]) -> str:
    """The command that begins a study. `given`: the study's file, with changes to it, or its name."""
    named = Path(given).suffix not in (".yaml", ".yml")
    path = file_of(given) if named else Path(given)
    if path is None:
        return f"leukotree sweep {studies.PLACEHOLDER}"
    plan = studies.load(path, overrides)
    verb = "sweep" if plan.search.trials and plan.search.space else "grid" if plan.has_grid else "folds"
    return plan.command(verb)


def file_of(name: str) -> Path | None:
    """The file of the study of this name, in the current folder or in `sweeps`; None without one."""
    for path in (Path(folder, f"{name}.yaml") for folder in ("", "sweeps")):
        with contextlib.suppress(InputError):
            if path.is_file() and studies.load(path).study == name:
                return path
    return None
