"""A search in virtual time: a strategy trains on slots whose trials answer at once with a problem's curves.

Every epoch costs one, on any slot. The trials of a replay differ in speed by up to a quarter, so that slots
are not in step. A paused trial continues where it was.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from problems import EPOCHS, GRACE, Problem


@dataclass(frozen=True)
class Job:
    """A trial that a slot is to train from the epoch after `done`."""

    number: int
    configuration: Mapping[str, Any]
    done: int = 0


class Strategy(Protocol):
    def next(self) -> Job | None:
        """The next trial for a free slot. None: wait until another trial has reported, or, if none runs, the
        search is over."""

    def report(self, number: int, epoch: int, score: float) -> bool:
        """Take over a score of a running trial. Returns whether its slot goes on with it."""


def epochs_until_good(strategy: Strategy, problem: Problem, seed: int, slots: int, limit: int) -> int:
    """Epochs of all slots together until the chosen configuration is good; at most `limit`.

    The chosen one is that with the highest last score, of those that have reached the first rung (GRACE). So
    it is for all strategies.
    """
    speeds = np.random.default_rng([3, seed])
    running: list[tuple[float, int, int]] = []
    """(time of the next report, trial, its epochs until now), the earliest first."""
    pace: dict[int, float] = {}
    curves: dict[int, Any] = {}
    configurations: dict[int, Mapping[str, Any]] = {}
    last: dict[int, float] = {}
    now, chosen = 0.0, None
    for trained in range(1, limit + 1):
        while len(running) < slots and (job := strategy.next()) is not None:
            if job.number not in curves:
                configurations[job.number] = job.configuration
                curves[job.number] = problem.curve(job.configuration, seed)
                pace[job.number] = float(speeds.uniform(0.8, 1.25))
            heapq.heappush(running, (now + pace[job.number], job.number, job.done))
        if not running:
            return limit
        now, number, done = heapq.heappop(running)
        epoch = done + 1
        score = float(curves[number][epoch - 1])
        if epoch >= GRACE:
            last[number] = score
        if strategy.report(number, epoch, score):
            assert epoch < EPOCHS, "a trial goes on beyond its last epoch"
            heapq.heappush(running, (now + pace[number], number, epoch))
        if epoch < GRACE:
            continue
        best = max(last, key=lambda one: (last[one], -one))
        if best != chosen:
            chosen = best
            if problem.is_good(configurations[best]):
                return trained
    return limit
