"""A run's curves as a file of events in its folder, for TensorBoard."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from leukotree.trackers.metrics import About, Epoch, Point

FOLDER = "tensorboard"
"""In the folder of a run."""
PREFIX = "events.out.tfevents."
VERSION = "brain.Event:2"


class TensorBoard:
    """The file of events of one attempt. It begins with all earlier epochs, which are read from metrics.jsonl
    again, and replaces the files of earlier attempts. So no value is there twice."""

    def __init__(self, folder: Path, about: About) -> None:
        self._about, self._end = about, about.begun
        self._folder = folder / FOLDER
        self._folder.mkdir(exist_ok=True)
        for left in self._folder.glob(".*.tmp"):  # by a process that was killed
            left.unlink(missing_ok=True)
        self._path = self._folder / f".{os.getpid()}.tmp"
        self._writer = RecordWriter(str(self._path))
        self._named = False
        self._event(file_version=VERSION)
        # A TensorBoard that has read an earlier file drops what it knows from step 0 on.
        self._event(session_log=SessionLog(status=SessionLog.START), step=0)

    def begin(self) -> None:
        """Write the spec."""
        experiment, start, self._finished = summary.hparams(
            self._about.parameters, {"epoch/macro_f1": None, "final/macro_f1": None}
        )
        for one in (experiment, start):
            self._event(summary=one)
        self._event(summary=summary.text("spec", self._table()))

    def _table(self) -> str:
        lines = [
            f"| {key} | {str(value).replace('|', ' ')} |" for key, value in self._about.parameters.items()
        ]
        return "\n".join(["| key | value |", "| --- | --- |", *lines])

    def write(self, epoch: Epoch) -> None:
        """Add an epoch."""
        for point in (*epoch.of_steps, *epoch.of_epoch):
            self._point(point)

    def _point(self, point: Point) -> None:
        self._end = max(self._end, point.at)
        self._event(summary=summary.scalar(point.name, point.value), step=point.step, at=point.at)

    def finish(self, scores: Mapping[str, float], epochs: int) -> None:
        """Add the scores of a finished run, at its last epoch."""
        for name, value in scores.items():
            self._point(Point(f"final/{name}", epochs, value, self._end))
        self._event(summary=self._finished)

    def flush(self) -> None:
        """Show what was written so far."""
        self._writer.flush()
        if not self._named:
            self._replace()

    def _replace(self) -> None:
        """Give the file its name, and remove those of earlier attempts."""
        before = list(self._folder.glob(f"{PREFIX}*"))
        last = max((int(part) for path in before if (part := path.name.split(".")[3]).isdecimal()), default=0)
        path = self._folder / f"{PREFIX}{max(int(time.time()), last + 1):010d}.run"
        os.replace(self._path, path)
        self._named = True
        for old in before:
            old.unlink(missing_ok=True)

    def close(self, ended: bool) -> None:
        """Close the file. `ended`: whether the run is done."""
        self._writer.close()
        if not self._named:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _event(self, step: int = 0, at: float | None = None, **content: Any) -> None:
        event = Event(wall_time=self._end if at is None else at, step=step, **content)
        self._writer.write(event.SerializeToString())
