"""Jobs for runs: what SLURM, or this machine, is asked for, and their submission."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.launching import arrays, batch_script, devices, job_files, job_notes
from hpc.launching.job import Job
from hpc.launching.place import Place, layout, run_parameters
from hpc.slurm import container
from hpc.slurm.outside import outside_a_job
from leukotree.errors import InputError
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    import submitit

WEEK = 7 * 24 * 60
"""Time limit of a local job in minutes; submitit needs one."""


def submit(
    place: Place,
    root: Path,
    batches: Sequence[Sequence[RunSpec]],
    *,
    parallel: int | None = None,
    runtime: Runtime,
    exclude: Collection[str] = (),
    pause: int = 0,
) -> list[str]:
    """Submit one job per batch of specs and note it in the study's folder. Returns the job ids: on SLURM,
    where it takes no more jobs for now, fewer than there are batches, those of the first ones.

    On SLURM the jobs are arrays, of which `parallel` (None: the site's number) run at once, on none of the
    nodes to `exclude`. `pause`: seconds before the jobs begin.
    """
    import submitit

    site = place.site
    runner = executor(place, root, exclude, pause)
    if place.on == "slurm" and runtime.device == "auto" and site.gpus_per_node:
        # A node whose driver fails must not train on the CPU.
        runtime = dataclasses.replace(runtime, device="cuda")
    here = pause if place.on == "local" else 0  # SLURM itself waits
    jobs = [Job(batch, root, runtime, here) for batch in batches]
    with outside_a_job():
        if not isinstance(runner, submitit.SlurmExecutor):
            return list(_submit_local(runner, root, jobs, place.ranks))
        runner.update_parameters(array_parallelism=parallel or site.array_parallelism)
        return list(arrays.submit_arrays(runner, root, jobs, site.max_array_size or arrays.largest_array()))


def executor(place: Place, root: Path, exclude: Collection[str] = (), pause: int = 0) -> submitit.Executor:
    """submitit's executor for jobs of one run each, on none of the nodes to `exclude`; `root/jobs` takes
    their logs.

    Raises InputError where SLURM is missing, or where the ranks do not fit the nodes.
    """
    import submitit

    place.check()
    folder, site = job_files.folder(root), place.site
    if place.on == "local":
        folder.mkdir(parents=True, exist_ok=True)
        local = submitit.LocalExecutor(folder=folder)
        local.update_parameters(tasks_per_node=place.ranks, timeout_min=WEEK)
        return local
    if submitit.SlurmExecutor.affinity() < 0:
        raise InputError("--on slurm: no SLURM commands here; run this on a login node, or use --on local")
    parameters = run_parameters(site, *layout(place.ranks, place.nodes, site)) | {"name": root.name}
    parameters["slurm_teardown"] = batch_script.at_the_end(container.PYTHON_HERE if site.container else "")
    if pause:
        parameters["slurm_additional_parameters"] |= {"begin": f"now+{pause}"}
    if exclude:
        more = parameters["slurm_additional_parameters"]
        named = [str(more["exclude"])] if "exclude" in more else []
        parameters["slurm_additional_parameters"] = more | {"exclude": ",".join([*named, *exclude])}
    return arrays.slurm_executor(folder, parameters)


def _submit_local(runner: submitit.Executor, root: Path, jobs: Sequence[Job], ranks: int) -> Iterator[str]:
    for index, job in enumerate(jobs):
        gpus = devices.gpus_of_local_job(index, ranks, job.runtime)
        runner.update_parameters(gpus_per_node=len(gpus), visible_gpus=gpus)
        job_id = str(runner.submit(job).job_id)
        job_notes.record(root, {job_id: job.run_names}, "local")
        yield job_id
