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
from typing import TYPE_CHECKING, Any, Literal

from hpc.launching import failures, job_notes, meeting, retries, run_states, submission
from hpc.slurm import container, scheduler, scratch
from hpc.slurm import site as sites
from leukotree import signals
from leukotree.errors import Busy, InputError, Preempted, RunFailed, one_line
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    import submitit


JobKind = Literal["local", "slurm"]
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


def layout(ranks: int, nodes: int | None, site: sites.Site) -> tuple[int, int]:
    """(nodes, ranks on each node) of a run; `nodes` None takes as few as the site's GPUs allow. Raises
    InputError."""
    nodes = nodes or (-(-ranks // site.gpus_per_node) if site.gpus_per_node else 1)
    if ranks % nodes:
        raise InputError(
            f"--ranks {ranks}: do not divide over {nodes} nodes; use a multiple of {nodes}, or set --nodes"
        )
    each = ranks // nodes
    if site.gpus_per_node and each > site.gpus_per_node:
        raise InputError(
            f"--nodes {nodes}: {each} ranks on each, but the site has {site.gpus_per_node} GPUs per node"
        )
    return nodes, each


def executor(
    on: JobKind,
    root: Path,
    ranks: int = 1,
    site: sites.Site | None = None,
    nodes: int | None = None,
    exclude: Collection[str] = (),
) -> submitit.Executor:
    """submitit's executor for jobs of `ranks` tasks on `nodes` nodes, none of those to `exclude`; `root/jobs`
    takes their logs.

    Raises InputError where SLURM is missing, or where the ranks do not fit the nodes.
    """
    import submitit

    folder = root / "jobs"
    if on == "local":
        if (nodes or 1) > 1:
            raise InputError(f"--nodes {nodes}: several nodes need --on slurm")
        folder.mkdir(parents=True, exist_ok=True)
        local = submitit.LocalExecutor(folder=folder)
        local.update_parameters(tasks_per_node=ranks, timeout_min=WEEK)
        return local
    if submitit.SlurmExecutor.affinity() < 0:
        raise InputError("--on slurm: no SLURM commands here; run this on a login node, or use --on local")
    site = site or sites.load()
    nodes, each = layout(ranks, nodes, site)
    parameters = run_parameters(site, nodes, each) | {"name": root.name}
    parameters["slurm_teardown"] = submission.at_the_end(container.PYTHON_HERE if site.container else "")
    if exclude:
        more = parameters["slurm_additional_parameters"]
        named = [str(more["exclude"])] if "exclude" in more else []
        parameters["slurm_additional_parameters"] = more | {"exclude": ",".join([*named, *exclude])}
    return submission.executor(folder, parameters)


def run_parameters(site: sites.Site, nodes: int, each: int) -> dict[str, Any]:
    """Keyword arguments for `submission.executor`, for a run with `each` ranks on each of `nodes` nodes: a
    GPU per rank."""
    parameters = sites.submitit_parameters(site, each if site.gpus_per_node else 0)
    if site.gpus_per_node and site.mem_gb:  # the site's memory is that of a whole node
        parameters["mem_gb"] = max(1, site.mem_gb * each // site.gpus_per_node)
    return parameters | {"nodes": nodes, "tasks_per_node": each}


def submit(
    on: JobKind,
    root: Path,
    batches: Sequence[Sequence[RunSpec]],
    *,
    ranks: int = 1,
    nodes: int | None = None,
    site: sites.Site | None = None,
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

    site = site or sites.load()
    runner = executor(on, root, ranks, site, nodes, exclude)
    if on == "slurm" and runtime.device == "auto" and site.gpus_per_node:
        runtime = dataclasses.replace(
            runtime, device="cuda"
        )  # a node whose driver fails must not train on the CPU
    jobs = [Job(batch, root, runtime) for batch in batches]
    with outside_a_job():
        if not isinstance(runner, submitit.SlurmExecutor):
            return list(_submit_local(runner, root, jobs, ranks))
        runner.update_parameters(array_parallelism=parallel or site.array_parallelism)
        return list(submission.fill(runner, root, jobs, site.max_array_size or submission.largest_array()))


def check_gpus(ranks: int, runtime: Runtime) -> None:
    """Raises InputError where a run on this machine has more ranks than there are GPUs for."""
    if 0 < (count := gpu_count(runtime)) < ranks:
        raise InputError(
            f"--ranks {ranks}: there are {count} GPUs here, one per rank; use fewer ranks, or --device cpu"
        )


def _submit_local(runner: submitit.Executor, root: Path, jobs: Sequence[Job], ranks: int) -> Iterator[str]:
    for index, job in enumerate(jobs):
        gpus = _gpus(index, ranks, job.runtime)
        runner.update_parameters(gpus_per_node=len(gpus), visible_gpus=gpus)
        job_id = str(runner.submit(job).job_id)
        job_notes.record(root, {job_id: job.run_names}, "local")
        yield job_id


def gpu_count(runtime: Runtime) -> int:
    """GPUs of this machine that a run may use."""
    import torch

    return 0 if runtime.device == "cpu" else torch.cuda.device_count()


def _gpus(index: int, ranks: int, runtime: Runtime) -> tuple[int, ...]:
    """The GPUs of the index-th local job: `ranks` of them, round and round."""
    count = gpu_count(runtime)
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if count and not all(name.isdecimal() for name in named):  # submitit takes numbers only
        raise InputError(
            f"CUDA_VISIBLE_DEVICES {','.join(named)}: name GPUs by their numbers, or use --on inline"
        )
    visible = [int(name) for name in named] if count and named else list(range(count))
    return tuple(visible[(index * ranks + rank) % count] for rank in range(min(ranks, count)))


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
