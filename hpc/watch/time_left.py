"""The time that the runs of a study's outer folds, or of its grid, still take."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.launching.run_states import RunState
from hpc.search.pace import Left
from hpc.watch.memory import Memory

SAMPLE = 40
"""Finished runs of a variant whose duration is read at most: those that finished last."""
RECENT = 8
"""Finished runs from which the number of runs at once is measured."""
IDLE = 4
"""Runs at work that count as one at least, where starting them takes most of the time."""
OPEN = ("running", "queued", "preempted", "hung", "lost", "stopped")
"""States of a run that has not ended for good."""


@dataclass(frozen=True)
class Speed:
    """How long the runs of a variant take."""

    run: float
    """Seconds of a whole run."""
    doubt: float
    """Two standard errors of that, relative to it."""


@dataclass(frozen=True)
class Ended:
    """A run that is done."""

    variant: str
    seconds: float
    """From its only start to its end."""
    at: float
    """Unix time of its end."""


def left(
    runs: Sequence[RunState],
    more: Mapping[str, int],
    root: Path,
    memory: Memory,
    costs: Mapping[str, float],
) -> Left | None:
    """The time until all runs of one study have ended. None where none is at work, and as long as no run has
    finished an epoch.

    Args:
        more: variant -> runs that are expected, and have neither a folder nor a job.
        root: the study's folder.
        costs: variant -> relative cost, for variants without a finished epoch.
    """
    now = time.time()
    at_work = [run for run in runs if run.state == "running"]
    waiting = [run for run in runs if run.state in OPEN and run.state != "running"]
    if not at_work:
        return None
    ended = _ended(runs, root, memory, now)
    variants = {run.variant for run in (*at_work, *waiting)} | {name for name, count in more.items() if count}
    known = {name: speed for name in variants if (speed := _speed(runs, name, ended, root, memory))}
    if not known:
        return None
    unit = statistics.fmean(speed.run / costs.get(name, 1.0) for name, speed in known.items())
    seconds = {name: known[name].run if name in known else unit * costs.get(name, 1.0) for name in variants}
    begun = [_rest(run, seconds[run.variant], root, memory, now) for run in at_work]
    rest = [seconds[run.variant] * (1 - _share(run)) for run in waiting]
    rest += [seconds[name] for name, count in more.items() for _ in range(count)]
    total = (sum(begun) + sum(rest)) / _at_once(len(at_work), ended)
    longest = max(*begun, max(rest, default=0.0), 0.0)
    unsure = sum(one for name, one in seconds.items() if name not in known) / sum(seconds.values())
    doubt = 0.1 + max(speed.doubt for speed in known.values()) + 0.5 * unsure
    return Left.around(max(total, longest), min(2.0, doubt))


def _ended(runs: Iterable[RunState], root: Path, memory: Memory, now: float) -> list[Ended]:
    """Those of the finished runs that ended last, with one start only. The one that ended last comes
    last."""
    done = sorted((run for run in runs if run.state == "done" and run.begun), key=_age, reverse=True)
    of_variant: dict[str, int] = {}
    ended = []
    for run in reversed(done):
        of_variant[run.variant] = of_variant.get(run.variant, 0) + 1
        if of_variant[run.variant] > SAMPLE:
            continue
        begins, at = memory.begins(folder_of(root, run)), now - _age(run)
        if len(begins) == 1 and at > begins[0]:
            ended.append(Ended(run.variant, at - begins[0], at))
    return ended[::-1]


def _age(run: RunState) -> float:
    return run.age or 0.0


def _speed(
    runs: Iterable[RunState], variant: str, ended: Iterable[Ended], root: Path, memory: Memory
) -> Speed | None:
    """The speed of a variant: from its finished runs, else from the last epochs of its other runs."""
    if times := [one.seconds for one in ended if one.variant == variant]:
        mean = statistics.fmean(times)
        error = statistics.stdev(times) / mean / math.sqrt(len(times)) if len(times) > 1 else 0.15
        return Speed(mean, 2 * error)
    wholes = []
    for run in runs:
        if run.variant == variant and run.begun and run.epochs:
            seconds = (memory.last_epoch(folder_of(root, run)) or {}).get("seconds")
            if isinstance(seconds, int | float) and seconds > 0:
                wholes.append(seconds * run.epochs)
    return Speed(statistics.fmean(wholes), 0.5) if wholes else None


def _share(run: RunState) -> float:
    """The share of a run's epochs that are finished."""
    return min(1.0, run.epoch / run.epochs) if run.epochs else 0.0


def _rest(run: RunState, seconds: float, root: Path, memory: Memory, now: float) -> float:
    """Seconds that a run at work still takes, if a whole one takes `seconds`."""
    folder = folder_of(root, run)
    since = memory.epoch_ended(folder) or max(memory.begins(folder), default=now)
    in_epoch = min(max(0.0, now - since), seconds / max(1, run.epochs))
    return max(0.0, seconds * (1 - _share(run)) - in_epoch)


def _at_once(at_work: int, ended: Sequence[Ended]) -> float:
    """How many runs are trained at once on average. It is less than the number at work, since it takes time
    to start one."""
    last = ended[-RECENT:]
    span = last[-1].at - last[0].at if len(last) > 2 else 0.0
    if span <= 0:
        return float(at_work)
    measured = sum(one.seconds for one in last[1:]) / span
    return min(float(at_work), max(measured, at_work / IDLE))


def folder_of(root: Path, run: RunState) -> Path:
    """The folder of a run. `root`: the folder of its study."""
    return root / run.run_name
