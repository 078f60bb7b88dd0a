"""The open trials of a sweep, in the order in which they run."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Literal

from hpc.launching import caps
from hpc.search import halving
from hpc.search.limits import Limits
from hpc.search.record import Record, Trial
from hpc.studies.study import SearchId, Study
from leukotree.errors import Kind

Verdict = Literal["continue", "pause", "stop"]


class TrialQueue:
    """The trials of a study's searches that have not ended. All searches advance side by side, so that each
    knows as many scores as possible before it draws its next trial. The re-runs of a search follow its
    trials."""

    def __init__(self, study: Study, records: Iterable[Record]) -> None:
        """A trial with its last report is noted as completed, if a kill came before that was noted."""
        self.study, self.records = study, {record.search_id: record for record in records}
        self._limits = Limits(study, self.records)
        self.stop_reason: tuple[Kind, str] | None = None
        """(kind, message) of what ends the whole sweep, such as a signal to a trial's process."""
        self.running: set[tuple[SearchId, int, int | None]] = set()
        """(search, trial, seed of a re-run) of the trials that run now."""
        self._began = time.time() - max((record.seconds for record in self.records.values()), default=0.0)
        for record in self.records.values():
            self._settle(record)

    def open(self) -> int:
        """The number of trials and re-runs that have not ended, drawn or not."""
        return sum(record.open() for record in self.records.values())

    def ready(self) -> int:
        """As `open`, without the paused trials, which wait for others."""
        paused = sum(trial.paused for record in self.records.values() for trial in record.trials)
        return self.open() - paused

    def ended(self) -> int:
        """The number of trials and re-runs that have ended."""
        return sum(record.ended() for record in self.records.values())

    def next(self) -> tuple[Record, Trial | None] | None:
        """A trial to run, or a record with None: a new trial of it is to be drawn. None if nothing can start
        until a running trial has reported or ended.

        Trials that were interrupted come first. Then the search follows that has the fewest running trials;
        of equal ones that with the fewest drawn trials, then the earlier one. In it, paused trials that may
        go on come before new ones.
        """
        self._limits.apply()
        for record in self.records.values():
            self._settle(record)
            for trial in record.trials:
                if trial.active and not self._runs(record, trial):
                    return record, trial
        for record in sorted(self.records.values(), key=self._load):
            if promoted := self._promoted(record):
                return record, promoted
            if not record.drawn():
                return record, None
            for rerun in record.reruns:
                if rerun.state is None and not self._runs(record, rerun):
                    return record, rerun
        return None

    def _load(self, record: Record) -> tuple[int, int]:
        running = sum(search_id == record.search_id for search_id, _, _ in self.running)
        return running, len(record.trials)

    def _runs(self, record: Record, trial: Trial) -> bool:
        return (record.search_id, trial.number, trial.seed) in self.running

    def _promoted(self, record: Record) -> Trial | None:
        """A paused trial that goes on now; that is noted. One that had made its reports before the search was
        extended has them at once, and need not run."""
        while (promotion := halving.promotion(record)) and not self._runs(record, promotion.trial):
            record.promote(*promotion)
            self._settle(record)
            if promotion.trial.active:
                return promotion.trial
        return None

    def started(self, record: Record, trial: Trial) -> None:
        """Note that a trial runs now."""
        self.running.add((record.search_id, trial.number, trial.seed))

    def report(self, record: Record, trial: Trial, epoch: int, score: float) -> None:
        """Note a trial's score after an epoch, or after an inner fold."""
        record.report(trial, epoch, score, time.time() - self._began)

    def verdict(self, record: Record, trial: Trial) -> Verdict:
        """What a running trial does after its last report, as far as the record decides that: ASHA stops
        trials besides (see `early_stopping`)."""
        if trial.state is not None or trial.last == record.reports:
            return "stop"
        return "pause" if trial.paused else "continue"

    def leave(self, record: Record, trial: Trial, seconds: float = 0.0, stopped: bool = False) -> None:
        """Note that a trial leaves its slot by itself: at its end, at a rung, or because it is `stopped`.
        `seconds`: device-seconds of the process in which it ran."""
        self.running.discard((record.search_id, trial.number, trial.seed))
        spent = trial.seconds + seconds
        if trial.last == record.reports:
            record.end(trial, "completed", None, spent)
        elif stopped:
            record.end(trial, "stopped", None, spent)
        elif trial.paused:
            record.pause(trial, spent)
        self._settle(record)

    def released(self, record: Record, trial: Trial, died: bool, most: int = caps.LOST_PROCESSES) -> None:
        """Note that a trial runs no more, although it was neither at its end nor at a rung. If it has not
        ended it will run again. `died`: its process died; the trial fails once it has lost `most`
        processes."""
        self.running.discard((record.search_id, trial.number, trial.seed))
        if died and trial.state is None:
            trial.lost += 1
            if trial.lost >= most:
                record.end(trial, "failed", f"its process died {trial.lost} times")
        self._settle(record)

    def stop(self, kind: Kind, message: str) -> None:
        """End the sweep for this reason. The first reason counts; others follow from it."""
        self.stop_reason = self.stop_reason or (kind, message)

    def _settle(self, record: Record) -> None:
        """Note what follows from the record: trials that have made their last report, and paused ones that
        will never go on. Where nothing else can happen, the best goes on to its end."""
        waiting = [trial for trial in record.trials if not self._runs(record, trial)]
        for trial in waiting:
            if trial.state is None and trial.last == record.reports:
                record.end(trial, "completed", None, trial.seconds)
        hopeless = {trial.number for trial in halving.hopeless(record)}
        self._end([trial for trial in waiting if trial.number in hopeless], record)
        if not record.drawn() or any(trial.active or self._runs(record, trial) for trial in record.trials):
            return
        if halving.promotion(record):
            return
        if resort := halving.last_resort(record):
            record.promote(*resort, final=True)
            self._settle(record)  # it may have its scores from before an extension
        else:
            self._end([trial for trial in record.trials if trial.paused], record)

    def _end(self, trials: list[Trial], record: Record) -> None:
        """End paused trials."""
        for trial in trials:
            record.end(trial, "stopped", None, trial.seconds)
        record.drop_checkpoints(trials)
