"""Threads that follow the files of a run and tell its trackers.

A tracker reads what the run has written. There is no queue that could grow, and the training never waits for
a tracker but PATIENCE seconds at its end. An error of a tracker is a warning, once for each run.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from leukotree.errors import one_line
from leukotree.runtime import Runtime
from leukotree.trackers.metrics import About, Epoch, Epochs, scores

PATIENCE = 10.0
"""Seconds that the end of a run waits for its trackers."""


class Sink(Protocol):
    """Where a run's curves go."""

    def begin(self) -> None: ...
    def write(self, epoch: Epoch) -> None: ...
    def finish(self, scores: Mapping[str, float], epochs: int) -> None: ...
    def flush(self) -> None: ...
    def close(self, ended: bool) -> None: ...


def open_sink(tracker: str, folder: Path, about: About, runtime: Runtime) -> Sink:
    """The sink of a tracker. Its package is imported here."""
    if tracker == "tensorboard":
        from leukotree.trackers.tensorboard import TensorBoard

        return TensorBoard(folder, about)
    from leukotree.trackers.mlflow import MLflow

    return MLflow(str(runtime.mlflow_uri), about)


class Followers:
    """The trackers of one run. The main rank calls `wake` after it has written."""

    def __init__(self, folder: Path, runtime: Runtime, log: logging.Logger) -> None:
        self._followers = [_Follower(name, folder, runtime, log) for name in runtime.trackers]

    def wake(self) -> None:
        """Let the trackers read what is new."""
        for follower in self._followers:
            follower.wake()

    def close(self) -> None:
        """Let them read the last rows, and end them."""
        for follower in self._followers:
            follower.ask_to_end()
        for follower in self._followers:
            follower.wait()


class _Follower:
    """A thread that tells one tracker what is new."""

    _slow: set[str] = set()  # noqa: RUF012 - of this process
    """Trackers that have not ended in time: later runs do not wait for them."""

    def __init__(self, tracker: str, folder: Path, runtime: Runtime, log: logging.Logger) -> None:
        self._tracker, self._folder, self._runtime, self._log = tracker, folder, runtime, log
        self._due, self._ending, self._warned = threading.Event(), False, False
        self._sink: Sink | None = None
        self._epochs: Epochs | None = None
        self._finished = False
        self._thread = threading.Thread(target=self._work, name=tracker, daemon=True)
        self._thread.start()
        self.wake()

    def wake(self) -> None:
        self._due.set()

    def ask_to_end(self) -> None:
        self._ending = True
        self._due.set()

    def wait(self) -> None:
        self._thread.join(0 if self._tracker in self._slow else PATIENCE)
        if self._thread.is_alive():
            self._slow.add(self._tracker)
            self._warn("does not answer; it may lack the last values of this run")

    def _work(self) -> None:
        ending = False
        while not ending:
            self._due.wait()
            self._due.clear()
            ending = self._ending
            try:
                self._tell()
                if ending and self._sink:
                    self._sink.close(self._finished)
            except Exception as error:  # whatever a tracker does, the training goes on
                self._sink = None  # begins anew, since nobody knows what it has
                self._warn(one_line(error)[:300])

    def _tell(self) -> None:
        """Write what metrics.jsonl and the status have more than the sink."""
        if self._sink is None or self._epochs is None:
            about = About.read(self._folder)
            self._epochs, self._finished = Epochs(self._folder, about.begun), False
            sink = open_sink(self._tracker, self._folder, about, self._runtime)
            sink.begin()
            self._sink = sink
        for epoch in self._epochs.new():
            self._sink.write(epoch)
        ended = {} if self._finished else scores(self._folder)
        if ended:
            self._sink.finish(ended, self._epochs.count)
        self._sink.flush()
        self._finished = self._finished or bool(ended)

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._log.warning(f"{self._tracker}: {text}; the training goes on")
