"""Whether the job of a search may be queued again: as often as it makes progress, and some times without.

`python -m hpc.launching.requeue STUDY [key=value ...]` counts one more end of the job. Used by
slurm/sweep.sh. Exit code 0: again;
1, after one line on stderr: no more.
"""

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
    """Count an end of the job that searches in a study's folder; whether it has made progress in its latest
    starts, of which SEARCH_ENDS may go by without any."""
    path = searchfolder.sweep_folder(root) / searchfolder.ENDS
    try:
        before = json.loads(path.read_text())
        reached, ends = int(before["reached"]), int(before["ends"])
    except (OSError, ValueError, OverflowError, KeyError, TypeError):
        reached, ends = -1, 0
    here = searchfolder.recorded_bytes(root)
    ends = 1 if here > reached else ends + 1
    files.write_atomic(path, json.dumps({"reached": max(here, reached), "ends": ends}))
    return ends <= caps.SEARCH_ENDS


def main(arguments: Sequence[str] | None = None) -> int:
    """See above."""
    path, *overrides = sys.argv[1:] if arguments is None else arguments
    try:
        root = study.load(path, overrides).root
        if again(root):
            return 0
        said = f"the search of {path} was ended {caps.SEARCH_ENDS} times without progress: not requeued; submit again to continue"
    except (InputError, OSError) as error:
        said = f"{one_line(error)}: not requeued; submit again to continue"
    print(f"sweep.sh: {said}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
