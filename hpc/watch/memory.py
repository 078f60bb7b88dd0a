"""What a watcher has read before. A file is read again only if it has changed."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from hpc.launching import job_notes, run_states
from hpc.launching.run_states import RunState, Slurm
from hpc.search import search_states
from hpc.search.record import Record
from leukotree import files
from leukotree.records import attempts, runfolder, searchfolder

ENDED_SECONDS = 30.0
"""Seconds between two looks at a run that is done. Only a person changes it."""
SLURM_SECONDS = 10.0
"""Seconds between two questions to SLURM."""
TAIL = 2**16
"""Bytes at the end of metrics.jsonl in which the row of the last epoch is looked for."""
OF_SEARCH = (
    searchfolder.SETTINGS,
    searchfolder.DRAWS,
    searchfolder.HISTORY,
    searchfolder.RERUNS,
)
"""The files of a search's record."""

State = tuple[int, int, int]
"""What changes if a file is replaced or written again."""


class Memory(run_states.Reader):
    """Reads runs, searches and SLURM's queue, and remembers them."""

    def __init__(self) -> None:
        self._status: dict[Path, tuple[State | None, dict[str, Any], float]] = {}
        self._notes: dict[Path, tuple[State | None, dict[str, Any]]] = {}
        self._records: dict[Path, tuple[tuple[State | None, ...], Record | str]] = {}
        self._epochs: dict[Path, tuple[State | None, dict[str, Any] | None]] = {}
        self._begins: dict[Path, tuple[State | None, list[float]]] = {}
        self._slurm: tuple[float, Slurm] | None = None
        self.reads = 0
        """Files that were read so far."""

    def run(self, folder: Path, now: float) -> RunState:
        known = self._status.get(folder)
        if known and known[1].get("state") == "done" and now - known[2] < ENDED_SECONDS:
            return run_states.of_status(folder, known[1], now)
        state = _state(folder / runfolder.STATUS)
        if known is None or known[0] != state:
            self.reads += state is not None
            status = runfolder.read_status(folder) if state else {}
        else:
            status = known[1]
        self._status[folder] = state, status, now
        return run_states.of_status(folder, status, now)

    def notes(self, study: Path) -> dict[str, Any]:
        state = _state(study / job_notes.NOTES)
        if study not in self._notes or self._notes[study][0] != state:
            self.reads += state is not None
            self._notes[study] = state, job_notes.notes(study)
        return self._notes[study][1]

    def slurm(self) -> Slurm:
        now = time.monotonic()
        if self._slurm is None or now - self._slurm[0] > SLURM_SECONDS:
            self._slurm = now, Slurm()
        return self._slurm[1]

    def record(self, folder: Path) -> Record | str:
        """The record of a search by its folder, or why it cannot be read."""
        states = tuple(_state(folder / name) for name in OF_SEARCH)
        if folder not in self._records or self._records[folder][0] != states:
            self.reads += sum(state is not None for state in states)
            self._records[folder] = states, search_states.record_in(folder)
        return self._records[folder][1]

    def last_epoch(self, folder: Path) -> dict[str, Any] | None:
        """The row of the last epoch in a run's metrics.jsonl; None before the first has ended."""
        path = folder / runfolder.METRICS
        state = _state(path)
        if folder not in self._epochs or self._epochs[folder][0] != state:
            self.reads += state is not None
            self._epochs[folder] = state, _last_epoch(path) if state else None
        return self._epochs[folder][1]

    def epoch_ended(self, folder: Path) -> float | None:
        """Unix time at which a run's last epoch was written; None before the first has ended."""
        row, state = self.last_epoch(folder), self._epochs[folder][0]
        return state[2] / 1e9 if row and state else None

    def begins(self, folder: Path) -> list[float]:
        """Unix times of the starts of a run."""
        state = _state(folder / attempts.FILE)
        if folder not in self._begins or self._begins[folder][0] != state:
            self.reads += state is not None
            times = [row.get("started") for row in attempts.read(folder)]
            self._begins[folder] = state, [float(at) for at in times if isinstance(at, int | float)]
        return self._begins[folder][1]


def _state(path: Path) -> State | None:
    """None for a file that is not there."""
    try:
        return files.state(os.stat(path))
    except OSError:
        return None


def _last_epoch(path: Path) -> dict[str, Any] | None:
    """The last whole row of an epoch in the last TAIL bytes of a metrics.jsonl."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        for line in reversed(file.read(TAIL).splitlines()):
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and row.get("kind") == "epoch":
                    return row
    return None
