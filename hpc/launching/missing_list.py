"""The list of the runs that are not done, which a follow-up job leaves in the study's folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc.launching import job_notes, retries, stale

FILE = "reduced.json"
"""The file with the list."""


def find(root: Path, run_names: Sequence[str]) -> dict[str, Any]:
    """{time, asked, done, missing}: `missing` has run name -> {state, kind, message} of each run that is not
    done. A run that a job is still to do is missing, and so is one that is done but stale (see
    `hpc.launching.stale`)."""
    notes = job_notes.notes(root)
    missing = {}
    for name in run_names:
        state = stale.read(root / name)
        if state.state != "done":
            verdict = retries.Verdict(False, reason=state.message)
            if state.state != stale.STATE:
                verdict = retries.judge(root, name, notes.get(name), new_command=False)
            missing[name] = {"state": state.state, "kind": verdict.kind, "message": verdict.reason}
    done = len(run_names) - len(missing)
    return {"time": time.time(), "asked": len(run_names), "done": done, "missing": missing}


def lines(listing: dict[str, Any]) -> list[str]:
    """The list for people. `listing` is what `find` returns, with the ids of the jobs that were `submitted`
    and of the next follow-up job, `reducer`."""
    counts = f"{listing['done']} of {listing['asked']} runs are done"
    submitted = []
    if listing["submitted"]:
        jobs = f"{len(listing['submitted'])} jobs submitted for those that are missing"
        submitted = [f"{jobs}; job {listing['reducer']} follows them"]
    missing = [
        f"missing: {name}: {' '.join(filter(None, row.values()))}" for name, row in listing["missing"].items()
    ]
    return [counts, *submitted, *missing]
