"""The record of a search: the trials that it drew, their scores, and how they ended. The files are the truth.
No Ray here.

`trials.jsonl` has a line for a trial before it starts, whenever it pauses or goes on, and when it has ended.
It has one if the search stops early. `history.csv` has a trial's score after each report. `reruns.jsonl` has
a line for each re-run that has ended. Which re-runs there are follows from the trials.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from hpc.search import extension, rungs
from hpc.studies import step_size
from hpc.studies.search_settings import Axis
from hpc.studies.study import SearchId, Study
from leukotree.errors import InputError
from leukotree.files import append_lines, write_atomic
from leukotree.records import searchfolder

State = Literal["completed", "stopped", "failed"]
"""Trained to its end; stopped early by the scheduler; cannot be trained."""


@dataclass
class Trial:
    """One trial of a search, or a re-run of one."""

    number: int
    chosen: dict[str, Any]
    """Dotted key -> its value."""
    seed: int | None = None
    """The fresh seed of a re-run. None for the trial itself."""
    scores: dict[int, float] = field(default_factory=dict)
    """Epoch or inner fold (from 1) -> macro-F1, the mean over the inner folds so far. A re-run has only the
    last one."""
    state: State | None = None
    """How it ended. None if it has not ended."""
    message: str | None = None
    """Why it failed."""
    seconds: float = 0.0
    """Seconds that the process which ended it spent on it, times its devices, and those before its pauses."""
    lost: int = 0
    """Processes that died under it since its last score."""
    until: int | None = None
    """The report after which it pauses. None: it trains to its end."""
    passed: int = 0
    """The report of the last rung from which it went on."""

    @property
    def last(self) -> int:
        """The number of its last report with a score; 0 if there is none."""
        return max(self.scores, default=0)

    @property
    def score(self) -> float | None:
        """Its last score."""
        return self.scores.get(self.last)

    @property
    def paused(self) -> bool:
        """Whether it waits for the others at a rung."""
        return self.state is None and self.until is not None and self.last >= self.until

    @property
    def halted(self) -> bool:
        """Whether it has reached a rung, where it paused."""
        return self.paused or self.passed > 0

    @property
    def active(self) -> bool:
        """Whether it has not ended, and is not paused."""
        return self.state is None and not self.paused


class Closed(NamedTuple):
    """Why a search draws no more trials (see `limits`), and how many it has then."""

    reason: str
    trials: int


class Record:
    """The trials of one search, read from its folder. What is added is on the disk before the call returns.

    Reading writes nothing. Raises InputError where the files do not fit the study: other keys, values outside
    of its space, a missing trial.
    """

    def __init__(self, study: Study, search_id: SearchId, folder: Path | None = None) -> None:
        """`folder`: the folder of the search. None for its usual folder in the study."""
        self.study, self.search_id, self.reports = study, search_id, study.reports
        self.most = study.trials(search_id.variant)
        """The number of trials that it draws."""
        self.closed: Closed | None = None
        """Set if it stops before the number that the study asks for."""
        self.folder = folder or study.search_folder(search_id)
        self._trials, self._history, self._reruns = (
            self.folder / name for name in (searchfolder.DRAWS, searchfolder.HISTORY, searchfolder.RERUNS)
        )
        self.trials: list[Trial] = []
        self.reruns: list[Trial] = []
        """Re-runs of the best trials, known once all trials have ended. Those of the best trial come
        first."""
        self.fresh_seeds = study.fresh_seeds(study.outer_number(search_id))
        """The seeds of the re-runs. A search whose re-runs began under version 0.1.0 keeps the seeds of that
        version."""
        self.reported: list[tuple[int, int, float]] = []
        """(trial, report, macro-F1) in the order in which they came."""
        self.reported_at: list[float] = []
        """Age of the search, in seconds, at each of these reports."""
        self.first_seconds = self.seconds = 0.0
        """Age of the search at its first score, and at its last."""
        self.final = False
        """Whether a trial went on only because no others follow, see `promote`."""
        self._later: dict[tuple[int, int], tuple[float, float]] = {}
        """(trial, report) -> (score, age) of reports that a trial made before the search was extended, and
        which it has not reached in the extended search."""
        if self._trials.exists():
            self._read()

    def _read(self) -> None:
        for line in extension.without_end(_lines(self._trials), self._pauses()):
            self._take(line)
        for row in searchfolder.read_history(self.folder):
            number, epoch, score = row["trial"], row["epoch"], row["macro_f1"]
            if not 0 <= number < len(self.trials) or not 1 <= epoch <= self.reports:
                problem = f"has epoch {epoch} of trial {number}, which is not in {self._trials.name}"
                raise _damaged(self._history, problem)
            trial = self.trials[number]
            if trial.until is not None and epoch > trial.until:
                self._later[number, epoch] = score, row["seconds"]
            elif epoch not in trial.scores:
                trial.scores[epoch] = score
                self._note(number, epoch, score, row["seconds"])
        for trial in self.trials:
            if trial.state == "completed" and trial.last != self.reports:
                problem = f"lacks the last score of trial {trial.number}, which completed"
                raise _damaged(self._history, problem)
        self._plan_reruns()

    def _note(self, number: int, epoch: int, score: float, seconds: float) -> None:
        if not self.reported:
            self.first_seconds = seconds
        self.seconds = max(self.seconds, seconds)
        self.reported.append((number, epoch, score))
        self.reported_at.append(seconds)

    def _take(self, line: Any) -> None:
        """Take over a line of trials.jsonl."""
        if isinstance(line, Mapping) and "closed" in line:
            if not isinstance(line.get("trials"), int):
                raise _damaged(self._trials, f"a search that stopped after {line.get('trials')!r} trials")
            self._close(Closed(str(line["closed"]), line["trials"]))
            return
        number = line.get("trial") if isinstance(line, Mapping) else None
        known = len(self.trials)
        if not isinstance(number, int) or not 0 <= number <= known or number >= self.most:
            raise _damaged(self._trials, f"trial {number!r} does not follow the {known} before it")
        if "chosen" in line:
            if number < known:
                raise _damaged(self._trials, f"trial {number} was drawn twice")
            if problem := _problem(self.study, line["chosen"], self.study.space(self.search_id.variant)):
                raise _damaged(self._trials, f"trial {number}: {problem}")
            self.trials.append(self._new(number, line["chosen"]))
            return
        if number < known and isinstance(line.get("until"), int) and self._pauses():
            self.final = self.final or bool(line.get("final"))
            self._go_on(self.trials[number], line["until"])
            return
        if number < known and "paused" in line:
            self.trials[number].seconds = float(line.get("seconds") or 0.0)
            return
        if number == known or line.get("state") not in get_args(State):
            problem = f"trial {number} ended as {line.get('state')!r}, which cannot be"
            raise _damaged(self._trials, problem)
        _set_end(self.trials[number], line)

    def _new(self, number: int, chosen: Mapping[str, Any]) -> Trial:
        return Trial(number, dict(chosen), until=rungs.first(self.study, self.search_id.variant, number))

    def _pauses(self) -> bool:
        """Whether trials of this search pause."""
        return bool(rungs.levels(self.study, self.search_id.variant))

    def _go_on(self, trial: Trial, until: int) -> None:
        """Let a trial train on. It has at once the scores of reports that it had made before."""
        trial.passed = trial.until or trial.passed
        trial.state, trial.until = None, until if until < self.reports else None
        known = [report for number, report in self._later if number == trial.number and report <= until]
        for report in sorted(known):
            score, seconds = self._later.pop((trial.number, report))
            trial.scores[report] = score
            self._note(trial.number, report, score, seconds)

    def ranked(self) -> list[Trial]:
        """The completed trials, the best first. Of equal ones the earlier comes first."""
        return sorted(
            (trial for trial in self.trials if trial.state == "completed"),
            key=lambda trial: (-trial.scores[trial.last], trial.number),
        )

    def _plan_reruns(self) -> None:
        """Once all trials have ended, list the re-runs of the best, with what reruns.jsonl knows of them."""
        if self.reruns or self.open_trials():
            return
        top = self.ranked()[: self.study.search.rerun_count(len(self.trials))]
        lines = list(_lines(self._reruns))
        earlier = self.study.fresh_seeds(None)
        if any(isinstance(line, Mapping) and line.get("seed") in earlier for line in lines):
            self.fresh_seeds = earlier
        self.reruns = [Trial(trial.number, trial.chosen, seed) for trial in top for seed in self.fresh_seeds]
        known = {(rerun.number, rerun.seed): rerun for rerun in self.reruns}
        for line in lines:
            key = (line.get("trial"), line.get("seed")) if isinstance(line, Mapping) else None
            ended = key in known and (line.get("state"), isinstance(line.get("score"), float))
            if ended not in (("completed", True), ("failed", False)):
                raise _damaged(self._reruns, f"has {line}, which is no re-run of the best trials")
            _set_end(known[key], line)  # type: ignore[index]
            if line["state"] == "completed":
                known[key].scores[self.reports] = line["score"]  # type: ignore[index]

    def draw(self, chosen: Mapping[str, Any]) -> Trial:
        """A new trial with these values."""
        trial = self._new(len(self.trials), chosen)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.trials:
            for path in (self._history, self._reruns):  # of a search whose trials.jsonl somebody removed
                path.unlink(missing_ok=True)
        append_lines(self._trials, [json.dumps({"trial": trial.number, "chosen": trial.chosen})])
        self.trials.append(trial)
        return trial

    def pause(self, trial: Trial, seconds: float) -> None:
        """Note what a trial has cost when it leaves its slot at a rung, as for `Trial.seconds`."""
        trial.seconds = round(seconds, 3)
        line = {"trial": trial.number, "paused": trial.last, "seconds": trial.seconds}
        append_lines(self._trials, [json.dumps(line)])

    def promote(self, trial: Trial, until: int | None, final: bool = False) -> None:
        """Note that a paused trial goes on. `until`: see `Trial.until`. `final`: it goes on only because no
        other trials follow; that is undone if the search is extended, with all that comes after."""
        self.final = self.final or final
        until = until or self.reports
        line = {"trial": trial.number, "until": until, "final": self.final}
        append_lines(self._trials, [json.dumps(line)])
        self._go_on(trial, until)

    def close(self, reason: str, trials: int) -> None:
        """Note that it draws no more than this many trials."""
        self.folder.mkdir(parents=True, exist_ok=True)
        append_lines(self._trials, [json.dumps({"closed": reason, "trials": trials})])
        self._close(Closed(reason, trials))
        self._plan_reruns()

    def _close(self, closed: Closed) -> None:
        self.closed, self.most = closed, max(len(self.trials), min(self.most, closed.trials))

    def find(self, number: int, seed: int | None) -> Trial:
        """The trial, or its re-run on a seed."""
        if seed is None:
            return self.trials[number]
        return next(rerun for rerun in self.reruns if (rerun.number, rerun.seed) == (number, seed))

    def report(self, trial: Trial, epoch: int, score: float, seconds: float) -> None:
        """Note a score, `seconds` after the search began. A known score changes nothing: a restarted trial
        replays its epochs. The score of a re-run is written when the re-run ends."""
        if epoch in trial.scores:
            return
        trial.scores[epoch], trial.lost = score, 0
        if trial.seed is None:
            line = f"{trial.number},{epoch},{score},{round(seconds, 3)}"
            if self.reported:
                append_lines(self._history, [line])
            else:  # replaces a header that a full disk has cut short
                write_atomic(self._history, f"{','.join(searchfolder.HISTORY_COLUMNS)}\n{line}\n")
            self._note(trial.number, epoch, score, seconds)

    def end(self, trial: Trial, state: State, message: str | None = None, seconds: float = 0.0) -> None:
        """Note how a trial ended. The first call counts."""
        if trial.state is not None:
            return
        trial.state, trial.message, trial.seconds = state, message, round(seconds, 3)
        line = {"trial": trial.number, "state": state, "message": message, "seconds": trial.seconds}
        if trial.seed is None:
            append_lines(self._trials, [json.dumps(line)])
            self._plan_reruns()
        else:
            score = trial.score if state == "completed" else None
            append_lines(self._reruns, [json.dumps({**line, "seed": trial.seed, "score": score})])

    def drop_checkpoints(self, trials: Iterable[Trial] | None = None) -> None:
        """Remove the checkpoints of those of the trials that were stopped or failed. None: of all trials."""
        folder = self.study.search_folder(self.search_id)
        for trial in self.trials if trials is None else trials:
            if trial.state in ("stopped", "failed"):
                searchfolder.drop_checkpoints(searchfolder.trial_folder(folder, trial.number))

    def drawn(self) -> bool:
        """Whether all of its trials are drawn."""
        return len(self.trials) >= self.most

    def ended(self) -> int:
        """The number of trials and re-runs that have ended."""
        return sum(trial.state is not None for trial in (*self.trials, *self.reruns))

    def open(self) -> int:
        """The number of trials and re-runs that have not ended, drawn or not."""
        return self.open_trials() + self.open_reruns()

    def open_reruns(self) -> int:
        """The number of re-runs that have not ended. Before all trials have ended, the most that there can
        be."""
        search = self.study.search
        most = search.rerun_count(self.most) * search.rerun_seeds
        return most if self.open_trials() else sum(rerun.state is None for rerun in self.reruns)

    def open_trials(self) -> int:
        """The number of trials that have not ended, drawn or not."""
        return self.most - sum(trial.state is not None for trial in self.trials)


def _damaged(path: Path, problem: str) -> InputError:
    return InputError(f"{path}: {problem}; rename the study, or move the folder away")


def _lines(path: Path) -> Iterator[Any]:
    """The objects of a log. A line that a kill cut short is left out: what it announces did not happen."""
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def _set_end(trial: Trial, line: Mapping[str, Any]) -> None:
    trial.state, trial.message = line["state"], line.get("message")
    trial.seconds = float(line.get("seconds") or 0.0)


def _problem(study: Study, chosen: Any, space: Mapping[str, Axis]) -> str | None:
    """What is wrong with the values of a trial; None if nothing is."""
    if not isinstance(chosen, Mapping) or set(chosen) != set(space):
        keys = sorted(chosen) if isinstance(chosen, Mapping) else chosen
        return f"has values of {keys}, but the study searches {sorted(space)}"
    values = step_size.reference(study, chosen)
    for key, axis in space.items():
        value = values[key]
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
