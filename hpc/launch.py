"""Where a run happens: in this process, under local ranks, or in a job of submitit. What happens is leukotree.train.run."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpc import site as sites
from hpc import store
from leukotree.errors import InputError, Preempted, RunFailed, one_line
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    import submitit
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from leukotree.train import RunResult, Runtime

Where = Literal["inline", "local", "slurm"]
POLL = {"inline": 0.0, "local": 0.5, "slurm": 10.0}
"""Seconds between two looks at what the jobs do."""
RESTARTS = 20
"""How often a job may meet its time limit and be queued again."""
IMPORTS = ("leukotree.train", "hpc.launch", "torch.distributed.launcher.api")
"""What a rank needs before its first step."""
WEEK = 7 * 24 * 60
"""Time limit of a local job in minutes; submitit needs one."""


def run_spec(
    spec: RunSpec,
    root: Path,
    *,
    on: Where = "inline",
    ranks: int = 1,
    site: sites.Site | None = None,
    runtime: Runtime | None = None,
) -> RunResult:
    """Do one run and wait for it. Raises InputError, Preempted, or RunFailed with the reason the run gave.

    `inline` runs in this process, or with several ranks in so many processes of this machine; `local` and `slurm` run it
    in a job of submitit, with one task per rank.
    """
    if on == "inline":
        prepare_ranks(ranks)
    from leukotree import train

    runtime = runtime or train.Runtime()
    train.check(spec, ranks)  # here, so that bad input is one line and not the end of some rank
    if on != "inline":
        if store.read(root / spec.run_name).state != "done" and spec.run_name not in store.queued(root):
            submit(on, root, [[spec]], ranks=ranks, site=site, runtime=runtime)
        wait(root, [spec.run_name], on)
        state = store.read(root / spec.run_name)
        if state.state != "done":
            raise RunFailed(why(root, state))
        return train.run(spec, root, runtime)  # finished: reads its scores
    if ranks == 1:
        return train.run(spec, root, runtime)
    result: RunResult = in_ranks(train.run, spec, root, runtime=runtime, ranks=ranks)
    return result


def prepare_ranks(ranks: int) -> None:
    """Start the server that local ranks are forked from; it imports what they need while this process imports and checks.

    It only imports: a process that has started CUDA, or threads, must not be forked. It ends with this process.
    """
    if ranks > 1:
        multiprocessing.set_forkserver_preload(list(IMPORTS))
        forkserver.ensure_running()


def in_ranks(function: Callable[..., Any], *arguments: Any, runtime: Runtime, ranks: int) -> Any:
    """`function(*arguments, runtime)` in so many processes of this machine, by torchrun's elastic launcher; what the main rank
    returns. Each gets its share of the cores if `runtime` names no threads. Raises what ended a rank, as `_cause` says, or
    Preempted."""
    prepare_ranks(ranks)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if runtime.threads is None:
        runtime = dataclasses.replace(runtime, threads=max(1, len(os.sched_getaffinity(0)) // ranks))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=function.__name__,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        start_method="forkserver",
        shutdown_timeout=5,  # a rank that waits for a failed one in a collective does not hear SIGTERM
    )
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # it would print what we raise
    with tempfile.TemporaryDirectory() as told:
        try:
            results = elastic_launch(config, _rank)(told, function, *arguments, runtime)
        except ChildFailedError as error:
            raise _cause([path.read_text() for path in sorted(Path(told).iterdir())], error) from None
    result = results[0]
    if isinstance(result, Preempted):
        raise result
    return result


def _rank(told: str, function: Callable[..., Any], *arguments: Any) -> Any:
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    try:
        return function(*arguments)
    except Preempted as preempted:  # no failure: every rank has saved and leaves
        return preempted
    except Exception as error:
        Path(told, os.environ["RANK"]).write_text(f"{type(error).__name__}: {one_line(error)}\n{traceback.format_exc()}")
        raise


def _end_with_launcher() -> None:
    """A launcher that is killed says nothing, and the server that a rank was forked from lives as long as the ranks do."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    launcher.join()
    os.kill(os.getpid(), signal.SIGINT)


def _cause(told: Sequence[str], error: ChildFailedError) -> Exception:
    """The error that ended the ranks, with that rank's traceback as a note where it was not foreseen. When a rank fails the
    others lose their connection to it, and that says nothing; a rank that was killed says nothing at all."""
    text = min(told, key=lambda one: "closed by peer" in one, default=one_line(error.get_first_failure()[1].message))
    line, _, stack = text.partition("\n")
    kind, _, message = line.partition(": ")
    for expected in (InputError, RunFailed):
        if kind == expected.__name__:
            return expected(message)
    found = RunFailed(line)
    found.add_note(stack)
    return found


@dataclasses.dataclass
class Job:
    """What submitit pickles: some runs, one after another. A requeued job calls it again, and finished runs return at once."""

    specs: Sequence[RunSpec]
    root: Path
    runtime: Runtime

    def __call__(self) -> list[str]:
        """Names of the runs that failed; the reason of each is in the job's log. Raises the error of a lone run."""
        from leukotree import train

        several = _export_ranks() > 1
        failed = []
        for spec in self.specs:
            try:
                train.run(spec, self.root, self.runtime)
            except Preempted:
                raise
            except Exception as error:
                print(f"{spec.run_name}: {one_line(error)}", file=sys.stderr)  # `why` looks for it
                # After an error the ranks may stand at different places: nothing more can be done in this job.
                if several or len(self.specs) == 1:
                    raise
                failed.append(spec.run_name)
        return failed

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called by submitit at a preemption or a timeout: the same job again."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _export_ranks() -> int:
    """Give torch.distributed its environment inside a job of several tasks. Returns the number of tasks."""
    import submitit

    tasks = submitit.JobEnvironment().num_tasks
    if tasks > 1:
        # Which GPU a rank takes follows from LOCAL_RANK, so CUDA_VISIBLE_DEVICES stays as the scheduler set it.
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    return tasks


def executor(on: Where, root: Path, ranks: int = 1, site: sites.Site | None = None) -> submitit.Executor:
    """submitit's executor for jobs of `ranks` tasks; `root/jobs` takes their logs.

    Raises InputError where SLURM is missing, or where a node of the site has too few GPUs.
    """
    import submitit

    folder = root / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    if on == "local":
        local = submitit.LocalExecutor(folder=folder)
        local.update_parameters(tasks_per_node=ranks, timeout_min=WEEK)
        return local
    if on != "slurm":
        raise InputError(f"--on {on}: jobs run on local or slurm")
    if submitit.SlurmExecutor.affinity() < 0:
        raise InputError("--on slurm: no SLURM commands here; run this on a login node, or use --on local")
    site = site or sites.load()
    parameters = sites.submitit_parameters(site)
    if site.gpus_per_node:
        if ranks > site.gpus_per_node:
            raise InputError(f"--ranks {ranks}: the site has {site.gpus_per_node} GPUs per node, and a run takes one node")
        parameters["gpus_per_node"] = ranks
        if site.mem_gb:  # the site's memory is that of a whole node
            parameters["mem_gb"] = max(1, site.mem_gb * ranks // site.gpus_per_node)
    slurm = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=RESTARTS)
    slurm.update_parameters(**parameters, tasks_per_node=ranks, name=root.name)
    return slurm


def submit(
    on: Where,
    root: Path,
    batches: Sequence[Sequence[RunSpec]],
    *,
    ranks: int = 1,
    site: sites.Site | None = None,
    parallel: int | None = None,
    runtime: Runtime,
) -> list[str]:
    """Submit one job per batch of specs and note it in the study's folder. Returns the job ids.

    On SLURM the jobs are arrays, of which `parallel` (None: the site's number) run at once.
    """
    runner = executor(on, root, ranks, site)
    jobs = [Job(batch, root, runtime) for batch in batches]
    submitted = _submit_local(runner, jobs, ranks) if on == "local" else _submit_slurm(runner, jobs, site, parallel)
    ids: list[str] = []
    with _outside_a_job():
        for job, job_id in submitted:
            # Noted at once, while later ones may still be refused: what is queued is not to be queued twice.
            store.record(root, [spec.run_name for spec in job.specs], on, job_id)
            ids.append(job_id)
    return ids


def _submit_local(runner: submitit.Executor, jobs: Sequence[Job], ranks: int) -> Iterator[tuple[Job, str]]:
    for index, job in enumerate(jobs):
        gpus = _gpus(index, ranks, job.runtime)
        runner.update_parameters(gpus_per_node=len(gpus), visible_gpus=gpus)
        yield job, runner.submit(job).job_id


def _submit_slurm(
    runner: submitit.Executor, jobs: Sequence[Job], site: sites.Site | None, parallel: int | None
) -> Iterator[tuple[Job, str]]:
    from submitit.core.utils import FailedJobError

    site = site or sites.load()
    runner.update_parameters(slurm_array_parallelism=parallel or site.array_parallelism)
    for start in range(0, len(jobs), site.max_array_size):
        part = jobs[start : start + site.max_array_size]
        try:
            array = runner.submit_array(part)
        except FailedJobError as error:
            raise InputError(f"sbatch refused the jobs: {one_line(error)[-300:]}; see the site file") from None
        yield from ((job, queued.job_id) for job, queued in zip(part, array, strict=True))


def gpu_count(runtime: Runtime) -> int:
    """GPUs of this machine that a run may use."""
    import torch

    return 0 if runtime.device == "cpu" else torch.cuda.device_count()


def _gpus(index: int, ranks: int, runtime: Runtime) -> tuple[int, ...]:
    """The GPUs of the index-th local job: `ranks` of them, round and round."""
    count = gpu_count(runtime)
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = [int(name) for name in named.split(",")] if named.replace(",", "").isdigit() else list(range(count))
    return tuple(visible[(index * ranks + rank) % count] for rank in range(min(ranks, count)))


@contextmanager
def _outside_a_job() -> Iterator[None]:
    """Hide the variables of the job we may be in from the jobs we submit: SLURM would take options from them."""
    import submitit

    where = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with submitit.helpers.clean_env():
        os.environ.update(where)
        yield


def wait(root: Path, run_names: Collection[str], on: Where, tick: Callable[[], None] = lambda: None) -> None:
    """Return when no job is left that is to do one of these runs; `tick` is called between two looks."""
    while any(name in run_names for name in store.queued(root)):
        time.sleep(POLL[on])
        tick()
    tick()


def why(root: Path, state: store.RunState) -> str:
    """One line on why a run whose job has ended is not done."""
    if state.state == "failed" and state.message:
        return state.message
    log = root / "jobs" / f"{store.submitted(root).get(state.run_name, {}).get('job')}_0_log.err"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    for line in reversed(lines):
        if line.startswith(f"{state.run_name}: "):
            return line.removeprefix(f"{state.run_name}: ")
    said = f": {lines[-1][:300]}" if lines else ""
    return f"ended as {state.state} in epoch {state.epoch} of {state.epochs}{said}; see {log}"
