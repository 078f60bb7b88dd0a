"""Work that was continued on other code than it was begun with: runs, which note it themselves, and
searches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hpc.launching.run_states import RunState
from leukotree.records import searchfolder

NAMED = 3
"""Runs that one line names."""


def lines(runs: Iterable[RunState], studies: Iterable[Path]) -> list[str]:
    """For people: a line for each study whose search was continued on other code, and for the runs that were
    on the same."""
    found = []
    for root in studies:
        if len(codes := searchfolder.code_of(root)) > 1:
            found.append(f"warning: {root.name}: the search was continued on other code: {_then(codes)}")
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for run in runs:
        if len(run.codes) > 1:
            groups.setdefault((run.study, run.codes), []).append(run.run_name)
    for (study, of_runs), names in groups.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        found.append(
            f"warning: {study}: {', '.join(names[:NAMED])}{more}: continued on other code: {_then(of_runs)}"
        )
    return found


def _then(codes: Iterable[str]) -> str:
    return ", then ".join(codes)
