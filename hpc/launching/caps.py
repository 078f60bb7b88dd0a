"""How often anything that failed is tried again. Nothing else holds such a number.

`python -m hpc.launching.caps NAME` prints a number, for slurm/sweep.sh.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

RUN_ENDS = {"preempted": 20, "timeout": 20, "node": 3, "server": 8}
"""Kind of end -> how often in a row a run is tried again after it, while the run makes no progress. A job
that lost a rank is queued again as often as a run is tried after "node"."""
SERVER_PAUSE, LONGEST_SERVER_PAUSE = 60, 3600
"""Seconds before a run is tried again whose server of shards was away. Each time in a row doubles them, up to
the second number."""
UNSTARTED_JOBS = {"slurm": 3, "local": 20}
"""How often a run is submitted again whose jobs ended before it began. A local job has other runs to do
before it, hence the higher number."""
BAD_PLACES = 2
"""Nodes, or sets of nodes, on which a run may fail to begin."""
SEARCH_ENDS = 20
"""How often in a row the job of a search is queued again while the search makes no progress."""
BAD_NODES = 2
"""Nodes that cannot begin after which a search stops."""
UNJOINED_WORKERS = 3
"""How often all workers of a search may end before one joined it."""
LOST_PROCESSES = 3
"""How many processes a trial may lose, without a score in between, before it counts as failed."""
LOST_PROCESSES_OF_WORKERS = 20
"""The same where workers come and go: a lost process then mostly means that its worker ended."""

FOR_SHELLS = {"bad-nodes": BAD_NODES}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one number. Returns 2 for an unknown name."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if len(words) != 1 or words[0] not in FOR_SHELLS:
        print(f"usage: python -m hpc.launching.caps {{{','.join(FOR_SHELLS)}}}", file=sys.stderr)
        return 2
    print(FOR_SHELLS[words[0]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
