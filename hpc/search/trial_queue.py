"""The open trials of a sweep, in the order in which they run."""

from __future__ import annotations

import time
from collections.abc import Iterable

from hpc.launching import caps
from hpc.search.record import Record, Trial
from hpc.studies.study import SearchId, Study
from leukotree.errors import Kind


class TrialQueue:
    """The trials of a study's searches that have not ended: all trials of the first search and its re-runs,
    then those of the next search. The next search begins while the last trials of one still run."""

    def __init__(self, study: Study, records: Iterable[Record]) -> None:
        """A trial with its last report is noted as completed, if a kill came before that was noted."""
        self.study, self.records = study, {record.search_id: record for record in records}
        self.stop_reason: tuple[Kind, str] | None = None
        """(kind, message) of what ends the whole sweep, such as a signal to a trial's process."""
        self.running: set[tuple[SearchId, int, int | None]] = set()
        """(search, trial, seed of a re-run) of the trials that run now."""
        self._began = time.time() - max((record.seconds for record in self.records.values()), default=0.0)
        for record in self.records.values():
            for trial in record.trials:
                if trial.state is None and trial.last == record.reports:
                    record.end(trial, "completed")

    def open(self) -> int:
        """The number of trials and re-runs that have not ended, drawn or not."""
        return sum(record.open() for record in self.records.values())

    def ended(self) -> int:
        """The number of trials and re-runs that have ended."""
        return sum(record.ended() for record in self.records.values())

    def next(self) -> tuple[Record, Trial | None] | None:
        """A trial to run, or a record with None: a new trial of it is to be drawn. None if nothing can start
        until a running trial has ended."""
        for record in self.records.values():
            for trial in (*record.trials, *record.reruns):
                if trial.state is None and (record.search_id, trial.number, trial.seed) not in self.running:
                    return record, trial
            if len(record.trials) < record.most:
                return record, None
        return None

    def started(self, record: Record, trial: Trial) -> None:
        """Note that a trial runs now."""
        self.running.add((record.search_id, trial.number, trial.seed))

    def report(self, record: Record, trial: Trial, epoch: int, score: float) -> None:
        """Note a trial's score after an epoch, or after an inner fold."""
        record.report(trial, epoch, score, time.time() - self._began)

    def released(self, record: Record, trial: Trial, died: bool, most: int = caps.LOST_PROCESSES) -> None:
        """Note that a trial runs no more. If it has not ended it will run again. `died`: its process died;
        the trial fails once it has lost `most` processes."""
        self.running.discard((record.search_id, trial.number, trial.seed))
        if died and trial.state is None:
            trial.lost += 1
            if trial.lost >= most:
                record.end(trial, "failed", f"its process died {trial.lost} times")

    def stop(self, kind: Kind, message: str) -> None:
        """End the sweep for this reason. The first reason counts; others follow from it."""
        self.stop_reason = self.stop_reason or (kind, message)
