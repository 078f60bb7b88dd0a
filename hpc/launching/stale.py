"""Stale runs and searches: finished ones whose data, label tree or weights are others today. They count as
not done, and none of their numbers is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from hpc.launching import run_states
from hpc.launching.run_states import Look, RunState
from leukotree.data import fingerprint
from leukotree.errors import InputError, RunFailed
from leukotree.records import compared, runfolder
from leukotree.records.compared import Inputs, Today
from leukotree.spec import RunSpec

STATE = "stale"
"""State of a finished run that does not belong to today's data, tree or weights."""


def check_runs(root: Path, specs: Iterable[RunSpec]) -> None:
    """Raises InputError if one of these runs is done, or has begun, and has other data, another tree or other
    weights than those of today. A run that has not begun is in order."""
    changes, shards, begun, now = [], "", run_states.begun(root), Today()
    for spec in specs:
        if spec.run_name not in begun:
            continue
        folder, inputs = root / spec.run_name, Inputs.of(spec)
        done = run_states.read(folder).state == "done"
        if (done or (folder / runfolder.ENVIRONMENT).exists()) and (
            change := compared.changed(folder, inputs, now=now)
        ):
            shards = shards or inputs.shards
            changes.append((folder, change))
    compared.refuse(changes, shards)


def at_another_path(root: Path, specs: Sequence[RunSpec]) -> str:
    """A line that names the path of the data on which these runs are done, if none of them has begun on the
    path that they name; empty otherwise. A run's name follows the path of its data, so the runs would not be
    found."""
    begun = run_states.begun(root)
    if not specs or not begun or any(spec.run_name in begun for spec in specs):
        return ""
    path_now = specs[0].data.shards
    folders = [folder for folder in root.iterdir() if run_states.read(folder).state == "done"]
    inputs_of = {folder: inputs for folder in folders if (inputs := Inputs.read(folder))}
    for path in {inputs.shards for inputs in inputs_of.values()} - {path_now}:
        named = {root / spec.override({"data.shards": path}).run_name for spec in specs}
        done = [
            folder
            for folder in named & inputs_of.keys()
            if compared.changed(folder, inputs_of[folder]._replace(shards=path_now, weights=None)) is None
        ]
        if done and fingerprint.packed(path_now):
            same = f"{root}: {len(done)} of these runs are done on the same data, as {path}"
            return (
                f"{same}; the name of a run follows that path: give base.data.shards={path} (a link will do) "
                "to use them"
            )
    return ""


def check_search(folder: Path, shards: str) -> None:
    """Raises InputError if the search in a folder had other data or other weights than those of today."""
    if change := compared.changed_search(folder, shards):
        raise InputError(f"{folder}: {change}")


def read(folder: Path) -> RunState:
    """The state of a run folder as `run_states.read` gives it, or "stale"."""
    return marked(run_states.read(folder), folder)


def marked(run: RunState, folder: Path, now: Today | None = None) -> RunState:
    """A state of `run_states.read`, or "stale" if the run is done and its data, tree or weights are others
    today. `now`: as for `compared.changed`."""
    if run.state != "done":
        return run
    spec = compared.spec_text(folder)
    if spec is None or (inputs := Inputs.of_text(spec)) is None:
        return run
    try:
        reason = str(compared.changed(folder, inputs, now=now, spec=spec) or "")
    except (InputError, RunFailed) as error:
        reason = str(error)
    return dataclasses.replace(run, state=STATE, message=reason, macro_f1=None) if reason else run


def marked_all(root: Path, look: Look) -> Look:
    """A `Look` with its stale runs marked; `root` holds their study, or all studies."""
    now = Today()
    runs = [marked(run, _folder(root, run), now) if run.state == "done" else run for run in look.runs]
    return dataclasses.replace(look, runs=runs)


def _folder(root: Path, run: RunState) -> Path:
    folder = root / run.run_name
    return folder if folder.is_dir() else root / run.study / run.run_name
