"""The record of a search: which trials it drew, what they scored, how they ended. The files are the truth; no
Ray here.

`trials.jsonl` has a line for a trial before it starts, and one when it has ended; `history.csv` has its score
after each report;
`reruns.jsonl` has a line for each re-run that has ended. Which re-runs there are follows from the trials.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from hpc.studies.search_settings import Axis
from hpc.studies.study import SearchId, Study
from leukotree.errors import InputError, Kind
from leukotree.files import append_lines, write_atomic
from leukotree.records import searchfolder

State = Literal["completed", "stopped", "failed"]
"""Trained to its end; stopped by the scheduler; cannot be trained."""
LOSSES, LOSSES_OF_WORKERS = 3, 20
"""How many processes a trial may lose, without a score in between, before it counts as failed; and how many
where workers come and go, as a lost process mostly means a worker that left."""


@dataclass
class Trial:
    """One trial of a search, or a re-run of one."""

    number: int
    chosen: dict[str, Any]
    """Dotted key -> its value."""
    seed: int | None = None
    """Of a re-run: its fresh seed. None for the trial itself."""
    scores: dict[int, float] = field(default_factory=dict)
    """Epoch or inner fold (from 1) -> macro-F1, the mean over the inner folds so far. Of a re-run the last
    one only."""
    state: State | None = None
    """How it ended; None if it has not."""
    message: str | None = None
    """Why it failed."""
    seconds: float = 0.0
    """What the process that ended it spent on it, times the devices that it took."""
    lost: int = 0
    """Processes that died under it since its last score."""

    @property
    def last(self) -> int:
        """Its last report with a score."""
        return max(self.scores, default=0)

    @property
    def score(self) -> float | None:
        """The last one."""
        return self.scores.get(self.last)


class Record:
    """The trials of one search, read from its folder; what is added is on the disk before the call returns.

    Reading writes nothing. Raises InputError where the files do not fit the study: other keys, values outside
    of its space, a trial left out.
    """

    def __init__(self, study: Study, search_id: SearchId, folder: Path | None = None) -> None:
        """`folder`: where it lies; None for the search's own place in its study."""
        self.study, self.search_id, self.reports = study, search_id, study.reports
        folder = folder or study.search_folder(search_id)
        self._drawn, self._history, self._again = (
            folder / name for name in (searchfolder.DRAWS, searchfolder.HISTORY, searchfolder.RERUNS)
        )
        self.trials: list[Trial] = []
        self.reruns: list[Trial] = []
        """Of the best trials, once all have ended; those of the best one first."""
        self.reported: list[tuple[int, int, float]] = []
        """(trial, report, macro-F1) in the order in which they came."""
        self.first_seconds = self.seconds = 0.0
        """Age of the search at its first score, and at its last."""
        if self._drawn.exists():
            self._read()

    def _read(self) -> None:
        for line in _lines(self._drawn):
            self._take(line)
        for row in searchfolder.read_history(self._history.parent):
            number, epoch, score = row["trial"], row["epoch"], row["macro_f1"]
            if not 0 <= number < len(self.trials) or not 1 <= epoch <= self.reports:
                raise self._damaged(
                    self._history,
                    f"has epoch {epoch} of trial {number}, which {self._drawn.name} does not know",
                )
            if epoch not in self.trials[number].scores:
                self.trials[number].scores[epoch] = score
                self._note(number, epoch, score, row["seconds"])
        for trial in self.trials:
            if trial.state == "completed" and trial.last != self.reports:
                raise self._damaged(
                    self._history, f"has not the last score of trial {trial.number}, which completed"
                )
        self._plan_reruns()

    def _note(self, number: int, epoch: int, score: float, seconds: float) -> None:
        if not self.reported:
            self.first_seconds = seconds
        self.seconds = max(self.seconds, seconds)
        self.reported.append((number, epoch, score))

    def _take(self, line: Any) -> None:
        number = line.get("trial") if isinstance(line, Mapping) else None
        if (
            not isinstance(number, int)
            or not 0 <= number <= len(self.trials)
            or number >= self.study.search.trials
        ):
            raise self._damaged(
                self._drawn, f"trial {number!r} does not follow the {len(self.trials)} before it"
            )
        if "chosen" in line:
            if number < len(self.trials):
                raise self._damaged(self._drawn, f"trial {number} was drawn twice")
            if problem := _problem(line["chosen"], self.study.space(self.search_id.variant)):
                raise self._damaged(self._drawn, f"trial {number}: {problem}")
            self.trials.append(Trial(number, dict(line["chosen"])))
            return
        if number == len(self.trials) or line.get("state") not in get_args(State):
            raise self._damaged(
                self._drawn, f"trial {number} ended as {line.get('state')!r}, which cannot be"
            )
        _set_end(self.trials[number], line)

    @staticmethod
    def _damaged(path: Path, problem: str) -> InputError:
        return InputError(f"{path}: {problem}; rename the study, or move the folder away")

    def best(self) -> list[Trial]:
        """The completed trials, the best first; of equal ones the earlier."""
        return sorted(
            (trial for trial in self.trials if trial.state == "completed"),
            key=lambda t: (-t.scores[t.last], t.number),
        )

    def _plan_reruns(self) -> None:
        """Once all trials have ended, the best of them are to be run again; what is on the disk of that is
        taken."""
        if self.reruns or self.open_trials():
            return
        top = self.best()[: self.study.search.rerun_top]
        self.reruns = [
            Trial(trial.number, trial.chosen, seed) for trial in top for seed in self.study.fresh_seeds
        ]
        known = {(rerun.number, rerun.seed): rerun for rerun in self.reruns}
        for line in _lines(self._again):
            place = (line.get("trial"), line.get("seed")) if isinstance(line, Mapping) else None
            ended = place in known and (line.get("state"), isinstance(line.get("score"), float))
            if ended not in (("completed", True), ("failed", False)):
                raise self._damaged(self._again, f"has {line}, which is no re-run of the best trials")
            _set_end(known[place], line)  # type: ignore[index]
            if line["state"] == "completed":
                known[place].scores[self.reports] = line["score"]  # type: ignore[index]

    def draw(self, chosen: Mapping[str, Any]) -> Trial:
        """A new trial with these values."""
        trial = Trial(len(self.trials), dict(chosen))
        self._drawn.parent.mkdir(parents=True, exist_ok=True)
        if not self.trials:
            for path in (self._history, self._again):  # of a search whose record somebody removed
                path.unlink(missing_ok=True)
        append_lines(self._drawn, [json.dumps({"trial": trial.number, "chosen": trial.chosen})])
        self.trials.append(trial)
        return trial

    def find(self, number: int, seed: int | None) -> Trial:
        """The trial, or its re-run on a seed."""
        if seed is None:
            return self.trials[number]
        return next(rerun for rerun in self.reruns if (rerun.number, rerun.seed) == (number, seed))

    def report(self, trial: Trial, epoch: int, score: float, seconds: float) -> None:
        """A score, `seconds` after the search began. One that is known (a trial that was started again
        replays its epochs) changes nothing. That of a re-run is noted when it ends."""
        if epoch in trial.scores:
            return
        trial.scores[epoch], trial.lost = score, 0
        if trial.seed is None:
            line = f"{trial.number},{epoch},{score},{round(seconds, 3)}"
            if self.reported:
                append_lines(self._history, [line])
            else:  # with its header; a full disk may have left a part of one
                write_atomic(self._history, f"{','.join(searchfolder.HISTORY_COLUMNS)}\n{line}\n")
            self._note(trial.number, epoch, score, seconds)

    def end(self, trial: Trial, state: State, message: str | None = None, seconds: float = 0.0) -> None:
        """Note how a trial ended."""
        if trial.state is not None:
            return
        trial.state, trial.message, trial.seconds = state, message, round(seconds, 3)
        line = {"trial": trial.number, "state": state, "message": message, "seconds": trial.seconds}
        if trial.seed is None:
            append_lines(self._drawn, [json.dumps(line)])
            self._plan_reruns()
        else:
            score = trial.score if state == "completed" else None
            append_lines(self._again, [json.dumps({**line, "seed": trial.seed, "score": score})])

    def drop_checkpoints(self) -> None:
        """Remove those of trials that were stopped or failed."""
        folder = self.study.search_folder(self.search_id)
        for trial in self.trials:
            if trial.state in ("stopped", "failed"):
                searchfolder.drop_checkpoints(searchfolder.trial_folder(folder, trial.number))

    def ended(self) -> int:
        """How many trials and re-runs have ended."""
        return sum(trial.state is not None for trial in (*self.trials, *self.reruns))

    def open(self) -> int:
        """How many have not, drawn or not; the re-runs of trials that are still to complete are guessed."""
        return self.open_trials() + self.open_reruns()

    def open_reruns(self) -> int:
        """How many re-runs have not ended; guessed as above."""
        search = self.study.search
        guessed = min(search.rerun_top, search.trials) * search.rerun_seeds
        return guessed if self.open_trials() else sum(rerun.state is None for rerun in self.reruns)

    def open_trials(self) -> int:
        """How many trials have not ended, drawn or not."""
        return self.study.search.trials - sum(trial.state is not None for trial in self.trials)


def _lines(path: Path) -> Iterator[Any]:
    """The objects of a log. A line that a kill cut short says nothing: what it was to announce did not
    happen."""
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def _set_end(trial: Trial, line: Mapping[str, Any]) -> None:
    trial.state, trial.message, trial.seconds = (
        line["state"],
        line.get("message"),
        float(line.get("seconds") or 0.0),
    )


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
        elif (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not axis.bounds[0] <= value <= axis.bounds[1]
        ):
            return f"{key}={value!r} is not in [{axis.bounds[0]:g}, {axis.bounds[1]:g}]"
    return None


class Progress:
    """What a sweep has done and has still to do: all trials of the first search and its re-runs, then all of
    the next. Nobody waits for the last trials of a search: the next one begins meanwhile."""

    def __init__(self, study: Study, records: Iterable[Record]) -> None:
        """What a kill left unsaid is said: a trial that reached its last report is completed."""
        self.study, self.records = study, {record.search_id: record for record in records}
        self.left: tuple[Kind, str] | None = None
        """(kind, message) of what makes the whole sweep leave, such as a signal to a trial's process."""
        self.running: set[tuple[SearchId, int, int | None]] = set()
        """(search, trial, seed of a re-run) of those that have not said that they left."""
        self._began = time.time() - max((record.seconds for record in self.records.values()), default=0.0)
        for record in self.records.values():
            for trial in record.trials:
                if trial.state is None and trial.last == record.reports:
                    record.end(trial, "completed")

    def open(self) -> int:
        """How many trials and re-runs have not ended, drawn or not."""
        return sum(record.open() for record in self.records.values())

    def ended(self) -> int:
        """How many trials and re-runs have ended."""
        return sum(record.ended() for record in self.records.values())

    def next(self) -> tuple[Record, Trial | None] | None:
        """A trial to run: one that was drawn and has not ended, before None, which says to draw one. None at
        all if there is nothing to do until one that runs has ended."""
        for record in self.records.values():
            for trial in (*record.trials, *record.reruns):
                if trial.state is None and (record.search_id, trial.number, trial.seed) not in self.running:
                    return record, trial
            if len(record.trials) < self.study.search.trials:
                return record, None
        return None

    def started(self, record: Record, trial: Trial) -> None:
        self.running.add((record.search_id, trial.number, trial.seed))

    def report(self, record: Record, trial: Trial, epoch: int, score: float) -> None:
        """A trial has scored after an epoch, or an inner fold."""
        record.report(trial, epoch, score, time.time() - self._began)

    def gone(self, record: Record, trial: Trial, died: bool, most: int = LOSSES) -> None:
        """A trial runs no more. If it has not ended it will run again, but for one that has lost `most`
        processes."""
        self.running.discard((record.search_id, trial.number, trial.seed))
        if died and trial.state is None:
            trial.lost += 1
            if trial.lost >= most:
                record.end(trial, "failed", f"its process died {trial.lost} times")
