"""Successive halving that pauses and resumes: which paused trials of a search go on, and which never will.

A trial trains to a rung and pauses. It goes on to the next rung once it is among the best 1/eta of all trials
that have reached its rung; eta is the reduction factor. With `halving` this is asked whenever a slot is free
(ASHA's rule of promotion, Li et al. 2020), with `hyperband` when all trials of the bracket that can reach the
rung have done so. Everything follows from the trials of the record.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hpc.search import rungs
from hpc.search.record import Record, Trial


class Promotion(NamedTuple):
    """A trial that goes on."""

    trial: Trial
    until: int | None
    """The report after which it pauses again. None: it trains to its end."""


class _Bracket:
    """The drawn trials of a bracket of a search."""

    def __init__(self, record: Record, bracket: rungs.Bracket) -> None:
        numbers = bracket.numbers
        self.trials, self.levels = record.trials[numbers.start : numbers.stop], bracket.levels
        self.size = len(numbers)
        """Trials that it has once all are drawn."""
        self._eta = record.study.search.reduction_factor

    def share(self, count: int) -> int:
        """The best 1/eta of so many trials."""
        return int(count / self._eta + 1e-9)

    def ranked(self, level: int) -> list[Trial]:
        """The trials that have reached a rung, the best there first. Of equal ones the earlier is better."""
        report = self.levels[level]
        reached = [trial for trial in self.trials if report in trial.scores]
        return sorted(reached, key=lambda trial: (-trial.scores[report], trial.number))

    def at(self, trial: Trial, level: int) -> bool:
        """Whether a trial is paused at a rung."""
        return trial.paused and trial.until == self.levels[level]

    def after(self, report: int) -> int | None:
        """The rung after a report. None for the end."""
        return next((level for level in self.levels if level > report), None)

    def promotable(self, level: int, least: int = 0) -> Trial | None:
        """The best paused trial among the best 1/eta at a rung, but at least `least`. None if there is
        none."""
        ranked = self.ranked(level)
        best = ranked[: max(least, self.share(len(ranked)))]
        return next((trial for trial in best if self.at(trial, level)), None)

    def asynchronous(self) -> Trial | None:
        """The trial that goes on by ASHA's rule: of the highest rung that has one."""
        found = (self.promotable(level) for level in reversed(range(len(self.levels))))
        return next(filter(None, found), None)

    def synchronous(self) -> Trial | None:
        """The trial that goes on once all have reached its rung."""
        if len(self.trials) < self.size:
            return None
        for level, report in enumerate(self.levels):
            if any(trial.active and trial.last < report for trial in self.trials):
                return None
            if trial := self.promotable(level, least=1):
                return trial
        return None

    def hopeless(self) -> Iterator[Trial]:
        """The paused trials that cannot come among the best 1/eta of their rung any more, however the others
        do."""
        for level, report in enumerate(self.levels):
            gone = sum(trial.state is not None and report not in trial.scores for trial in self.trials)
            best = max(1, self.share(self.size - gone))
            yield from (trial for trial in self.ranked(level)[best:] if self.at(trial, level))


def _brackets(record: Record) -> Iterator[_Bracket]:
    size = len(record.trials) if record.drawn() else record.most
    found = rungs.brackets(record.study, record.search_id.variant, size)
    return (_Bracket(record, bracket) for bracket in found if bracket.levels)


def promotion(record: Record) -> Promotion | None:
    """The paused trial that goes on next. None if there is none yet."""
    synchronous = record.study.search.scheduler == "hyperband"
    for bracket in _brackets(record):
        if trial := bracket.synchronous() if synchronous else bracket.asynchronous():
            return Promotion(trial, bracket.after(trial.last))
    return None


def hopeless(record: Record) -> list[Trial]:
    """The paused trials of a search that will never go on."""
    return [trial for bracket in _brackets(record) for trial in bracket.hopeless()]


def last_resort(record: Record) -> Promotion | None:
    """The best trial of the highest rung, for a search of which nothing runs and nothing was trained to its
    end: too few have come so far, or those that went on failed. It may have been stopped. None if one has
    completed, or all have failed."""
    if any(trial.state == "completed" for trial in record.trials):
        return None
    paused = [
        (bracket, trial)
        for bracket in _brackets(record)
        for trial in bracket.trials
        if trial.state != "failed" and trial.last in bracket.levels
    ]
    if not paused:
        return None
    bracket, trial = max(paused, key=lambda one: (one[1].last, one[1].scores[one[1].last], -one[1].number))
    return Promotion(trial, bracket.after(trial.last))
