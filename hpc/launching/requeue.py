"""Whether the job of a search may be queued again: always after progress, and a few times without.

`python -m hpc.launching.requeue STUDY [key=value ...]` counts one more end of the job, for slurm/sweep.sh.
The exit code is 0 if the job may be queued again. Else it is 1, after one line on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hpc.launching import caps
from hpc.studies import study
from leukotree import files
from leukotree.errors import InputError, one_line
from leukotree.records import searchfolder


def again(root: Path) -> bool:
    """Count one end of the job that searches in a study's folder. Returns whether it may be queued again:
    whether at most SEARCH_ENDS ends came after its latest progress."""
    path = searchfolder.sweep_folder(root) / searchfolder.ENDS
    try:
        before = json.loads(path.read_text())
        reached, ends = int(before["reached"]), int(before["ends"])
    except (OSError, ValueError, OverflowError, KeyError, TypeError):
        reached, ends = -1, 0
    now = searchfolder.recorded_bytes(root)
    ends = 1 if now > reached else ends + 1
    files.write_atomic(path, json.dumps({"reached": max(now, reached), "ends": ends}))
    return ends <= caps.SEARCH_ENDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Count an end of the job of a study's search. Returns the exit code."""
    path, *overrides = sys.argv[1:] if arguments is None else arguments
    try:
        root = study.load(path, overrides).root
        if again(root):
            return 0
        reason = f"the search of {path} was ended {caps.SEARCH_ENDS} times without progress"
    except (InputError, OSError) as error:
        reason = one_line(error)
    print(f"sweep.sh: {reason}: not requeued; submit again to continue", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
