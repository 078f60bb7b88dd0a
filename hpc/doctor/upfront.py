"""What is refused before the first of some runs begins, by the command itself and by its `--dry-run`. Nothing
here writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpc.launching import devices, run_states
from hpc.launching.place import Place
from hpc.launching.sender import missing
from leukotree import files
from leukotree.errors import InputError, one_line
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec


def planned(
    specs: Sequence[RunSpec], root: Path, place: Place, *, runtime: Runtime, retry_failed: bool = False
) -> list[RunSpec]:
    """The runs that are to be done, of those that a command is about. Raises InputError for what would end
    one as it begins, and for a place that cannot take it; OSError for a folder that cannot be written."""
    place.check()
    todo = missing(specs, root, retry_failed)
    if todo and place.on == "slurm":
        from hpc.doctor import doctor

        doctor.require(todo, place.site, root, ranks=place.ranks, nodes=place.nodes)
    elif todo:
        _require_here(place.ranks, runtime)
    if todo:
        files.require_writable(root)
    _check_models(todo)
    return todo


def _require_here(ranks: int, runtime: Runtime) -> None:
    from leukotree.distributed.engine import require_device

    require_device(runtime.device)
    devices.check_gpus(ranks, runtime)


def one(spec: RunSpec, root: Path, place: Place, runtime: Runtime) -> list[RunSpec]:
    """The same for a run that a command does by itself, also where it is done. In this process its folder is
    refused, too; what a job says of it is that job's failure, see `refused`."""
    from leukotree.records.runfolder import RunFolder

    todo = planned([spec], root, place, runtime=runtime, retry_failed=True)
    if place.on == "inline":
        _check_folder(spec, root)
        RunFolder(root, spec).require_free()
    return todo


def refused(specs: Sequence[RunSpec], root: Path) -> dict[str, str]:
    """Run name -> why a run will fail that was begun with something else. It stops no other run, and so no
    command."""
    found = {}
    for spec in specs:
        try:
            _check_folder(spec, root)
        except InputError as error:
            found[spec.run_name] = f"error: {one_line(error)}"
    return found


def _check_folder(spec: RunSpec, root: Path) -> None:
    from leukotree.data.dataset import Dataset
    from leukotree.training import run

    if (root / spec.run_name).is_dir():
        run.check_folder(spec, root, Dataset.open(spec.data.shards))


def _check_models(specs: Sequence[RunSpec]) -> None:
    """Raises InputError where a model cannot be built."""
    from leukotree.data.dataset import Dataset
    from leukotree.training import plan

    kinds = {
        (one.variant, one.data.shards, one.backbone, one.loss.isolation, one.loss.branch_blocks): one
        for one in specs
    }
    for spec in kinds.values():
        plan.check_model(spec, Dataset.open(spec.data.shards))


def counts(specs: Sequence[RunSpec], root: Path) -> dict[str, int]:
    """How many trainings and epochs the runs are, and how many of them are done."""
    states = [run_states.read(root / spec.run_name) for spec in specs]
    done = [state.state == "done" for state in states]
    over = [
        spec.optim.epochs if ended else state.epoch
        for spec, state, ended in zip(specs, states, done, strict=True)
    ]
    epochs = sum(spec.optim.epochs for spec in specs)
    return {"trainings": len(specs), "trainings_done": sum(done), "epochs": epochs, "epochs_done": sum(over)}


def line(found: dict[str, int], epochs: Sequence[int], ended: str = "done") -> str:
    """`counts` for people; `epochs`: those of the single trainings."""
    low, high = min(epochs, default=0), max(epochs, default=0)
    each = f"{high}" if low == high else f"{low} to {high}"
    all_of_them, total = found["trainings"], found["epochs"]
    trainings = f"{all_of_them} training{'s' * (all_of_them != 1)} of {each} epoch{'s' * (each != '1')}"
    over = f"{found['trainings_done']} of {all_of_them} trainings and {found['epochs_done']} of {total} epochs are {ended}"
    return f"{trainings}; {over}"
