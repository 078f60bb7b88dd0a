"""What became of some runs after a command or a follow-up job."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.launching import job_notes, retries, stale
from hpc.launching.sender import is_done
from leukotree.spec import RunSpec


@dataclass
class Outcome:
    """What became of some runs; run names throughout."""

    submitted: list[str] = field(default_factory=list)
    """Ids of the jobs submitted by this call."""
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """run name -> the kind of failure and the reason, one line."""
    waiting: dict[str, str] = field(default_factory=dict)
    """run name -> id of the job, queued or at work, that is to do it: of this call or of an earlier one."""
    unsent: list[str] = field(default_factory=list)
    """Runs that no job is to do yet, since SLURM took no more jobs."""
    reducer: str | None = None
    """Id of the job that will submit those, and say what is missing, when the others have ended."""

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """For people: the counts, then each failure."""
        sent = f" ({len(self.submitted)} jobs submitted)" if self.submitted else ""
        counts = f"{len(self.done)} runs done, {len(self.failed)} failed, {len(self.waiting)} queued or at work{sent}"
        return [
            counts,
            *self._notes(),
            *(f"failed: {name}: {reason}" for name, reason in self.failed.items()),
        ]

    def _notes(self) -> list[str]:
        lines = [f"job {self.reducer} will write reduced.json after them"] if self.reducer else []
        if self.unsent:
            later = f"job {self.reducer} submits them" if self.reducer else "run the same command again"
            lines.append(
                f"{len(self.unsent)} runs are not queued yet, SLURM takes no more jobs: {later} when the first have ended"
            )
        abroad = Counter(
            job.partition(job_notes.AT)[2] for job in self.waiting.values() if job_notes.AT in job
        )
        lines += [
            f"{count} of them wait for jobs of the cluster {name}, which only answers there"
            for name, count in abroad.items()
        ]
        return lines


def outcome_of(specs: Sequence[RunSpec], root: Path, outcome: Outcome, failed: dict[str, str]) -> Outcome:
    """`outcome`, with each run filed under done, failed or waiting. `failed` has run name -> reason of the
    runs that failed in this process."""
    alive, notes = job_notes.alive(root), job_notes.notes(root)
    for name in [spec.run_name for spec in specs]:
        if is_done(root, name):
            state = stale.read(root / name)
            if state.state == stale.STATE:  # packed again while the others were at work
                outcome.failed[name] = f"{stale.STATE}: {state.message}"
            else:
                outcome.done.append(name)
        elif name in alive:
            outcome.waiting[name] = alive[name]
        elif name not in outcome.unsent:
            verdict = retries.judge(root, name, notes.get(name), anew=False)
            outcome.failed[name] = (
                failed.get(name) or f"{verdict.kind or 'node'}: {verdict.reason or 'it never began'}"
            )
    return outcome
