"""The record of a search: which trials a variant drew, what they scored, how they ended. The files are the truth; no Ray here.

`trials.jsonl` has a line for a trial before it starts, and one when it has ended; `history.csv` has its score after each epoch.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from hpc import history
from hpc.study import Axis, Study
from leukotree.errors import InputError, Kind
from leukotree.files import append_lines

State = Literal["completed", "stopped", "failed"]
"""Trained to its last epoch; stopped by the scheduler; cannot be trained."""
LOSSES = 3
"""How many processes a trial may lose before it counts as failed."""


@dataclass
class Trial:
    """One trial of a variant."""

    number: int
    chosen: dict[str, Any]
    """Dotted key -> its value."""
    scores: dict[int, float] = field(default_factory=dict)
    """Epoch (from 1) -> macro-F1, the mean over the inner folds."""
    state: State | None = None
    """How it ended; None if it has not."""
    message: str | None = None
    """Why it failed."""
    seconds: float = 0.0
    """What the process that ended it spent on it."""
    lost: int = 0
    """Processes that died under it."""

    @property
    def last(self) -> int:
        """Its last epoch with a score."""
        return max(self.scores, default=0)


class Record:
    """The trials of one variant, read from its folder; what is added is on the disk before the call returns.

    Raises InputError where the files do not fit the study: other keys, values outside of its space, a trial left out.
    """

    def __init__(self, study: Study, variant: str) -> None:
        self.variant, self.epochs = variant, study.base.optim.epochs
        folder = study.search_folder(variant)
        self._drawn, self._history = folder / "trials.jsonl", folder / "history.csv"
        self.trials: list[Trial] = []
        self.reported: list[tuple[int, int, float]] = []
        """(trial, epoch, macro-F1) in the order in which they came."""
        self.seconds = 0.0
        """Age of the search at its last score."""
        if self._drawn.exists():
            self._read(study)
        else:
            self._history.unlink(missing_ok=True)  # of a search whose record somebody removed

    def _read(self, study: Study) -> None:
        with open(self._drawn) as file:
            for line in file:
                # A line that a kill cut short says nothing: what it was to announce did not happen.
                with contextlib.suppress(json.JSONDecodeError):
                    self._take(json.loads(line), study)
        for row in history.read(self._history):
            number, epoch, score = row["trial"], row["epoch"], row["macro_f1"]
            if not 0 <= number < len(self.trials) or not 1 <= epoch <= self.epochs:
                raise self._damaged(self._history, f"has epoch {epoch} of trial {number}, which {self._drawn.name} does not know")
            if epoch not in self.trials[number].scores:
                self.trials[number].scores[epoch] = score
                self.reported.append((number, epoch, score))
            self.seconds = max(self.seconds, row["seconds"])

    def _take(self, line: Any, study: Study) -> None:
        number = line.get("trial") if isinstance(line, Mapping) else None
        if not isinstance(number, int) or not 0 <= number <= len(self.trials) or number >= study.search.trials:
            raise self._damaged(self._drawn, f"trial {number!r} does not follow the {len(self.trials)} before it")
        if "chosen" in line:
            if number < len(self.trials):
                raise self._damaged(self._drawn, f"trial {number} was drawn twice")
            if problem := _problem(line["chosen"], study.search.space):
                raise self._damaged(self._drawn, f"trial {number}: {problem}")
            self.trials.append(Trial(number, dict(line["chosen"])))
            return
        if number == len(self.trials) or line.get("state") not in get_args(State):
            raise self._damaged(self._drawn, f"trial {number} ended as {line.get('state')!r}, which cannot be")
        trial = self.trials[number]
        trial.state, trial.message, trial.seconds = line["state"], line.get("message"), float(line.get("seconds") or 0.0)

    @staticmethod
    def _damaged(path: Path, problem: str) -> InputError:
        return InputError(f"{path}: {problem}; rename the study, or move the folder away")

    def draw(self, chosen: Mapping[str, Any]) -> Trial:
        """A new trial with these values."""
        trial = Trial(len(self.trials), dict(chosen))
        self._drawn.parent.mkdir(parents=True, exist_ok=True)
        append_lines(self._drawn, [json.dumps({"trial": trial.number, "chosen": trial.chosen})])
        self.trials.append(trial)
        return trial

    def report(self, trial: Trial, epoch: int, score: float, seconds: float) -> None:
        """The score after an epoch, `seconds` after the search began. One that is known (a trial that was started again
        replays its epochs) changes nothing."""
        if epoch in trial.scores:
            return
        head = [] if self._history.exists() else [",".join(history.COLUMNS)]
        append_lines(self._history, [*head, f"{trial.number},{epoch},{score},{round(seconds, 3)}"])
        trial.scores[epoch] = score
        self.reported.append((trial.number, epoch, score))

    def end(self, trial: Trial, state: State, message: str | None = None, seconds: float = 0.0) -> None:
        """Note how a trial ended."""
        if trial.state is not None:
            return
        trial.state, trial.message, trial.seconds = state, message, round(seconds, 3)
        line = {"trial": trial.number, "state": state, "message": message, "seconds": trial.seconds}
        append_lines(self._drawn, [json.dumps(line)])


def _problem(chosen: Any, space: Mapping[str, Axis]) -> str | None:
    """What is wrong with the values of a trial, if anything."""
    if not isinstance(chosen, Mapping) or set(chosen) != set(space):
        found = sorted(chosen) if isinstance(chosen, Mapping) else chosen
        return f"has values of {found}, but the study searches {sorted(space)}"
    for key, axis in space.items():
        value = chosen[key]
        if axis.choice is not None:
            if repr(value) not in map(repr, axis.choice):
                return f"{key}={value!r} is none of {axis.choice}"
        elif isinstance(value, bool) or not isinstance(value, int | float) or not axis.bounds[0] <= value <= axis.bounds[1]:
            return f"{key}={value!r} is not in [{axis.bounds[0]:g}, {axis.bounds[1]:g}]"
    return None


class Progress:
    """What a sweep has done and has still to do: all trials of the first variant, then all of the next."""

    def __init__(self, study: Study, records: Mapping[str, Record]) -> None:
        """`records`: variant -> its record. What a kill left unsaid is said: a trial that reached its last epoch is completed."""
        self.study, self.records = study, dict(records)
        self.left: tuple[Kind, str] | None = None
        """(kind, message) of what makes the whole sweep leave, such as a signal to a trial's process."""
        self.running: set[tuple[str, int]] = set()
        """(variant, trial) of those that have not said that they left."""
        self._began = time.time() - max((record.seconds for record in records.values()), default=0.0)
        for record in self.records.values():
            for trial in record.trials:
                if trial.state is None and trial.last == record.epochs:
                    record.end(trial, "completed")

    def open(self) -> int:
        """How many trials have not ended, drawn or not."""
        return self.study.search.trials * len(self.records) - self.ended()

    def ended(self) -> int:
        """How many trials have ended."""
        return sum(trial.state is not None for record in self.records.values() for trial in record.trials)

    def next(self) -> tuple[Record, Trial | None] | None:
        """A trial to run: one that was drawn and has not ended, before None, which says to draw one. None at all if there is
        nothing to do until one that runs has ended."""
        for record in self.records.values():
            for trial in record.trials:
                if trial.state is None and (record.variant, trial.number) not in self.running:
                    return record, trial
            if len(record.trials) < self.study.search.trials:
                return record, None
        return None

    def started(self, record: Record, trial: Trial) -> None:
        self.running.add((record.variant, trial.number))

    def report(self, record: Record, trial: Trial, epoch: int, score: float) -> None:
        """A trial has scored after an epoch."""
        record.report(trial, epoch, score, time.time() - self._began)

    def gone(self, record: Record, trial: Trial, died: bool) -> None:
        """A trial runs no more. If it has not ended it will run again, but for one that has lost too many processes."""
        self.running.discard((record.variant, trial.number))
        if died and trial.state is None:
            trial.lost += 1
            if trial.lost >= LOSSES:
                record.end(trial, "failed", f"its process died {trial.lost} times")
