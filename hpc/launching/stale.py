"""Finished runs and searches whose data, label tree or weights are others today: they count as done nowhere,
and no number of theirs is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from hpc.launching import run_states
from hpc.launching.run_states import Look, RunState
from leukotree.data import fingerprint
from leukotree.errors import InputError, RunFailed
from leukotree.records import compared, runfolder
from leukotree.records.compared import Inputs
from leukotree.spec import RunSpec

STATE = "stale"
"""Of a finished run that does not belong to today's data, tree or weights."""


def check_runs(root: Path, specs: Iterable[RunSpec]) -> None:
    """Raises InputError naming the first of these runs that is done, or begun, and was made from other data,
    on another tree or from other weights than those of today. One that has not begun is in order."""
    found, shards = [], ""
    for spec in specs:
        folder, inputs = root / spec.run_name, Inputs.of(spec)
        done = run_states.read(folder).state == "done"
        if (done or (folder / runfolder.ENVIRONMENT).exists()) and (
            change := compared.changed(folder, inputs)
        ):
            shards = shards or inputs.shards
            found.append((folder, change))
    compared.refuse(found, shards)


def at_another_path(root: Path, specs: Sequence[RunSpec]) -> str:
    """A line that says where these runs are, if none of them has begun and they are done on the same data at
    another path; empty otherwise. A run's name follows the path of its data: nobody would look for them."""
    if not specs or not root.is_dir() or any((root / spec.run_name).exists() for spec in specs):
        return ""
    ours = specs[0].data.shards
    folders = [folder for folder in root.iterdir() if run_states.read(folder).state == "done"]
    for path in {inputs.shards for folder in folders if (inputs := Inputs.read(folder))} - {ours}:
        named = {root / spec.override({"data.shards": path}).run_name for spec in specs}
        done = [
            folder
            for folder in named
            if folder in folders and compared.changed(folder, Inputs(ours, None)) is None
        ]
        if done and fingerprint.packed(ours):
            return (
                f"{root}: {len(done)} of these runs are done on the same data, as {path}; the name of a run follows that path: "
                f"give base.data.shards={path} (a link will do) to use them"
            )
    return ""


def check_search(folder: Path, shards: str) -> None:
    """Raises InputError where a search (its folder) was on other data, or from other weights, than those of
    today."""
    if change := compared.changed_search(folder, shards):
        raise InputError(f"{folder}: {change}")


def read(folder: Path) -> RunState:
    """As `store.read`, but "stale" for a run that is done and does not belong to what is there today."""
    return marked(run_states.read(folder), folder)


def marked(run: RunState, folder: Path) -> RunState:
    """A run's state as `read` gives it, from that which `store` gives."""
    if run.state != "done" or (inputs := Inputs.read(folder)) is None:
        return run
    try:
        reason = str(compared.changed(folder, inputs) or "")
    except (InputError, RunFailed) as error:
        reason = str(error)
    return dataclasses.replace(run, state=STATE, message=reason, macro_f1=None) if reason else run


def marked_all(root: Path, look: Look) -> Look:
    """A look with its stale runs marked; `root` holds their study, or all studies."""
    runs = [marked(run, _folder(root, run)) for run in look.runs]
    return dataclasses.replace(look, runs=runs)


def _folder(root: Path, run: RunState) -> Path:
    folder = root / run.run_name
    return folder if folder.is_dir() else root / run.study / run.run_name
