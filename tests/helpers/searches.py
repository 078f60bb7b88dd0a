"""Searches in virtual time, without Ray: the real queue, records and sampler, with scores of a function."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from hpc.search import early_stopping, sampler
from hpc.search.record import Record, Trial
from hpc.search.trial_queue import TrialQueue
from hpc.studies.study import SearchId, Study

Score = Callable[[SearchId, Trial, int], float]
"""The score of a trial after a report. Raises Failed for a trial that cannot be trained."""


class Failed(Exception):
    """A trial that cannot be trained."""


@dataclass
class Proposal:
    """A draw, and what the sampler knew of its search."""

    search_id: SearchId
    number: int
    known: int
    """Trials with an end or a rung before it."""


@dataclass
class Played:
    """What happened in a simulated sweep."""

    proposals: list[Proposal] = field(default_factory=list)
    reports: int = 0
    seconds: float = 0.0


def by_number(search_id: SearchId, trial: Trial, report: int) -> float:
    """A score that rises with the report, in an order of the trials that crosses."""
    level = (trial.number * 7 + len(search_id.variant)) % 11 / 11
    return level * (0.5 + 0.5 * report / (report + 3)) + 0.01 * ((trial.number * report) % 5)


def by_values(search_id: SearchId, trial: Trial, report: int) -> float:
    """A score of the drawn values, which rises with the report."""
    gamma = float(trial.chosen.get("loss.gamma", 1.0))
    return (1 - (gamma - 2) ** 2 / 16) * report / (report + 1)


def begun(study: Study, search_ids: Sequence[SearchId] | None = None) -> TrialQueue:
    """A sweep that starts now, with the records on the disk."""
    return TrialQueue(study, [Record(study, one) for one in search_ids or study.search_ids])


def play(
    queue: TrialQueue,
    score: Score = by_values,
    slots: int = 1,
    seconds: Callable[[Trial], float] = lambda trial: 1.0,
) -> Played:
    """Run all open trials. `seconds`: of a report of a trial. A trial that goes on has its reports so far at
    once."""
    played, clock = Played(), 0.0
    asha = early_stopping.scheduler(queue.study, queue.records.values())
    order = itertools.count()
    at_work: list[tuple[float, int, Record, Trial]] = []
    while True:
        while len(at_work) < slots and (following := queue.next()):
            record, trial = following
            if trial is None:
                known = sum(one.state is not None or one.halted for one in record.trials)
                played.proposals.append(Proposal(record.search_id, len(record.trials), known))
                trial = record.draw(sampler.propose(queue.study, record.search_id, record.trials))
            queue.started(record, trial)
            heapq.heappush(at_work, (clock + seconds(trial), next(order), record, trial))
        if not at_work:
            assert queue.open() == 0, "nothing runs, and nothing can start"
            played.seconds = clock
            return played
        clock, _, record, trial = heapq.heappop(at_work)
        played.reports += 1
        if _reported(queue, record, trial, score, asha):
            heapq.heappush(at_work, (clock + seconds(trial), next(order), record, trial))


def _reported(queue: TrialQueue, record: Record, trial: Trial, score: Score, asha: Any) -> bool:
    """Make the next report of a trial. Returns whether it goes on."""
    report = trial.last + 1 if trial.seed is None else record.reports
    try:
        queue.report(record, trial, report, score(record.search_id, trial, report))
    except Failed as error:
        record.end(trial, "failed", str(error))
        queue.released(record, trial, died=False)
        return False
    config = {**record.search_id._asdict(), "trial": trial.number, "seed": trial.seed}
    of_tune: Any = SimpleNamespace(trial_id="Ray's own", config=config)
    asha.on_trial_add(None, of_tune)
    stopped = (
        asha.on_trial_result(None, of_tune, {"epoch": report, "macro_f1": trial.scores[report]}) == "STOP"
    )
    if queue.verdict(record, trial) == "continue" and not stopped:
        return True
    queue.leave(record, trial, seconds=1.0, stopped=stopped)
    return False


def drawn(study: Study, search_id: SearchId) -> list[dict[str, Any]]:
    """The values of a search's trials, as they are on the disk."""
    return [trial.chosen for trial in Record(study, search_id).trials]
