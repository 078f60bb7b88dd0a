"""What a command and its `--dry-run` refuse before the first run begins. Nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpc.doctor import doctor
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
    from leukotree.distributed.engine import require_device

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
    """Run name -> why the run will fail: it was begun with another spec, data or weights. The other runs go
    on."""
    reasons = {}
    for spec in specs:
        try:
            _check_folder(spec, root)
        except InputError as error:
            reasons[spec.run_name] = f"error: {one_line(error)}"
    return reasons


def _check_folder(spec: RunSpec, root: Path) -> None:
    from leukotree.data.dataset import Dataset
    from leukotree.training import run

    if (root / spec.run_name).is_dir():
        run.check_folder(spec, root, Dataset.open(spec.data.shards, repeat=spec.data.repeat))


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
    """The numbers of trainings and epochs of the runs, and of those that are done."""
    states = [run_states.read(root / spec.run_name) for spec in specs]
    done = [state.state == "done" for state in states]
    over = [
        spec.optim.epochs if ended else state.epoch
        for spec, state, ended in zip(specs, states, done, strict=True)
    ]
    epochs = sum(spec.optim.epochs for spec in specs)
    return {"trainings": len(specs), "trainings_done": sum(done), "epochs": epochs, "epochs_done": sum(over)}


def line(numbers: dict[str, int], epochs: Sequence[int], ended: str = "done") -> str:
    """`counts` for people. `epochs`: of each training."""
    low, high = min(epochs, default=0), max(epochs, default=0)
    each = f"{high}" if low == high else f"{low} to {high}"
    trainings, total = numbers["trainings"], numbers["epochs"]
    named = f"{trainings} training{'s' * (trainings != 1)} of {each} epoch{'s' * (each != '1')}"
    trained = f"{numbers['trainings_done']} of {trainings} trainings"
    return f"{named}; {trained} and {numbers['epochs_done']} of {total} epochs are {ended}"
