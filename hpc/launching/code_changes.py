"""Runs and searches that were continued on other code than they began with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hpc.launching.run_states import RunState
from leukotree.records import searchfolder

NAMED = 3
"""Runs that one line names."""


def lines(runs: Iterable[RunState], studies: Iterable[Path]) -> list[str]:
    """A line for people about each study whose search was continued on other code, and about the runs that
    changed to the same code."""
    warnings = []
    for root in studies:
        if len(codes := searchfolder.code_of(root)) > 1:
            warnings.append(f"warning: {root.name}: the search was continued on other code: {_then(codes)}")
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for run in runs:
        if len(run.codes) > 1:
            groups.setdefault((run.study, run.codes), []).append(run.run_name)
    for (study, of_runs), names in groups.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        warnings.append(
            f"warning: {study}: {', '.join(names[:NAMED])}{more}: continued on other code: {_then(of_runs)}"
        )
    return warnings


def _then(codes: Iterable[str]) -> str:
    return ", then ".join(codes)
