"""The rule of `search.until: enough`: whether further trials are worth their cost."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from hpc.search import posterior
from hpc.search.record import Record
from leukotree.stats import optimum

_known: WeakKeyDictionary[Record, tuple[int, float, float]] = WeakKeyDictionary()
"""Record -> (trials that had ended, gain, noise) of the last look."""


def enough(records: Sequence[Record]) -> str | None:
    """Why the searches of an outer fold need no more trials; None if one of them does.

    They need none once, in each of them, the expected gain of further trials is below the noise of a score.
    The gain is the expected score of the best configuration of the space, less that of the best one tried.
    The noise is the standard deviation of a trial's score over seeds and inner folds. A search is asked after
    its startup trials, and not below the floor of `optimum.floor`.

    Args:
        records: the searches of all variants of one outer fold.
    """
    gains, noises = [], []
    for record in records:
        space = posterior.cube(record)
        if not space.keys:
            continue  # it has one trial
        ended = sum(trial.state is not None for trial in record.trials)
        if ended < max(optimum.floor(len(space.keys)), record.study.search.startup_trials):
            return None
        gain, noise = _look(record, ended)
        if gain >= noise:
            return None
        gains.append(gain)
        noises.append(noise)
    if not gains:
        return None
    return (
        f"further trials would gain {100 * max(gains):.1f} points at most, less than the noise of a score, "
        f"{100 * min(noises):.1f}"
    )


def _look(record: Record, ended: int) -> tuple[float, float]:
    """The gain and the noise of a search after so many trials."""
    if record not in _known or _known[record][0] != ended:
        found = posterior.optimum(record)
        _known[record] = ended, found.gain(), found.surrogate.noise
    return _known[record][1:]
