"""How far the searches of a study are, read from their folders without Ray."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from hpc.launching import run_states
from hpc.launching.run_states import RunState
from hpc.search import choice, pace
from hpc.search.pace import Left
from hpc.search.record import Record, Trial
from hpc.studies.study import SearchId, Study
from leukotree import files, yamlfile
from leukotree.config import parse
from leukotree.errors import InputError, RunFailed, one_line
from leukotree.records import compared, searchfolder


@dataclass(frozen=True)
class SearchState:
    """The state of one search. A trial is running, waiting (for a slot, to be continued, or at a rung for the
    others), interrupted (begun, but no sweep runs) or ended."""

    study: str
    search: str
    """The variant, and with nested searches the outer fold: "flat" or "flat/fold0"."""
    state: str
    """ended (its values are chosen), running, waiting (its sweep runs another search, or is queued) or
    interrupted."""
    ended: int
    """Trials that have ended: completed, stopped or failed."""
    trials: int | None
    """All trials. None if search.yaml cannot be read."""
    failed: int = 0
    reruns_ended: int = 0
    reruns: int = 0
    """All re-runs. Before all trials have ended, the most that there can be."""
    running: int = 0
    waiting: int = 0
    interrupted: int = 0
    epoch: int | None = None
    """Epoch of the most advanced running trial, from 1. `epochs` is its last one."""
    epochs: int | None = None
    best: float | None = None
    """The score that decides what the search would choose now (see `choice.current`)."""
    metric: str = "macro_f1"
    seconds_left: float | None = None
    """Approximate time until all searches of the study have ended. None if it is not known."""
    seconds_left_low: float | None = None
    seconds_left_high: float | None = None
    """The range of this time."""
    closed: str = ""
    """Why it stopped before the study's number of trials, which `trials` then is not. Empty if it did not."""
    folder: str = ""
    problem: str = ""
    """Why its files cannot be read."""
    stale: str = ""
    """Why its scores do not belong to today's data or weights. Empty if they do, or if these are not here."""

    @property
    def left(self) -> Left | None:
        """The time until all searches of the study have ended, with its range."""
        if self.seconds_left is None or self.seconds_left_low is None or self.seconds_left_high is None:
            return None
        return Left(self.seconds_left, self.seconds_left_low, self.seconds_left_high)


Read = Callable[[Path], "Record | str"]
"""Gives the record of a search by its folder, or why it cannot be read."""


def read(root: str | Path, queued: Collection[str] = ()) -> list[SearchState]:
    """The searches of a study's folder, or of all studies if `root` holds the studies' folders. `queued`:
    studies whose search has a pending job."""
    return [
        state
        for sweep, folders in searchfolder.find(Path(root)).items()
        for state in of_study(sweep, folders, sweep.parent.name in queued)
    ]


def of_study(
    sweep: Path, folders: Iterable[Path], queued: bool, record_of: Read | None = None
) -> list[SearchState]:
    """The searches of one study. `sweep`: its sweep's folder, `folders`: those of the searches that have
    begun. `record_of`: None reads the files."""
    records: dict[Path, Record | str] = {folder: (record_of or record_in)(folder) for folder in folders}
    held = files.held(sweep / searchfolder.LOCK)
    states = [_state(sweep, folder, record, held) for folder, record in records.items()]
    if held is None:  # a lock of another host may be invisible here; its running trials are visible
        held = any(state.running for state in states)
    left = _left(records) if held else None
    states = [state if state.state == "ended" else _with_state(state, held, queued, left) for state in states]
    return [state if state.problem else replace(state, stale=_stale(Path(state.folder))) for state in states]


def _left(records: dict[Path, Record | str]) -> Left | None:
    """The time until all of these searches have ended, from now on."""
    known = [record for record in records.values() if isinstance(record, Record)]
    times = []
    for folder in records:
        with contextlib.suppress(OSError):
            times.append((folder / searchfolder.HISTORY).stat().st_mtime)
    idle = max(0, int(time.time() - max(times))) if times else 0
    if not known:
        return None
    costs = pace.costs_of(known[0].study, {record.search_id.variant for record in known})
    return pace.left(known, costs, idle)


def _stale(folder: Path) -> str:
    try:
        return str(compared.changed_search(folder) or "")
    except (InputError, RunFailed) as error:
        return one_line(error)


def _with_state(state: SearchState, held: bool, queued: bool, left: Left | None) -> SearchState:
    """A search that has not ended, with its state. `held`: whether a sweep runs on the study."""
    if not held:
        begun = state.interrupted + state.running
        now = "waiting" if queued else "interrupted"
        return replace(state, state=now, running=0, interrupted=begun, epoch=None, epochs=None)
    waiting = state.waiting + state.interrupted  # they continue when a slot is free
    now = "running" if state.running else "waiting"
    state = replace(state, state=now, waiting=waiting, interrupted=0)
    if left is None:
        return state
    return replace(state, seconds_left=left.seconds, seconds_left_low=left.low, seconds_left_high=left.high)


def record_in(folder: Path) -> Record | str:
    """The record of a search, or why it cannot be read."""
    path = folder / searchfolder.SETTINGS
    try:
        tree = yamlfile.load(path)
        if not isinstance(tree, dict):
            return f"{path}: holds no settings of a search"
        tree.pop(searchfolder.DATASET, None)
        place = tree.pop(searchfolder.TEST_FOLD, 0), tree.pop(searchfolder.REPEAT, 0)
        search_id = SearchId(searchfolder.variant_of(folder), *place)
        return Record(parse(Study, tree, str(path)), search_id, folder)
    except InputError as error:
        return str(error)


def _state(sweep: Path, folder: Path, record: Record | str, held: bool | None) -> SearchState:
    """A search with its counts; `state` is empty unless it has ended."""
    ended = (folder / searchfolder.BEST).exists()
    name, study = folder.relative_to(sweep).as_posix(), sweep.parent.name
    if isinstance(record, str):
        return SearchState(study, name, "ended" if ended else "", 0, None, folder=str(folder), problem=record)
    current = choice.current(record)
    state = SearchState(
        study,
        name,
        "ended" if ended else "",
        sum(trial.state is not None for trial in record.trials),
        record.most,
        sum(trial.state == "failed" for trial in record.trials),
        sum(rerun.state is not None for rerun in record.reruns),
        len(record.reruns) or record.open_reruns(),
        best=current[1] if current else None,
        metric=record.study.search.metric,
        closed=record.closed.reason if record.closed else "",
        folder=str(folder),
    )
    return state if ended else _with_open_trials(state, folder, record, held)


def _with_open_trials(state: SearchState, folder: Path, record: Record, held: bool | None) -> SearchState:
    """A search with the counts of its trials that have not ended."""
    open_trials = [trial for trial in (*record.trials, *record.reruns) if trial.active]
    runs = [runs_of(record, folder, trial) for trial in open_trials]
    running = [
        of_trial for of_trial in runs if held is not False and any(run.state == "running" for run in of_trial)
    ]
    begun = sum(any(run.begun for run in of_trial) for of_trial in runs)
    epochs = [
        (min(run.epoch + 1, run.epochs), run.epochs)
        for of_trial in running
        for run in of_trial
        if run.state == "running"
    ]
    epoch, last = max(epochs, default=(None, None))
    return replace(
        state,
        running=len(running),
        interrupted=begun - len(running),
        waiting=record.open_trials() + record.open_reruns() - begun,
        epoch=epoch,
        epochs=last,
    )


def runs_of(record: Record, folder: Path, trial: Trial) -> list[RunState]:
    """The runs of a trial or re-run that have begun."""
    runs = searchfolder.trial_folder(folder, trial.number, rerun=trial.seed is not None)
    if not runs.is_dir():
        return []
    search_id, now = record.search_id, time.time()
    place = search_id.test_fold, trial.seed, search_id.repeat
    specs = record.study.trial_specs(search_id.variant, trial.chosen, *place)
    states = [run_states.read(runs / spec.run_name, now) for spec in specs]
    return [state for state in states if state.begun]
