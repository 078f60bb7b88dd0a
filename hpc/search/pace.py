"""The time that the searches of a study still take, at their pace so far."""

from __future__ import annotations

from collections.abc import Iterable

from hpc.search.record import Record

ENOUGH = 2
"""Trials that must have ended before the pace of a search is known."""


def seconds_left(records: Iterable[Record]) -> float | None:
    """The approximate time until all trials and re-runs of these searches have ended, in seconds. None if too
    few have ended. Open trials are taken to be as long as the mean trial that has ended, stopped ones
    included."""
    records = list(records)
    scored = [record for record in records if record.reported]
    ended = [
        trial for record in scored for trial in record.trials if trial.state is not None and trial.scores
    ]
    age = max((record.seconds for record in scored), default=0.0) - min(
        (record.first_seconds for record in scored), default=0.0
    )
    reports = sum(len(record.reported) for record in scored)
    if len(ended) < ENOUGH or age <= 0:
        return None
    length = sum(len(trial.scores) for trial in ended) / len(ended)
    begun = sum(len(trial.scores) for record in records for trial in record.trials if trial.state is None)
    left = max(0.0, length * sum(record.open_trials() for record in records) - begun)
    left += sum(record.reports * record.open_reruns() for record in records)
    return left * age / (reports - 1)
