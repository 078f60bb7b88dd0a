"""Jobs are put into SLURM's queue as arrays, and noted.

submitit writes the batch script and runs what was pickled. This module submits the script. An intent is
written to the disk before sbatch is called, and the jobs fetch their pickles themselves. So the process that
submits may be killed at any moment: `adopt` finds the jobs by the intent.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hpc.launching import batch_script, job_files, job_notes, snapshot
from hpc.slurm import scheduler
from leukotree import files

if TYPE_CHECKING:
    import submitit

ARRAY = 1000
"""Jobs in one array where neither the site nor SLURM says how many may be."""
ALWAYS = 10**6
"""How often submitit may queue a job again at its time limit. `retries` decides whether a run is tried
again."""
INTENT = ".intent"
"""End of the name of a file with the runs of a submission, which exists until its jobs are noted."""


class Work(Protocol):
    """What a job does when it is called, and the runs that it does."""

    def __call__(self) -> Any: ...

    @property
    def run_names(self) -> Sequence[str]: ...


def slurm_executor(folder: Path, parameters: Mapping[str, Any]) -> submitit.SlurmExecutor:
    """submitit's executor for SLURM, with the `parameters` of `site.submitit_parameters`; `folder` takes the
    logs."""
    import submitit

    # If the site has no wckey, submitit would set its own, "submitit". A SLURM that checks the keys refuses
    # it.
    given = {"wckey": None} | {name.removeprefix("slurm_"): value for name, value in parameters.items()}
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=ALWAYS, python=given.pop("python", None))
    executor.update_parameters(**executor._convert_parameters(given))
    return executor


def submit_arrays(
    runner: submitit.SlurmExecutor, root: Path, works: Sequence[Work], largest: int
) -> Iterator[str]:
    """Queue the works in arrays of at most `largest`, in their order, until SLURM takes no more. Yields the
    id of each job once it is noted. Raises InputError where SLURM refuses the jobs for good."""
    left, size = list(works), largest
    while left:
        size = min(size, len(left))
        try:
            ids = submit_array(runner, root, left[:size])
        except scheduler.QueueFull as error:
            size //= 2
            if not size:
                if not scheduler.JOB_COUNT_LIMIT.search(str(error)) and not scheduler.jobs():
                    raise  # another limit: no job of this user will end and make room
                return
        else:
            left = left[size:]
            yield from ids


def submit_array(runner: submitit.SlurmExecutor, root: Path, works: Sequence[Work]) -> list[str]:
    """Submit the works as one array and note it. Returns the ids. Raises InputError where SLURM refuses
    them."""
    from submitit.core.utils import DelayedSubmission
    from submitit.slurm.slurm import _make_sbatch_string

    folder, token = runner.folder, uuid.uuid4().hex
    folder.mkdir(parents=True, exist_ok=True)
    parameters = dict(runner.parameters)
    parameters["setup"] = [
        *batch_script.at_the_start(folder, token),
        *snapshot.at_the_start(root.parent),
        *(parameters.get("setup") or ()),  # those of the site
        snapshot.IMPORT,
    ]
    if len(works) > 1:
        parameters["map_count"] = len(works)
    script, intent = folder / f"{token}.sh", folder / f"{token}{INTENT}"
    for index, work in enumerate(works):
        delayed = DelayedSubmission(work)
        delayed.set_timeout(parameters.get("time", 5), runner.max_num_timeout)
        delayed.dump(folder / f"{token}_{index}.pkl")
    script.write_text(_make_sbatch_string(command=runner._submitit_command_str, folder=folder, **parameters))
    runs = [list(work.run_names) for work in works]
    if any(runs):
        files.write_atomic(intent, json.dumps({"cluster": scheduler.cluster(), "runs": runs}))
    try:
        number = scheduler.sbatch(script)
    except scheduler.Refused as error:
        _forget(folder, token)
        raise type(error)(f"sbatch refused the jobs: {str(error)[-300:]}; see the site file") from None
    if any(runs):
        _note(root, intent, number)
    script.rename(folder / f"{number}_submission.sh")
    return _ids(number, len(works))


def adopt(root: Path) -> None:
    """Note the jobs of a command that was killed after it had submitted them and before it had noted them.
    Raises as `scheduler.ask`."""
    folder = job_files.folder(root).absolute()
    for intent in sorted(folder.glob(f"*{INTENT}")):
        if job_notes.on_another_cluster(json.loads(intent.read_text())):
            continue
        number = scheduler.find(intent.with_suffix(".sh"))
        if number is not None:
            _note(root, intent, number)
        else:  # sbatch was never called, or the jobs ended long ago
            _forget(folder, intent.stem)


def _note(root: Path, intent: Path, number: str) -> None:
    runs = json.loads(intent.read_text())["runs"]
    ids = _ids(number, len(runs))
    job_notes.record(root, dict(zip(ids, runs, strict=True)), "slurm")
    intent.unlink()


def _ids(number: str, count: int) -> list[str]:
    return [number] if count == 1 else [f"{number}_{index}" for index in range(count)]


def _forget(folder: Path, token: str) -> None:
    for path in folder.glob(f"{token}*"):
        path.unlink()


def largest_array() -> int:
    """Most jobs in one array, where the site names no number."""
    return scheduler.largest_array() or ARRAY
