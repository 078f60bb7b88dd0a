"""How far the searches of a study are: what their folders say, read without Ray."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from hpc.launching import run_states
from hpc.launching.run_states import RunState
from hpc.search import choice
from hpc.search.pace import seconds_left
from hpc.search.record import Record, Trial
from hpc.studies.study import SearchId, Study
from leukotree import files, yamlfile
from leukotree.config import parse
from leukotree.errors import InputError, RunFailed, one_line
from leukotree.records import compared, searchfolder


@dataclass(frozen=True)
class SearchState:
    """One search. A trial is running, waiting (for a place, also where it is to go on) or interrupted (begun,
    and no sweep is at work); the others have ended. With re-runs the best trials are trained again on fresh
    seeds."""

    study: str
    search: str
    """The variant, and with nested searches the outer fold: "flat" or "flat/fold0"."""
    state: str
    """ended (its values are chosen), running, waiting (its sweep is at work on another one, or queued) or
    interrupted."""
    ended: int
    """Trials that have ended: completed, stopped or failed."""
    trials: int | None
    """All of them; None where search.yaml cannot be read."""
    failed: int = 0
    reruns_ended: int = 0
    reruns: int = 0
    """As far as they are known: before all trials have ended as many as may come."""
    running: int = 0
    waiting: int = 0
    interrupted: int = 0
    epoch: int | None = None
    """Of the running trial that is the furthest, counted from 1; `epochs` is its last."""
    epochs: int | None = None
    best: float | None = None
    """The score that the search would choose by now, see `choice.leader`."""
    metric: str = "macro_f1"
    seconds_left: float | None = None
    """About, until all searches of the study have ended; None where nobody knows."""
    folder: str = ""
    problem: str = ""
    """Why its files cannot be read."""
    stale: str = ""
    """Why its scores do not belong to today's data or weights; empty where they do, or where these are not
    here."""


def read(root: str | Path, queued: Collection[str] = ()) -> list[SearchState]:
    """The searches of a study's folder, or of all studies if `root` holds the studies' folders. `queued`:
    studies whose search has a job that waits in a queue."""
    return [
        state
        for search, folders in searchfolder.find(Path(root)).items()
        for state in _of_study(search, folders, search.parent.name in queued)
    ]


def _of_study(search: Path, folders: list[Path], queued: bool) -> list[SearchState]:
    records: dict[Path, Record | str] = {folder: _record(folder) for folder in folders}
    held = files.held(search / searchfolder.LOCK)
    states = [_state(search, folder, record, held) for folder, record in records.items()]
    if held is None:  # the locks of another host may not be seen here, its trials are
        held = any(state.running for state in states)
    left = seconds_left(record for record in records.values() if isinstance(record, Record)) if held else None
    placed = [state if state.state == "ended" else _placed(state, held, queued, left) for state in states]
    return [state if state.problem else replace(state, stale=_stale(Path(state.folder))) for state in placed]


def _stale(folder: Path) -> str:
    try:
        return str(compared.changed_search(folder) or "")
    except (InputError, RunFailed) as error:
        return one_line(error)


def _placed(state: SearchState, held: bool, queued: bool, left: float | None) -> SearchState:
    """What a search that has not ended does, by whether a sweep is at work on the study."""
    if not held:
        begun, at_work = state.interrupted + state.running, 0
        where = "waiting" if queued else "interrupted"
        return replace(state, state=where, running=at_work, interrupted=begun, epoch=None, epochs=None)
    waiting = state.waiting + state.interrupted  # they go on when a place is free
    where = "running" if state.running else "waiting"
    return replace(state, state=where, waiting=waiting, interrupted=0, seconds_left=left)


def _record(folder: Path) -> Record | str:
    """The record of a search, or why it cannot be read."""
    path = folder / searchfolder.SETTINGS
    try:
        tree = yamlfile.load(path)
        if not isinstance(tree, dict):
            return f"{path}: holds no settings of a search"
        tree.pop(searchfolder.DATASET, None)
        fold = tree.pop(searchfolder.TEST_FOLD, 0)
        return Record(parse(Study, tree, str(path)), SearchId(searchfolder.variant_of(folder), fold), folder)
    except InputError as error:
        return str(error)


def _state(search: Path, folder: Path, record: Record | str, held: bool | None) -> SearchState:
    done = (folder / searchfolder.BEST).exists()
    name, study = folder.relative_to(search).as_posix(), search.parent.name
    if isinstance(record, str):
        return SearchState(study, name, "ended" if done else "", 0, None, folder=str(folder), problem=record)
    found = choice.leader(record)
    state = SearchState(
        study,
        name,
        "ended" if done else "",
        sum(trial.state is not None for trial in record.trials),
        record.study.search.trials,
        sum(trial.state == "failed" for trial in record.trials),
        sum(rerun.state is not None for rerun in record.reruns),
        len(record.reruns) or record.open_reruns(),
        best=found[1] if found else None,
        metric=record.study.search.metric,
        folder=str(folder),
    )
    if done:
        return state
    open_trials = [trial for trial in (*record.trials, *record.reruns) if trial.state is None]
    runs = {(trial.number, trial.seed): _runs(record, folder, trial) for trial in open_trials}
    working = [
        found for found in runs.values() if held is not False and any(run.state == "running" for run in found)
    ]
    begun = sum(any(run.begun for run in found) for found in runs.values())
    waiting = record.open_trials() + record.open_reruns() - begun
    epochs = [
        (min(run.epoch + 1, run.epochs), run.epochs)
        for found in working
        for run in found
        if run.state == "running"
    ]
    epoch, last = max(epochs, default=(None, None))
    return replace(
        state,
        running=len(working),
        interrupted=begun - len(working),
        waiting=waiting,
        epoch=epoch,
        epochs=last,
    )


def _runs(record: Record, folder: Path, trial: Trial) -> list[RunState]:
    """The runs of a trial or re-run that have begun."""
    place = searchfolder.trial_folder(folder, trial.number, rerun=trial.seed is not None)
    if not place.is_dir():
        return []
    search_id, now = record.search_id, time.time()
    specs = record.study.trial_specs(search_id.variant, trial.chosen, search_id.test_fold, trial.seed)
    found = [run_states.read(place / spec.run_name, now) for spec in specs]
    return [run for run in found if run.begun]
