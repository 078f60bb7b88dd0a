"""Work that was continued on other code than it was begun with: runs, which note it themselves, and
searches."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from hpc.launching import requeue
from hpc.launching.run_states import RunState
from leukotree import files
from leukotree.records import origin
from leukotree.records.runfolder import ATTEMPTS, code_of_search

NAMED = 3
"""Runs that one line names."""


def note_search(root: Path) -> None:
    """Note that the searches of a study's folder begin, or go on, with the code of this process."""
    attempt = {
        "started": time.time(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "at": requeue.progress(root),
    }
    files.append_lines(root / "search" / ATTEMPTS, [json.dumps(attempt | origin.here())])


def lines(runs: Iterable[RunState], studies: Iterable[Path]) -> list[str]:
    """For people: a line for each study whose search was continued on other code, and for the runs that were
    on the same."""
    found = []
    for root in studies:
        if len(codes := code_of_search(root)) > 1:
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
