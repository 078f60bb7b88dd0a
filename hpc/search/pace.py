"""How long the searches of a study still take, at the pace so far."""

from __future__ import annotations

from collections.abc import Iterable

from hpc.search.record import Record

ENOUGH = 2
"""Trials that have ended before the pace of a search is known."""


def seconds_left(records: Iterable[Record]) -> float | None:
    """About how long it takes until all trials and re-runs of these searches have ended, in seconds, if they
    go on as fast as so far; None where too little has ended to tell. The mean length of the trials that have
    ended, stopped ones included, is taken for that of the others."""
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
