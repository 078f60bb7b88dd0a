"""The folders of a study's searches: where they lie, the names of their files, and their columns.

`<study>/search/` belongs to the sweep. Each search has a folder in it: `<variant>/fold<k>` where every outer
fold has a search (`<variant>/repeat<r>-fold<k>` in the repeats above 0), `<variant>` where one search serves
all folds. The runs of a trial lie in `runs/<trial>/`, those of its re-runs in `reruns/<trial>/`.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leukotree import yamlfile
from leukotree.errors import InputError
from leukotree.records import attempts, origin, runfolder
from leukotree.records.runfolder import is_run

SEARCH = "search"
"""Name of the sweep's folder in a study's folder."""
LOCK = ".lock"
"""In the sweep's folder: the file that a sweep holds while it works."""
SCRATCH = "ray"
"""In the sweep's folder: Ray's own files. They are removed when a sweep ends."""
ENDS = "ends.json"
"""In the sweep's folder: how often its job has ended without progress."""

OPTUNA = "optuna.log"
"""In the sweep's folder: its searches as studies of Optuna, if that was asked for."""

SETTINGS = "search.yaml"
"""The settings of a search, written when it begins."""
DRAWS = "trials.jsonl"
"""One line for a trial before it starts, and one when it has ended."""
HISTORY = "history.csv"
"""The score of each trial after each report."""
RERUNS = "reruns.jsonl"
"""One line for each re-run that has ended."""
TRIALS = "trials.csv"
"""One row for each trial, written when the search has ended."""
BEST = "best.yaml"
"""The chosen values, written when the search has ended."""

TEST_FOLD = "test_fold"
"""Key of search.yaml and best.yaml: the outer fold that the search did not use."""
REPEAT = "repeat"
"""Key of search.yaml and best.yaml: the repeat of this outer fold. Absent for 0."""
DATASET = "dataset"
"""Key of search.yaml: the fingerprint of the data."""
TRIAL_COLUMNS = ("trial", "state", "epochs", "macro_f1", "best_macro_f1", "seconds")
"""Columns of trials.csv before the searched keys. With rungs on folds `epochs` counts inner folds."""
HISTORY_COLUMNS = ("trial", "epoch", "macro_f1", "seconds")
"""Columns of history.csv. `epoch` counts the reports of a trial: epochs or, with rungs on folds, inner
folds."""

_FOLD, _REPEAT = "fold", "repeat"
_OF_FOLD = re.compile(rf"(?:{_REPEAT}([0-9]+)-)?{_FOLD}([0-9]+)")
"""Name of the folder of an outer fold's search."""
_RUNS, _RERUNS = "runs", "reruns"


def sweep_folder(study: Path) -> Path:
    """The folder of the sweep in a study's folder."""
    return study / SEARCH


def search_folder(study: Path, variant: str, fold: int | None = None, repeat: int = 0) -> Path:
    """The folder of one search. `fold`: the outer fold; None where one search serves all folds."""
    folder = sweep_folder(study) / variant
    of_repeat = f"{_REPEAT}{repeat}-" if repeat else ""
    return folder if fold is None else folder / f"{of_repeat}{_FOLD}{fold}"


def find(root: Path, one_study: bool = False) -> dict[Path, list[Path]]:
    """Sweep's folder -> folders of its searches that have begun. `root` is a study's folder, or holds the
    folders of all studies. `one_study`: it is a study's folder; the folders of its runs are not looked
    into."""
    files = (SETTINGS, HISTORY, BEST)
    patterns = [f"*/{fold}{file}" for fold in ("", f"{_FOLD}*/", f"{_REPEAT}*-{_FOLD}*/") for file in files]
    studies = [root]
    if not one_study:
        with contextlib.suppress(OSError), os.scandir(root) as entries:
            studies += [root / entry.name for entry in entries if not is_run(entry.name)]
    sweeps = filter(Path.is_dir, map(sweep_folder, studies))
    places = {path.parent for sweep in sweeps for pattern in patterns for path in sweep.glob(pattern)}
    folders: dict[Path, list[Path]] = {}
    for folder in sorted(places):
        folders.setdefault(sweep_folder(study_of(folder)), []).append(folder)
    return folders


def of_variant(study: Path, variant: str) -> dict[tuple[int, int], Path]:
    """(repeat, outer fold) -> folder of its search, of a variant whose outer folds have a search each."""
    named = [(_OF_FOLD.fullmatch(folder.name), folder) for folder in search_folder(study, variant).glob("*")]
    return dict(sorted(((int(name[1] or 0), int(name[2])), folder) for name, folder in named if name))


def study_of(folder: Path) -> Path:
    """The study's folder in which the folder of a search lies."""
    return folder.parents[2] if _OF_FOLD.fullmatch(folder.name) else folder.parents[1]


def variant_of(folder: Path) -> str:
    """The variant of a search, by its folder."""
    return folder.parent.name if _OF_FOLD.fullmatch(folder.name) else folder.name


def study_and_name(run: Path) -> tuple[str, str]:
    """(name of the study, name in it) of a run folder. The name of a trial's run begins with its search and
    trial, as in "search/flat/fold0/runs/00003/flat-0123456789ab"."""
    run = run.absolute()
    trial, kind = run.parent, run.parent.parent
    if trial.name.isdecimal() and kind.name in (_RUNS, _RERUNS):
        study = study_of(kind.parent)
        return study.name, run.relative_to(study).as_posix()
    return trial.name, run.name


def trial_folder(folder: Path, trial: int | str, *, rerun: bool = False) -> Path:
    """The folder with the run folders of a trial of a search, or of its re-runs on all seeds."""
    return folder / (_RERUNS if rerun else _RUNS) / str(trial).zfill(5)


def runs_of_trial(folder: Path, trial: int | str) -> list[Path]:
    """The run folders of a trial of a search, sorted."""
    return sorted(trial_folder(folder, trial).glob("*/"))


def rerun_runs(folder: Path) -> list[Path]:
    """The run folders of all re-runs of a search, sorted."""
    return sorted(folder.glob(f"{_RERUNS}/*/*/"))


def begun_runs(folder: Path) -> Iterator[Path]:
    """The run folders of the trials and re-runs of a search that have begun."""
    for kind in (_RUNS, _RERUNS):
        yield from (spec.parent for spec in sorted(folder.glob(f"{kind}/*/*/{runfolder.SPEC}")))


def drop_checkpoints(trial: Path) -> None:
    """Remove the checkpoints of the runs in a trial's folder, which nobody continues. They are gigabytes for
    each trial."""
    for checkpoints in trial.glob(f"*/{runfolder.CHECKPOINTS}"):
        shutil.rmtree(checkpoints, ignore_errors=True)


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The rows of a search's history.csv, by HISTORY_COLUMNS; [] if it is missing. Lines that a kill cut
    short are left out."""
    path = folder / HISTORY
    if not path.exists():
        return []
    rows = []
    with open(path, newline="") as file:
        for row in csv.reader(file):
            with contextlib.suppress(ValueError):  # also the header
                trial, epoch, score, seconds = row
                numbers = [int(trial), int(epoch), float(score), float(seconds)]
                rows.append(dict(zip(HISTORY_COLUMNS, numbers, strict=True)))
    return rows


def read_best(folder: Path, fix: str) -> dict[str, Any]:
    """The content of a search's best.yaml. Raises InputError that ends with `fix` where it has no `chosen`
    values."""
    path = folder / BEST
    tree = yamlfile.load(path)
    if not isinstance(tree, dict) or not isinstance(tree.get("chosen"), dict):
        raise InputError(f"{path}: has no `chosen` values; {fix}")
    return tree


def recorded_bytes(study: Path) -> int:
    """Bytes that the trials of a study's searches have recorded. They grow with every step and report."""
    names = (runfolder.METRICS, HISTORY, RERUNS)
    return sum(_size(log) for name in names for log in sweep_folder(study).rglob(name))


def note_attempt(study: Path) -> None:
    """Note that this process begins or continues the searches of a study. Raises OSError."""
    attempts.note(sweep_folder(study), recorded_bytes(study))


def code_of(study: Path) -> list[str]:
    """The code of a study's searches: one name, or several in their order where they were continued on other
    code."""
    return origin.sequence(attempts.read(sweep_folder(study)))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a trial that is just ending may replace it
        return 0
