"""What a command and its `--dry-run` refuse before the first run begins. Nothing here writes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc import tables
from hpc.doctor import doctor
from hpc.launching import devices, run_states
from hpc.launching.place import Place
from hpc.launching.sender import missing
from leukotree import files, tree_choice
from leukotree.errors import InputError, one_line
from leukotree.records.compute import Compute
from leukotree.runtime import Runtime
from leukotree.spec import PLAIN, RunSpec


def planned(
    specs: Sequence[RunSpec], root: Path, place: Place, *, runtime: Runtime, retry_failed: bool = False
) -> list[RunSpec]:
    """The runs that are still to be done. Raises InputError for what would end a run at its start, and for a
    place that cannot take it; OSError for a folder that cannot be written."""
    place.check()
    todo = missing(specs, root, retry_failed)
    if todo and place.on == "slurm":
        doctor.require(todo, place.site, root, ranks=place.ranks, nodes=place.nodes)
    elif todo:
        _require_here(place.ranks, runtime)
    if todo:
        files.require_writable(root)
    _check_models(todo)
    return todo


def _require_here(ranks: int, runtime: Runtime) -> None:
    if runtime.device == "cuda":
        from leukotree.distributed.engine import require_device  # loads torch

        require_device(runtime.device)
    devices.check_gpus(ranks, runtime)


def one(spec: RunSpec, root: Path, place: Place, runtime: Runtime) -> list[RunSpec]:
    """The same for the single run of a command, also if it is done. With `--on inline` a run folder that does
    not fit is refused, too; in a job that is the job's failure, see `refused`."""
    from leukotree.records.runfolder import RunFolder

    todo = planned([spec], root, place, runtime=runtime, retry_failed=True)
    if place.on == "inline":
        _check_folder(spec, root)
        RunFolder(root, spec).require_free()
    return todo


def refused(specs: Sequence[RunSpec], root: Path) -> dict[str, str]:
    """Run name -> why the run will fail: it was begun with another spec, data, tree or weights. The other
    runs go on."""
    reasons, begun = {}, run_states.begun(root)
    for spec in specs:
        if spec.run_name not in begun:
            continue
        try:
            _check_folder(spec, root)
        except InputError as error:
            reasons[spec.run_name] = f"error: {one_line(error)}"
    return reasons


def _check_folder(spec: RunSpec, root: Path) -> None:
    from leukotree.data import trees
    from leukotree.records import compared

    if (root / spec.run_name).is_dir():
        compared.check_folder(spec, root, trees.open_data(spec))


def _check_models(specs: Sequence[RunSpec]) -> None:
    """Raises InputError where a model cannot be built."""
    from leukotree.data import trees
    from leukotree.training import plan, questions

    kinds = {
        (
            *(one.variant, one.data.shards, one.backbone, one.loss.isolation, one.loss.branch_blocks),
            tree_choice.file(one.tree),  # a permuted tree has models of the same size
        ): one
        for one in specs
    }
    for spec in kinds.values():
        plan.check_model(spec, trees.open_data(spec), questions.kept())


COSTS = (
    *("variant", "tree", "data.shards", "data.inner", "backbone.name", "loss.kind", "loss.weighting"),
    *("loss.isolation", "loss.branch_blocks", "optim.batch_size", "optim.epochs", "optim.steps"),
)
"""The fields of a spec that decide its compute, beside the fold."""


def counts(specs: Sequence[RunSpec], root: Path) -> dict[str, int]:
    """The numbers of trainings and epochs of the runs, and of those that are done."""
    begun = run_states.begun(root)
    done, over = 0, 0
    for spec in (spec for spec in specs if spec.run_name in begun):
        run = run_states.read(root / spec.run_name)
        done += run.state == "done"
        over += spec.epochs if run.state == "done" else run.epoch
    epochs = sum(spec.epochs for spec in specs)
    return {"trainings": len(specs), "trainings_done": done, "epochs": epochs, "epochs_done": over}


def line(numbers: dict[str, int], epochs: Sequence[int], ended: str = "done") -> str:
    """`counts` for people. `epochs`: of each training."""
    low, high = min(epochs, default=0), max(epochs, default=0)
    each = f"{high}" if low == high else f"{low} to {high}"
    trainings, total = numbers["trainings"], numbers["epochs"]
    named = f"{trainings} training{'s' * (trainings != 1)} of {each} epoch{'s' * (each != '1')}"
    trained = f"{numbers['trainings_done']} of {trainings} trainings"
    return f"{named}; {trained} and {numbers['epochs_done']} of {total} epochs are {ended}"


COST_COLUMNS = ("variant", "models", "steps", "parameters", "FLOPs to train", "FLOPs per image", "runs")


def compute(specs: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """The compute of one run of each kind, on its first fold: a row with the variant, the number of such
    runs, and the fields of `records.compute.Compute`. Kinds with equal numbers are one row."""
    rows: dict[str, dict[str, Any]] = {}
    for first, number, found in kinds(specs):
        cost = found.as_dict()
        row = rows.setdefault(f"{first.variant} {cost}", {"variant": first.variant, **cost, "runs": 0})
        row["runs"] += number
    return list(rows.values())


def kinds(specs: Sequence[RunSpec]) -> list[tuple[RunSpec, int, Compute]]:
    """A spec of each kind, that of the first fold, the number of such runs, and the compute of one."""
    from leukotree.data import trees
    from leukotree.training import costs, questions

    found: dict[tuple[Any, ...], list[RunSpec]] = {}
    for spec in specs:
        found.setdefault(operator.attrgetter(*COSTS)(spec), []).append(spec)
    rows = []
    for alike in found.values():
        first = min(alike, key=lambda spec: (spec.data.repeat, spec.data.test_fold))
        rows.append((first, len(alike), costs.compute(first, trees.open_data(first), questions.kept())))
    return rows


def _budget(spec: RunSpec) -> str:
    if spec.variant in PLAIN:
        return "one fit"
    return f"{spec.optim.epochs} epochs" if spec.optim.steps is None else f"{spec.optim.steps} steps"


def compute_lines(specs: Sequence[RunSpec]) -> list[str]:
    """`compute` for people: what one run of each variant takes. Hours are known when a run has ended."""
    rows = [list(COST_COLUMNS)]
    for row in compute(specs):
        flops = [f"{row[key]:.3g}" if row[key] else "-" for key in ("training_flops", "image_flops")]
        counts = [str(row["models"]), str(row["steps"]), f"{row['parameters'] / 1e6:.3g} M"]
        rows.append([row["variant"], *counts, *flops, str(row["runs"])])
    budgets = dict.fromkeys(map(_budget, specs))
    budget = f"one run each on its first fold; budget of each model: {' or '.join(budgets)}"
    return [*tables.align(rows), budget] if specs else []
