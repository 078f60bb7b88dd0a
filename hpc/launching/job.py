"""Runs as jobs of submitit, on SLURM or on this machine: what a job does, how it leaves, and what it asks
for."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.launching import devices, failures, job_notes, meeting, retries, run_states, submission
from hpc.launching.place import Place, layout, run_parameters
from hpc.slurm import container, scheduler, scratch
from leukotree import signals
from leukotree.errors import Busy, InputError, Preempted, RunFailed, one_line
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    import submitit


TELL = 15.0
"""Seconds that a failed rank waits before it ends its job, for the main rank to write down why."""
WEEK = 7 * 24 * 60
"""Time limit of a local job in minutes; submitit needs one."""


@dataclasses.dataclass
class Job:
    """What submitit pickles: some runs, one after another. A requeued job calls it again, and finished runs
    return at once."""

    specs: Sequence[RunSpec]
    root: Path
    runtime: Runtime

    def __call__(self) -> list[str]:
        """Names of the runs that failed; the reason of each is in the job's log. Raises the error of a lone
        run. Asked to stop, the run saves, and the process ends as `_leave` says."""
        hand_back = signal.getsignal(signal.SIGUSR2)  # submitit's: it queues the job again
        self._check_progress()
        ranks = meeting.export_ranks(self.root / "jobs")
        try:
            with signals.watched(), scratch.caches():
                return self._runs(ranks)
        except Preempted as error:
            print(f"leukotree: {error}", file=sys.stderr)
            _leave(hand_back if callable(hand_back) else None)
            raise  # not reached

    @property
    def run_names(self) -> list[str]:
        return [spec.run_name for spec in self.specs]

    def _check_progress(self) -> None:
        """A job that was queued again and again must have come further. Then its losses of ranks count anew,
        too. Raises RunFailed."""
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        states = [run_states.read(self.root / name) for name in self.run_names]
        open_names = [state.run_name for state in states if state.begun and state.state != "done"]
        if restarts > retries.CAPS["preempted"] and not any(
            retries.judge(self.root, name, None, anew=False).again for name in open_names
        ):
            raise RunFailed(
                f"the job was queued again {restarts} times and comes no further; see its log", "node"
            )
        if restarts and any(not retries.fruitless(self.root / name, "node") for name in open_names):
            import submitit

            (self.root / "jobs" / f"{submitit.JobEnvironment().job_id}_lost").unlink(missing_ok=True)

    def _runs(self, ranks: int) -> list[str]:
        failed = []
        for spec in self.specs:
            try:
                _run(spec, self.root, self.runtime)
            except Preempted:
                raise
            except Exception as error:
                what = failures.kind_here(error, spec)
                print(
                    f"{spec.run_name}: {what}: {one_line(error)}", file=sys.stderr
                )  # `failures.said` looks for it
                if os.environ.get("RANK", "0") != "0":
                    time.sleep(TELL)
                if what == "node" and (ranks > 1 or len(self.specs) == 1):
                    sys.exit(os.EX_TEMPFAIL)  # the end of the batch script knows this code
                # After an error the ranks may stand at different places: nothing more can be done in this
                # job.
                if ranks > 1 or len(self.specs) == 1:
                    raise
                failed.append(spec.run_name)
        return failed

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called by submitit at a preemption or a timeout: the same job again."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _run(spec: RunSpec, root: Path, runtime: Runtime) -> None:
    from hpc.launching import health
    from leukotree.training import run

    inspect = functools.partial(health.require, root) if "SLURM_JOB_ID" in os.environ else None
    try:
        run.run(spec, root, runtime, inspect)
    except Busy:
        time.sleep(failures.HELD)
        run.run(spec, root, runtime, inspect)


def _leave(hand_back: Callable[..., Any] | None) -> None:
    """End this process of a job, whose runs are saved, so that the job is queued again where it should be.

    SLURM itself queues it again after `scontrol requeue` and after most preemptions, and must not after
    `scancel`; then it is completing. After SIGUSR2 (near the time limit, or a preemption) and in the time
    that a preemption grants, submitit's handler does it. The other ranks leave without an error, which would
    end the main rank in the midst of that.
    """
    import submitit

    job = submitit.JobEnvironment()
    if job.global_rank != 0:
        sys.exit(0)
    if (
        job.cluster == "slurm"
        and hand_back is not None
        and (signals.received() != signal.SIGTERM or scheduler.is_running(job.job_id))
    ):
        try:
            hand_back(signal.SIGUSR2, None)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            _queue_again(job.job_id)
    sys.exit(os.EX_TEMPFAIL)


def _queue_again(job_id: str) -> None:
    """Ask SLURM more patiently than submitit's handler does. Where it refuses, the end of the batch script
    asks it once more, and notes that."""
    try:
        scheduler.requeue(job_id)
    except InputError as error:
        print(f"leukotree: {error}", file=sys.stderr)


def executor(place: Place, root: Path, exclude: Collection[str] = ()) -> submitit.Executor:
    """submitit's executor for jobs of one run each, on none of the nodes to `exclude`; `root/jobs` takes
    their logs.

    Raises InputError where SLURM is missing, or where the ranks do not fit the nodes.
    """
    import submitit

    place.check()
    folder, site = root / "jobs", place.site
    if place.on == "local":
        folder.mkdir(parents=True, exist_ok=True)
        local = submitit.LocalExecutor(folder=folder)
        local.update_parameters(tasks_per_node=place.ranks, timeout_min=WEEK)
        return local
    if submitit.SlurmExecutor.affinity() < 0:
        raise InputError("--on slurm: no SLURM commands here; run this on a login node, or use --on local")
    parameters = run_parameters(site, *layout(place.ranks, place.nodes, site)) | {"name": root.name}
    parameters["slurm_teardown"] = submission.at_the_end(container.PYTHON_HERE if site.container else "")
    if exclude:
        more = parameters["slurm_additional_parameters"]
        named = [str(more["exclude"])] if "exclude" in more else []
        parameters["slurm_additional_parameters"] = more | {"exclude": ",".join([*named, *exclude])}
    return submission.executor(folder, parameters)


def submit(
    place: Place,
    root: Path,
    batches: Sequence[Sequence[RunSpec]],
    *,
    parallel: int | None = None,
    runtime: Runtime,
    exclude: Collection[str] = (),
) -> list[str]:
    """Submit one job per batch of specs and note it in the study's folder. Returns the job ids: on SLURM,
    where it takes no more jobs for now, fewer than there are batches, those of the first ones.

    On SLURM the jobs are arrays, of which `parallel` (None: the site's number) run at once, on none of the
    nodes to `exclude`.
    """
    import submitit

    site = place.site
    runner = executor(place, root, exclude)
    if place.on == "slurm" and runtime.device == "auto" and site.gpus_per_node:
        # A node whose driver fails must not train on the CPU.
        runtime = dataclasses.replace(runtime, device="cuda")
    jobs = [Job(batch, root, runtime) for batch in batches]
    with outside_a_job():
        if not isinstance(runner, submitit.SlurmExecutor):
            return list(_submit_local(runner, root, jobs, place.ranks))
        runner.update_parameters(array_parallelism=parallel or site.array_parallelism)
        return list(submission.fill(runner, root, jobs, site.max_array_size or submission.largest_array()))


def _submit_local(runner: submitit.Executor, root: Path, jobs: Sequence[Job], ranks: int) -> Iterator[str]:
    for index, job in enumerate(jobs):
        gpus = devices.gpus_of_local_job(index, ranks, job.runtime)
        runner.update_parameters(gpus_per_node=len(gpus), visible_gpus=gpus)
        job_id = str(runner.submit(job).job_id)
        job_notes.record(root, {job_id: job.run_names}, "local")
        yield job_id


@contextmanager
def outside_a_job() -> Iterator[None]:
    """Hide the variables of the job we may be in from the jobs we submit: SLURM would take options from them.

    Those that the user exports for sbatch are hidden, too: they are part of the site (see
        `hpc.slurm.exported`).
    """
    import submitit

    where = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with submitit.helpers.clean_env():
        os.environ.update(where)
        yield
