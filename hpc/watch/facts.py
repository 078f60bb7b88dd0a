"""The facts about a study that `leukotree status --watch` shows, at one moment."""

from __future__ import annotations

import contextlib
import csv
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpc.launching import run_states
from hpc.launching.run_states import Look, RunState
from hpc.search import choice, pace, search_states
from hpc.search.pace import Left
from hpc.search.record import Record
from hpc.search.search_states import SearchState
from hpc.studies import cells
from hpc.studies.study import Study
from hpc.watch import time_left
from hpc.watch.memory import Memory
from leukotree.errors import InputError
from leukotree.records import searchfolder

ENDED = ("done", "failed", "stale")
"""States of a run that nobody continues."""


@dataclass(frozen=True)
class Failure:
    """A run or trial that failed."""

    what: str
    """The run's name, or the search and the trial's number."""
    kind: str
    message: str
    seconds_ago: float | None
    """None where it is not known."""


@dataclass(frozen=True)
class Facts:
    """One study at one moment."""

    study: str
    time: float
    """Unix time of the look."""
    trials: dict[str, int] = field(default_factory=dict)
    """State -> trials of all searches, without re-runs: completed, stopped, failed, running, waiting,
    interrupted."""
    trials_of: int = 0
    """All trials."""
    reruns_ended: int = 0
    reruns_of: int = 0
    searches_ended: int = 0
    searches_of: int = 0
    """Searches that are known: those that have begun, and those of the study file."""
    runs: dict[str, int] = field(default_factory=dict)
    """State -> runs of outer folds and of the grid."""
    runs_of: int = 0
    """All runs that are known: those with a folder or a job, and those of the study file."""
    epoch: str = ""
    """The epochs that the runs and trials at work are in, as "3 of 8" or "3-5 of 8"."""
    images_per_s: float | None = None
    """Sum over what is at work, from the last epoch of each."""
    best: dict[str, float] = field(default_factory=dict)
    """Search -> the score that decides what it would choose now."""
    metric: str = "macro_f1"
    """The name of this score."""
    search_left: Left | None = None
    """The time until all searches have ended."""
    runs_left: Left | None = None
    """The time until all runs have ended."""
    failure: Failure | None = None
    """The last failure."""
    at_work: bool = False
    """Whether something runs, or waits in a queue."""
    over: bool = False
    """Whether everything that is known has ended."""
    searches: tuple[SearchState, ...] = ()
    note: str = ""
    """What keeps something from being known."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain values."""
        return {**asdict(self), "searches": [asdict(one) for one in self.searches]}


@dataclass(frozen=True)
class Expected:
    """What a study file announces."""

    searches: int = 0
    trials: int = 0
    """Trials of all searches."""
    runs: Mapping[str, int] = field(default_factory=dict)
    """Variant -> runs."""
    names: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Variant -> the names of these runs, where they are known: a search has not ended before it has chosen.
    Other runs of the study's folder, such as those of an earlier version of its file, are none of them."""


def announced(study: Study) -> Expected:
    """What a study announces: its searches, the runs of its outer folds, and the cells of its grid once that
    has begun, or where there is nothing else. Raises InputError for a grid with a cell that no run can be."""
    search, file = study.search, study.root / cells.FILE
    runs: Counter[str] = Counter()
    names: list[tuple[str, str]] = []
    if search.trials or not study.has_grid:
        runs.update({variant: len(study.outer_folds) * len(study.seeds) for variant in study.variants})
        names += _fold_names(study)
    if file.exists():
        with open(file, newline="") as rows:
            of_cells = [(row.get("variant") or "", row.get("run_name") or "") for row in csv.DictReader(rows)]
    elif study.has_grid and not search.trials:
        of_cells = [(cell.spec.variant, cell.run_name) for cell in cells.expand(study)]
    else:
        of_cells = []
    runs.update(variant for variant, _ in of_cells)
    names += of_cells
    known = {variant: frozenset(name for of, name in names if of == variant) for variant in runs}
    complete = {variant: known[variant] for variant, count in runs.items() if len(known[variant]) == count}
    searches = study.search_ids if search.trials else []
    trials = sum(study.trials(search_id.variant) for search_id in searches)
    return Expected(len(searches), trials, dict(runs), complete)


def _fold_names(study: Study) -> list[tuple[str, str]]:
    """(variant, run name) of the outer folds whose values are chosen. [] where that cannot be known here."""
    with contextlib.suppress(InputError):
        return [
            (row["variant"], row["run_name"]) for row in study.expected(choice.chosen(study, partial=True))
        ]
    return []


def read(root: Path, names: Sequence[str], memory: Memory, expected: Expected | None = None) -> list[Facts]:
    """The facts of studies. `root`: a study's folder, or the folder of all studies.

    Args:
        names: the study that is shown, also if it has not begun; [] for all.
        expected: what the file of the one study announces.
    """
    look = run_states.look(root, memory) if root.is_dir() else Look([], run_states.jobs(root), "")
    searches = searchfolder.find(root, one_study=bool(names))
    studies = {run.study: root if root.name == run.study else root / run.study for run in look.runs}
    studies |= {job.study: root if root.name == job.study else root / job.study for job in look.jobs}
    studies |= {sweep.parent.name: sweep.parent for sweep in searches}
    studies |= {name: root for name in names if name not in studies}
    return [
        _of_study(folder, look, searches.get(searchfolder.sweep_folder(folder), []), memory, expected)
        for _, folder in sorted(studies.items())
    ]


def _of_study(
    root: Path, look: Look, folders: list[Path], memory: Memory, expected: Expected | None
) -> Facts:
    expected = expected or Expected()
    runs = [run for run in look.runs if run.study == root.name]
    jobs = [job for job in look.jobs if job.study == root.name]
    sweep = searchfolder.sweep_folder(root)
    queued = any(job.kind == "sweep" and job.job.state == "PENDING" for job in jobs)
    states = search_states.of_study(sweep, folders, queued, memory.record)
    records = [record for folder in folders if isinstance(record := memory.record(folder), Record)]
    counts = Counter(run.state for run in runs)
    working = [(run, time_left.folder_of(root, run)) for run in runs if run.state == "running"]
    working += _trial_runs(records, states)
    more = _missing(runs, expected)
    begun = sum(counts.values()) + sum(more.values())
    searches_of = max(len(states), expected.searches)
    at_work = bool(jobs or working) or _queued(runs, look)
    at_work = at_work or any(one.state in ("running", "waiting") for one in states)
    ended = sum(one.state == "ended" for one in states)
    over = bool(runs or states) and not at_work and ended == searches_of and not sum(more.values())
    variants = {run.variant for run in runs} | {*expected.runs}
    costs = pace.costs_of(records[0].study, variants) if records else {}
    return Facts(
        study=root.name,
        time=time.time(),
        trials=_trials(records, states),
        trials_of=max(sum(one.trials or 0 for one in states), expected.trials),
        reruns_ended=sum(one.reruns_ended for one in states),
        reruns_of=sum(one.reruns for one in states),
        searches_ended=ended,
        searches_of=searches_of,
        runs=dict(counts),
        runs_of=begun,
        epoch=run_states.epochs_of([(run.epoch, run.epochs) for run, _ in working]) if working else "",
        images_per_s=_images_per_s(working, memory),
        best={one.search: one.best for one in states if one.best is not None},
        metric=states[0].metric if states else "macro_f1",
        search_left=next((known for one in states if (known := one.left)), None),
        runs_left=time_left.left(runs, more, root, memory, costs),
        failure=_last_failure(runs, records, states),
        at_work=at_work,
        over=over and all(run.state in ENDED for run in runs),
        searches=tuple(states),
        note=next((one.problem for one in states if one.problem), "") or look.slurm_problem,
    )


def _queued(runs: Iterable[RunState], look: Look) -> bool:
    """Whether a job is to begin or to continue a run. Where SLURM cannot be asked, a run that waits may have
    one."""
    return any(run.job is not None or (look.slurm_problem and run.state == "queued") for run in runs)


def _missing(runs: Iterable[RunState], expected: Expected) -> dict[str, int]:
    """Variant -> runs of the study file that have neither a folder nor a job."""
    there = {run.run_name for run in runs}
    known = Counter(run.variant for run in runs)
    return {
        variant: len(expected.names[variant] - there)
        if variant in expected.names
        else max(0, count - known[variant])
        for variant, count in expected.runs.items()
    }


def _trials(records: Iterable[Record], states: Sequence[SearchState]) -> dict[str, int]:
    """State -> trials. Those that have not ended may be re-runs."""
    ended = (trial.state for record in records for trial in record.trials if trial.state)
    counts: Counter[str] = Counter(ended)
    for name in ("running", "waiting", "interrupted"):
        counts[name] = sum(getattr(one, name) for one in states if one.state != "ended")
    return {name: count for name, count in counts.items() if count}


def _trial_runs(records: Iterable[Record], states: Sequence[SearchState]) -> list[tuple[RunState, Path]]:
    """The runs of trials that are at work, and their folders."""
    active = {Path(one.folder) for one in states if one.state == "running"}
    working = []
    for record in records:
        if record.folder not in active:
            continue
        for trial in (*record.trials, *record.reruns):
            if trial.state is None:
                runs = searchfolder.trial_folder(record.folder, trial.number, rerun=trial.seed is not None)
                states_of = search_states.runs_of(record, record.folder, trial)
                working += [(run, runs / run.run_name) for run in states_of if run.state == "running"]
    return working


def _images_per_s(working: Iterable[tuple[RunState, Path]], memory: Memory) -> float | None:
    rates = [(memory.last_epoch(folder) or {}).get("images_per_s") for _, folder in working]
    known = [rate for rate in rates if isinstance(rate, int | float) and rate > 0]
    return sum(known) if known else None


def _last_failure(
    runs: Iterable[RunState], records: Iterable[Record], states: Sequence[SearchState]
) -> Failure | None:
    """The failed run with the youngest heartbeat, else the failed trial that was noted last."""
    failed = [run for run in runs if run.state == "failed"]
    if failed:
        last = min(failed, key=lambda run: run.age if run.age is not None else float("inf"))
        return Failure(last.run_name, last.kind, last.message, last.age)
    trials = [(record, trial) for record in records for trial in record.trials if trial.state == "failed"]
    if not trials:
        return None
    record, trial = trials[-1]
    name = next((one.search for one in states if Path(one.folder) == record.folder), "search")
    return Failure(f"{name} trial {trial.number}", "", trial.message or "", None)
