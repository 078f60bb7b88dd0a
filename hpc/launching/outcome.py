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
    """What became of some runs, by their names."""

    submitted: list[str] = field(default_factory=list)
    """Ids of the jobs submitted by this call."""
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Run name -> the kind of failure and the reason, in one line."""
    waiting: dict[str, str] = field(default_factory=dict)
    """Run name -> id of the queued or running job that is to do it. An earlier call may have submitted it."""
    unsent: list[str] = field(default_factory=list)
    """Runs without a job, since SLURM took no more jobs."""
    reducer: str | None = None
    """Id of the follow-up job: when the others have ended it submits these, and lists what is missing."""

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """The outcome for people: the counts, then each failure."""
        done, failed, waiting = len(self.done), len(self.failed), len(self.waiting)
        sent = f" ({len(self.submitted)} jobs submitted)" if self.submitted else ""
        counts = f"{done} runs done, {failed} failed, {waiting} queued or at work{sent}"
        failures = [f"failed: {name}: {reason}" for name, reason in self.failed.items()]
        return [counts, *self._notes(), *failures]

    def _notes(self) -> list[str]:
        lines = [f"job {self.reducer} will write reduced.json after them"] if self.reducer else []
        if self.unsent:
            later = f"job {self.reducer} submits them" if self.reducer else "run the same command again"
            full = f"{len(self.unsent)} runs are not queued yet, SLURM takes no more jobs"
            lines.append(f"{full}: {later} when the first have ended")
        clusters = Counter(
            job.partition(job_notes.AT)[2] for job in self.waiting.values() if job_notes.AT in job
        )
        lines += [
            f"{count} of them wait for jobs of the cluster {name}, which only answers there"
            for name, count in clusters.items()
        ]
        return lines


def outcome_of(specs: Sequence[RunSpec], root: Path, outcome: Outcome, failed: dict[str, str]) -> Outcome:
    """`outcome`, with each run filed under done, failed or waiting. `failed` has run name -> reason of the
    runs that failed in this process."""
    alive, notes = job_notes.alive(root), job_notes.notes(root)
    for name in [spec.run_name for spec in specs]:
        if is_done(root, name):
            state = stale.read(root / name)
            if state.state == stale.STATE:  # its data were packed again meanwhile
                outcome.failed[name] = f"{stale.STATE}: {state.message}"
            else:
                outcome.done.append(name)
        elif name in alive:
            outcome.waiting[name] = alive[name]
        elif name not in outcome.unsent:
            verdict = retries.judge(root, name, notes.get(name), new_command=False)
            outcome.failed[name] = (
                failed.get(name) or f"{verdict.kind or 'node'}: {verdict.reason or 'it never began'}"
            )
    return outcome
