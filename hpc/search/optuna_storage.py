"""The searches of a study as studies of Optuna, for its dashboard and for `optuna.load_study`.

One file in the sweep's folder has them all: a journal of Optuna. The records stay the truth. The file is
written again from them when a sweep begins and when it ends, so that nothing is left of a sweep that was
killed.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpc.search import sampler
from hpc.search.record import Record, Trial
from hpc.studies.study import Study
from leukotree.errors import one_line
from leukotree.log import logger
from leukotree.records import searchfolder


class _NoLock:
    """The sweep holds the lock of its study, and nobody else writes. A lock file that a kill left behind
    would hold up a sweep."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def storage(path: Path) -> JournalStorage:
    """The storage in a file, which is made if it is missing."""
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_NoLock()))  # type: ignore[arg-type]


def name_of(record: Record) -> str:
    """The name of a search among the studies of Optuna, such as "phantom/flat/fold0"."""
    sweep = searchfolder.sweep_folder(record.study.root).absolute()
    return f"{record.study.study}/{record.folder.absolute().relative_to(sweep).as_posix()}"


class Export:
    """Keeps the file equal to the records. An error of it is a warning, once, and ends the export: a search
    does not depend on it."""

    def __init__(self, records: Iterable[Record]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._records = list(records)
        self._path = searchfolder.sweep_folder(self._records[0].study.root) / searchfolder.OPTUNA
        self._broken = False
        self._studies: list[_Search] = []

    def rebuild(self, at_work: bool) -> None:
        """Replace the file by one that has all that the records have. `at_work`: whether trials that have not
        ended run now; else they wait to be continued."""
        self._try(lambda: self._rebuild(at_work))

    def sync(self) -> None:
        """Add what the records have more than the file."""
        self._try(self._sync)

    def _try(self, write: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            write()
        except Exception as error:  # such as a full disk
            self._broken = True
            logger.warning(f"{self._path}: {one_line(error)[:200]}; the search goes on without it")

    def _rebuild(self, at_work: bool) -> None:
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            new = storage(temporary)
            for record in self._records:
                _Search(record, new).sync(TrialState.RUNNING if at_work else TrialState.WAITING)
            os.replace(temporary, self._path)
        finally:
            temporary.unlink(missing_ok=True)
        opened = storage(self._path)
        self._studies = [_Search(record, opened, begun=True) for record in self._records]

    def _sync(self) -> None:
        for search in self._studies:
            search.sync(TrialState.RUNNING)


@contextlib.contextmanager
def exported(study: Study, at_work: Iterable[Record]) -> Iterator[Export]:
    """The context in which the file follows the records. `at_work`: those of the searches that have not
    ended; the others are read."""
    known = {record.search_id: record for record in at_work}
    export = Export(known.get(search_id) or Record(study, search_id) for search_id in study.search_ids)
    export.rebuild(at_work=bool(known))
    try:
        yield export
    finally:
        export.rebuild(at_work=False)


class _Search:
    """One search in the storage, and how much of its record is there."""

    def __init__(self, record: Record, opened: JournalStorage, begun: bool = False) -> None:
        self._record, self._storage = record, opened
        self._space = sampler.space_of(record.study, record.search_id.variant)
        name = name_of(record)
        if not begun:
            self._id = opened.create_new_study([StudyDirection.MAXIMIZE], name)
            opened.set_study_user_attr(self._id, "metric", record.study.search.metric)
            self._written: list[_Written] = []
            return
        self._id = opened.get_study_id_from_name(name)
        trials = opened.get_all_trials(self._id, deepcopy=False)
        self._written = [
            _Written(trial._trial_id, set(trial.intermediate_values), trial.state.is_finished())
            for trial in trials
        ]

    def sync(self, unfinished: TrialState) -> None:
        """Add trials, scores and ends. `unfinished`: the state of new trials that have not ended."""
        for trial in self._record.trials[len(self._written) :]:
            number = self._storage.create_new_trial(self._id, frozen(trial, self._space, unfinished))
            self._written.append(_Written(number, set(trial.scores), trial.state is not None))
        for trial, written in zip(self._record.trials, self._written, strict=True):
            if written.ended:
                continue
            for report in sorted(set(trial.scores) - written.reports):
                self._storage.set_trial_intermediate_value(written.id, report, trial.scores[report])
                written.reports.add(report)
            if trial.state is not None:
                for key, value in _attributes(trial).items():
                    self._storage.set_trial_user_attr(written.id, key, value)
                values = None if (value := _value(trial)) is None else [value]
                self._storage.set_trial_state_values(written.id, sampler.STATES[trial.state], values)
                written.ended = True


class _Written:
    """What the storage has of a trial."""

    def __init__(self, number: int, reports: set[int], ended: bool) -> None:
        self.id, self.reports, self.ended = number, reports, ended


def frozen(trial: Trial, space: dict[str, BaseDistribution], unfinished: TrialState) -> FrozenTrial:
    """A trial as Optuna stores it. One that was stopped early has its last score, as in `Study.optimize`."""
    now = datetime.datetime.now()
    ended = trial.state is not None
    begun = now - datetime.timedelta(seconds=trial.seconds)
    return FrozenTrial(
        number=trial.number,
        trial_id=-1,
        state=sampler.STATES[trial.state] if ended else unfinished,
        value=_value(trial) if ended else None,
        datetime_start=None if unfinished is TrialState.WAITING and not ended else begun,
        datetime_complete=now if ended else None,
        params=dict(trial.chosen),
        distributions=space,
        user_attrs=_attributes(trial) if ended else {},
        system_attrs={},
        intermediate_values=dict(trial.scores),
    )


def _value(trial: Trial) -> float | None:
    return trial.score if trial.state in ("completed", "stopped") else None


def _attributes(trial: Trial) -> dict[str, Any]:
    message = {"message": trial.message} if trial.message else {}
    return {"seconds": trial.seconds, **message}
