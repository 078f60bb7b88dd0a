"""The job after the jobs: it says which runs of those that were submitted are done, and which are missing."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hpc import site as sites
from hpc import store, submitted
from leukotree import files
from leukotree.errors import InputError, one_line

FILE = "reduced.json"
MINUTES = 15
"""Time limit of the job; ten thousand runs take seconds."""


@dataclasses.dataclass(frozen=True)
class Reduce:
    """What submitit pickles: the runs to look for, in the study's folder `root`."""

    root: Path
    run_names: Sequence[str]

    def __call__(self) -> None:
        """Write reduced.json and say what it holds; exit code 1 if a run is missing."""
        found = reduced(self.root, self.run_names)
        files.write_atomic(self.root / FILE, json.dumps(found, indent=1))
        print(*lines(found), sep="\n", flush=True)
        if found["missing"]:
            sys.exit(1)


def reduced(root: Path, run_names: Sequence[str]) -> dict[str, Any]:
    """{time, asked, done, missing}: `missing` has run name -> {state, kind, message} of each run that is not done, also of
    those that a job is still to do."""
    from hpc import retries

    notes = submitted.notes(root)
    gone = {}
    for name in run_names:
        state = store.read(root / name)
        if state.state != "done":
            verdict = retries.judge(root, name, notes.get(name), anew=False)
            gone[name] = {"state": state.state, "kind": verdict.kind, "message": verdict.reason}
    return {"time": time.time(), "asked": len(run_names), "done": len(run_names) - len(gone), "missing": gone}


def lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    rows = [f"missing: {name}: {' '.join(one.values())}" for name, one in found["missing"].items()]
    return [f"{found['done']} of {found['asked']} runs are done", *rows]


def submit(root: Path, run_names: Sequence[str], after: Collection[str], site: sites.Site | None) -> str:
    """Queue a small job that runs when the jobs `after` have ended, however they did. Returns its id."""
    import submitit
    from submitit.core.utils import FailedJobError

    from hpc.jobs import outside_a_job

    small = {"nodes": 1, "gpus_per_node": 0, "cpus_per_task": 1, "mem_gb": None}
    executor = submitit.AutoExecutor(folder=root / "jobs", cluster="slurm")
    parameters = sites.submitit_parameters(site or sites.load()) | small
    arrays = sorted({job.partition("_")[0] for job in after}, key=int)
    executor.update_parameters(
        **{key: value for key, value in parameters.items() if value and key not in ("slurm_srun_args", "timeout_min")},
        timeout_min=MINUTES,
        tasks_per_node=1,
        name=f"{root.name}-reduce",
        slurm_dependency="afterany:" + ":".join(arrays),
    )
    with outside_a_job():
        try:
            return str(executor.submit(Reduce(root, list(run_names))).job_id)
        except FailedJobError as error:
            raise InputError(f"sbatch refused the job that looks for missing runs: {one_line(error)[-300:]}") from None
