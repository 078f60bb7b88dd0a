"""Two processes that work in turn, each with an environment of its own.

How a process deals with its memory is decided once per process, so what depends on it cannot be compared in
one. The one that waits is stopped by the system: its threads take no time of the other's. Short segments in
turn share the state of a machine that others use too.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pairs import Comparison

CHOOSERS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "OMP_", "GOMP_", "KMP_", "THP_")
"""Beginnings of the variables that processes do not inherit: each has a default environment."""
PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that a process gets when the one that started it ends."""


@dataclass(frozen=True)
class Segment:
    """What a process needed for some work."""

    seconds: float
    cpu_s: float
    """Processor seconds of all its threads, the system's for it included."""
    system_s: float
    """Those of the system."""
    faults: int
    """New pages of memory."""
    peak_gb: float
    """Most resident memory since the process began, in 10^9 bytes."""


class Worker:
    """A process that runs `serve`. It is stopped but for its turns."""

    def __init__(self, words: list[str], variables: Mapping[str, str]) -> None:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(CHOOSERS)}
        self._process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=kept | dict(variables),
        )
        self._turn()  # its start and its warm-up

    def segment(self) -> Segment:
        return Segment(**self._turn())

    def _turn(self) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self._process.args!r}: ended with code {self._process.wait()}")
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(answer)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def serve(work: Callable[[], None], warm: int = 2) -> None:
    """Do `work` `warm` times, and then once for each line of the standard input: one `Segment` each."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a stopped process would stay
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    sys.stdin.readline()
    for _ in range(warm):
        work()
    print(json.dumps({}), file=answers, flush=True)
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in sys.stdin:
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        now = resource.getrusage(resource.RUSAGE_SELF)
        system = now.ru_stime - before.ru_stime
        used = Segment(
            seconds,
            now.ru_utime - before.ru_utime + system,
            system,
            now.ru_minflt - before.ru_minflt,
            now.ru_maxrss * 1024 / 1e9,
        )
        before = now
        print(json.dumps(vars(used)), file=answers, flush=True)


@contextlib.contextmanager
def workers(*each: tuple[list[str], Mapping[str, str]]) -> Iterator[list[Worker]]:
    """A worker for each (words after python, variables of its environment)."""
    started: list[Worker] = []
    try:
        for words, variables in each:
            started.append(Worker(words, variables))
        yield started
    finally:
        for worker in started:
            worker.end()


def in_turn(ours: Worker, other: Worker, pairs: int) -> tuple[list[Segment], list[Segment]]:
    """`pairs` segments of each, who begins in turn."""
    a: list[Segment] = []
    b: list[Segment] = []
    for pair in range(pairs):
        for worker in (ours, other) if pair % 2 == 0 else (other, ours):
            (a if worker is ours else b).append(worker.segment())
    return a, b


def comparisons(
    question: str,
    names: tuple[str, str],
    segments: tuple[list[Segment], list[Segment]],
    images: int,
    goals: Mapping[str, dict[str, str]],
) -> list[Comparison]:
    """Speed, processor time and peak memory of segments of so many images each; prints a line for each.

    goals: `speed` and `memory` -> the goals of `Comparison`.
    """
    values: dict[tuple[str, str, str], Callable[[Segment], float]] = {
        ("speed", "{}", "images/s"): lambda segment: images / segment.seconds,
        ("cpu", "{}: processor time", "ms/image"): lambda segment: 1000 * segment.cpu_s / images,
        ("memory", "{}: peak memory", "GB"): lambda segment: segment.peak_gb,
    }
    for name, part in zip(names, segments, strict=True):
        faults, system = (
            sum(values) / len(part) / images
            for values in zip(*((s.faults, s.system_s) for s in part), strict=True)
        )
        print(f"  {name}: {faults:.0f} new pages and {1000 * system:.1f} ms of the system per image")
    measured = []
    for (name, title, unit), value in values.items():
        a, b = ([value(segment) for segment in part] for part in segments)
        if name == "memory":
            a, b = a[-1:], b[-1:]  # it only rises
        one = Comparison(title.format(question), *names, unit, goals.get(name, {}), a, b)
        print(one.line(), flush=True)
        measured.append(one)
    return measured
