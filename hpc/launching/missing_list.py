"""The list of the runs that are not done, which a follow-up job leaves in the study's folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc.launching import job_notes, retries, stale

FILE = "reduced.json"


def find(root: Path, run_names: Sequence[str]) -> dict[str, Any]:
    """{time, asked, done, missing}: `missing` has run name -> {state, kind, message} of each run that is not
    done, also of those that a job is still to do, and of those that are done but stale (see
    `hpc.launching.stale`)."""
    notes = job_notes.notes(root)
    gone = {}
    for name in run_names:
        state = stale.read(root / name)
        if state.state != "done":
            verdict = retries.Verdict(False, reason=state.message)
            if state.state != stale.STATE:
                verdict = retries.judge(root, name, notes.get(name), anew=False)
            gone[name] = {"state": state.state, "kind": verdict.kind, "message": verdict.reason}
    return {"time": time.time(), "asked": len(run_names), "done": len(run_names) - len(gone), "missing": gone}


def lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    rows = [
        f"missing: {name}: {' '.join(filter(None, one.values()))}" for name, one in found["missing"].items()
    ]
    if found["submitted"]:
        rows.insert(
            0,
            f"{len(found['submitted'])} jobs submitted for those that are missing; job {found['reducer']} looks after them",
        )
    return [f"{found['done']} of {found['asked']} runs are done", *rows]
