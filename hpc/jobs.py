"""Runs as jobs of submitit, on SLURM or on this machine: what a job does, how it leaves, and how many go into an array."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpc import site as sites
from hpc import submitted
from leukotree import signals
from leukotree.errors import Busy, InputError, Kind, Preempted, RunFailed, kind, one_line
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    import submitit

    from leukotree.train import Runtime

JobKind = Literal["local", "slurm"]
RESTARTS = 20
"""How often a job may be queued again, after its time limit, a preemption or the loss of a node."""
TELL = 15.0
"""Seconds that a failed rank waits before it ends its job, for the main rank to write down why."""
LOSSES = 3
"""How often a job is queued again by its own script because it lost a rank."""
HELD = 60.0
"""Seconds for which a run whose folder another process holds waits before it counts as lost: the process that had it may be cut
off, or gone, and the file system has not noticed yet."""
AT_THE_END = (
    "code=$?",
    # Its own element of an array: the number of one of them is that of the whole array.
    "id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID} id=${id:-$SLURM_JOB_ID}",
    # Losses are counted in a file: SLURM's own count has the time limits and preemptions, too.
    "lost={folder}/${{id}}_lost",
    'losses=$(($(cat "$lost" 2>/dev/null || echo 0) + 1))',
    # 75: a rank lost another; 137: a rank was killed; 134: NCCL ended it. Not where SLURM ends the job itself, least of all by
    # scancel, nor where it has begun the job anew while this script waited for a lost node.
    'now=$(squeue --all --noheader --jobs "$id" --Format=state,restartcnt | xargs)',
    f'case $code in 75|134|137) [ "$losses" -le {LOSSES} ] && [ "$now" = "RUNNING ${{SLURM_RESTART_COUNT:-0}}" ] &&',
    '    echo "$losses" >"$lost" && scontrol requeue "$id" && wait',
    "esac",
    'exit "$code"',
)
"""End of a batch script: a job that lost a rank is queued again, also where nobody waits for it. See `at_the_end`."""
PORTS = 20000, 32000
"""Where the ranks of a job meet."""
WEEK = 7 * 24 * 60
"""Time limit of a local job in minutes; submitit needs one."""
ARRAY = 1000
"""Jobs in one array where neither the site nor SLURM says how many may be."""


@dataclasses.dataclass
class Job:
    """What submitit pickles: some runs, one after another. A requeued job calls it again, and finished runs return at once."""

    specs: Sequence[RunSpec]
    root: Path
    runtime: Runtime

    def __call__(self) -> list[str]:
        """Names of the runs that failed; the reason of each is in the job's log. Raises the error of a lone run. Asked to
        stop, the run saves, and the process ends as `_leave` says."""
        hand_back = signal.getsignal(signal.SIGUSR2)  # submitit's: it queues the job again
        ranks = _export_ranks()
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        if restarts > RESTARTS:
            raise RunFailed(f"the job was queued again {restarts} times and is still not done; see its log", "node")
        try:
            with signals.watched():
                return self._runs(ranks)
        except Preempted as error:
            print(f"leukotree: {error}", file=sys.stderr)
            _leave(hand_back if callable(hand_back) else None)
            raise  # not reached

    def _runs(self, ranks: int) -> list[str]:
        failed = []
        for spec in self.specs:
            try:
                _run(spec, self.root, self.runtime)
            except Preempted:
                raise
            except Exception as error:
                what = kind_here(error, spec)
                print(f"{spec.run_name}: {what}: {one_line(error)}", file=sys.stderr)  # `said` looks for it
                if os.environ.get("RANK", "0") != "0":
                    time.sleep(TELL)
                if what == "node" and (ranks > 1 or len(self.specs) == 1):
                    sys.exit(os.EX_TEMPFAIL)  # the end of the batch script, in AT_THE_END, knows this code
                # After an error the ranks may stand at different places: nothing more can be done in this job.
                if ranks > 1 or len(self.specs) == 1:
                    raise
                failed.append(spec.run_name)
        return failed

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called by submitit at a preemption or a timeout: the same job again."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _run(spec: RunSpec, root: Path, runtime: Runtime) -> None:
    from leukotree import train

    try:
        train.run(spec, root, runtime)
    except Busy:
        time.sleep(HELD)
        train.run(spec, root, runtime)


def kind_here(error: Exception, spec: RunSpec) -> Kind:
    """The kind of an error of a run that was checked before it was queued: that its folder is still held, or that its data set
    is not on this node, is the node's fault."""
    if isinstance(error, Busy) or (isinstance(error, InputError) and not Path(spec.data.shards).is_dir()):
        return "node"
    return kind(error)


def _leave(hand_back: Callable[..., Any] | None) -> None:
    """End this process of a job, whose runs are saved, so that the job is queued again where it should be.

    SLURM itself queues it again after `scontrol requeue` and after most preemptions, and must not after `scancel`; then it
    is completing. After SIGUSR2 (near the time limit, or a preemption) and in the time that a preemption grants, submitit's
    handler does it. The other ranks leave without an error, which would end the main rank in the midst of that.
    """
    import submitit

    job = submitit.JobEnvironment()
    if job.global_rank != 0:
        sys.exit(0)
    if job.cluster == "slurm" and hand_back is not None and (signals.received() != signal.SIGTERM or _is_running(job.job_id)):
        hand_back(signal.SIGUSR2, None)
    sys.exit(os.EX_TEMPFAIL)


def _is_running(job_id: str) -> bool:
    """Whether SLURM counts this start of the job as running, and has not begun to end it."""
    command = ["squeue", "--all", "--noheader", "--jobs", job_id, "--Format=state,restartcnt"]
    for _ in range(3):  # the controller may be busy, least of all now should that lose the job
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if not answer.returncode:
            break
        time.sleep(2)
    return answer.stdout.split() == ["RUNNING", os.environ.get("SLURM_RESTART_COUNT", "0")]


def said(root: Path, run_name: str, job: str) -> tuple[str, str] | None:
    """(kind, message) of the error that ended a run, from the logs of its job; the one that says most, if several ranks did."""
    found = []
    for task in itertools.count():
        log = root / "jobs" / f"{job}_{task}_log.err"
        if not log.exists():
            break
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith(f"{run_name}: "):
                what, _, message = line.removeprefix(f"{run_name}: ").partition(": ")
                found.append((what, message))
    return min(found, key=lambda one: one[0] == "node", default=None)


def _export_ranks() -> int:
    """Give torch.distributed its environment inside a job of several tasks. Returns the number of tasks."""
    import submitit

    job = submitit.JobEnvironment()
    tasks = job.num_tasks
    if tasks > 1:
        # Below the ports that the kernel gives to outgoing connections, and another one each time the job is queued again: a
        # port that was taken once may be taken still.
        start = f"{job.job_id} {os.environ.get('SLURM_RESTART_COUNT', 0)}"
        os.environ["MASTER_PORT"] = str(random.Random(start).randint(*PORTS))
        # Which GPU a rank takes follows from LOCAL_RANK, so CUDA_VISIBLE_DEVICES stays as the scheduler set it.
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    return tasks


def layout(ranks: int, nodes: int | None, site: sites.Site) -> tuple[int, int]:
    """(nodes, ranks on each node) of a run; `nodes` None takes as few as the site's GPUs allow. Raises InputError."""
    nodes = nodes or (-(-ranks // site.gpus_per_node) if site.gpus_per_node else 1)
    if ranks % nodes:
        raise InputError(f"--ranks {ranks}: do not divide over {nodes} nodes; use a multiple of {nodes}, or set --nodes")
    each = ranks // nodes
    if site.gpus_per_node and each > site.gpus_per_node:
        raise InputError(f"--nodes {nodes}: {each} ranks on each, but the site has {site.gpus_per_node} GPUs per node")
    return nodes, each


def at_the_end(folder: Path) -> list[str]:
    """The lines of `AT_THE_END`, with the folder of the logs for the count of losses."""
    quoted = shlex.quote(str(folder.absolute()))
    return [line.format(folder=quoted) if line.startswith("lost=") else line for line in AT_THE_END]


def executor(
    on: JobKind, root: Path, ranks: int = 1, site: sites.Site | None = None, nodes: int | None = None
) -> submitit.Executor:
    """submitit's executor for jobs of `ranks` tasks on `nodes` nodes; `root/jobs` takes their logs.

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
    folder.mkdir(parents=True, exist_ok=True)
    parameters = sites.submitit_parameters(site) | {"slurm_teardown": at_the_end(folder)}
    if site.gpus_per_node:
        parameters["gpus_per_node"] = each
        if site.mem_gb:  # the site's memory is that of a whole node
            parameters["mem_gb"] = max(1, site.mem_gb * each // site.gpus_per_node)
    slurm = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=RESTARTS)
    slurm.update_parameters(**parameters | {"nodes": nodes}, tasks_per_node=each, name=root.name)
    return slurm


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
) -> list[str]:
    """Submit one job per batch of specs and note it in the study's folder. Returns the job ids.

    On SLURM the jobs are arrays, of which `parallel` (None: the site's number) run at once.
    """
    runner = executor(on, root, ranks, site, nodes)
    if on == "slurm" and runtime.device == "auto" and (site or sites.load()).gpus_per_node:
        runtime = dataclasses.replace(runtime, device="cuda")  # a node whose driver fails must not train on the CPU
    jobs = [Job(batch, root, runtime) for batch in batches]
    queued = _submit_local(runner, jobs, ranks) if on == "local" else _submit_slurm(runner, jobs, site or sites.load(), parallel)
    ids: list[str] = []
    with outside_a_job():
        for part in queued:
            # Noted at once, while later ones may still be refused: what is queued is not to be queued twice.
            submitted.record(root, {job_id: [spec.run_name for spec in job.specs] for job, job_id in part}, on)
            ids += [job_id for _, job_id in part]
    return ids


Queued = Iterator[list[tuple[Job, str]]]


def check_gpus(ranks: int, runtime: Runtime) -> None:
    """Raises InputError where a run on this machine has more ranks than there are GPUs for."""
    if 0 < (count := gpu_count(runtime)) < ranks:
        raise InputError(f"--ranks {ranks}: there are {count} GPUs here, one per rank; use fewer ranks, or --device cpu")


def _submit_local(runner: submitit.Executor, jobs: Sequence[Job], ranks: int) -> Queued:
    for index, job in enumerate(jobs):
        gpus = _gpus(index, ranks, job.runtime)
        runner.update_parameters(gpus_per_node=len(gpus), visible_gpus=gpus)
        yield [(job, runner.submit(job).job_id)]


def _submit_slurm(runner: submitit.Executor, jobs: Sequence[Job], site: sites.Site, parallel: int | None) -> Queued:
    from submitit.core.utils import FailedJobError

    runner.update_parameters(slurm_array_parallelism=parallel or site.array_parallelism)
    largest = site.max_array_size or largest_array()
    for start in range(0, len(jobs), largest):
        part = jobs[start : start + largest]
        try:
            array = runner.submit_array(part)
        except FailedJobError as error:
            raise InputError(f"sbatch refused the jobs: {one_line(error)[-300:]}; see the site file") from None
        yield [(job, queued.job_id) for job, queued in zip(part, array, strict=True)]


def largest_array() -> int:
    """SLURM's MaxArraySize: an array's numbers run from 0 to one less."""
    try:
        answer = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        answer = ""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer, re.MULTILINE)
    return int(found[1]) if found and int(found[1]) > 1 else ARRAY


def gpu_count(runtime: Runtime) -> int:
    """GPUs of this machine that a run may use."""
    import torch

    return 0 if runtime.device == "cpu" else torch.cuda.device_count()


def _gpus(index: int, ranks: int, runtime: Runtime) -> tuple[int, ...]:
    """The GPUs of the index-th local job: `ranks` of them, round and round."""
    count = gpu_count(runtime)
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if count and not all(name.isdecimal() for name in named):  # submitit takes numbers only
        raise InputError(f"CUDA_VISIBLE_DEVICES {','.join(named)}: name GPUs by their numbers, or use --on inline")
    visible = [int(name) for name in named] if count and named else list(range(count))
    return tuple(visible[(index * ranks + rank) % count] for rank in range(min(ranks, count)))


@contextmanager
def outside_a_job() -> Iterator[None]:
    """Hide the variables of the job we may be in from the jobs we submit: SLURM would take options from them."""
    import submitit

    where = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with submitit.helpers.clean_env():
        os.environ.update(where)
        yield
