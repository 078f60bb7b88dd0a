"""What ended a run, from the files that its jobs left: the message of a rank, a lack of memory, a broken
node."""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc.launching import job_files, job_notes
from hpc.slurm import scheduler
from leukotree.data.remote.address import is_remote
from leukotree.errors import Busy, InputError, Kind, kind
from leukotree.records import attempts, runfolder
from leukotree.spec import RunSpec

HELD_SECONDS = 60.0
"""How long a run waits whose folder another process holds, before the run counts as lost. That process may
have ended without the file system having noticed."""


def kind_in_job(error: Exception, spec: RunSpec) -> Kind:
    """The kind of an error of a run that was checked before it was queued. That its folder is still held, or
    that its data set is not on this node, is a fault of the node."""
    shards = spec.data.shards
    absent = not is_remote(shards) and not Path(shards).is_dir()  # a server has the same for all nodes
    if isinstance(error, Busy) or (isinstance(error, InputError) and absent):
        return "node"
    return kind(error)


def report_error(run_name: str, kind: Kind, message: str) -> None:
    """Print what ended a run, for `reported_error`, which reads it in the job's log."""
    print(f"{run_name}: {kind}: {message}", file=sys.stderr)


def reported_error(root: Path, run_name: str, job: str) -> tuple[str, str] | None:
    """(kind, message) of the error that ended a run, from the logs of its job. If several ranks reported one,
    one of another kind than "node" is preferred."""
    errors = []
    for task in itertools.count():
        log = job_files.log(root, job, task)
        if not log.exists():
            break
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith(f"{run_name}: "):
                kind, _, message = line.removeprefix(f"{run_name}: ").partition(": ")
                errors.append((kind, message))
    return min(errors, key=lambda error: error[0] == "node", default=None)


def bad_nodes(root: Path, note: dict[str, Any], run_name: str) -> list[str]:
    """The nodes of all `bad_places` of a run. Raises NoAnswer."""
    return sorted({node for place in bad_places(root, note, run_name) for node in place})


def bad_places(root: Path, note: dict[str, Any], run_name: str) -> set[tuple[str, ...]]:
    """The bad nodes of each job that ended before its run began. Python was missing there, or a rank reported
    a broken node: then the nodes that it names, or all nodes of the job. Raises NoAnswer."""
    return {tuple(nodes) for job in note["jobs"] if (nodes := _bad_nodes_of_job(root, job, run_name))}


def _bad_nodes_of_job(root: Path, job: str, run_name: str) -> list[str]:
    error, begun = reported_error(root, run_name, job), began(root / run_name, job)
    if error is None:
        return [] if begun else _hosts(job_files.bad_nodes(root, job))
    if error[0] != "node":
        return []
    hosts = _hosts(job_files.nodes(root, job))
    named = {_short(part.partition(":")[0]) for part in error[1].split("; ")}
    return [host for host in hosts if _short(host) in named] or ([] if begun else hosts)


def began(folder: Path, job: str) -> bool:
    """Whether an attempt of a run was made in a job."""
    return any(attempts.is_of_job(attempt, job) for attempt in attempts.read(folder))


def _hosts(path: Path) -> list[str]:
    """The nodes in a file that a batch script left; none without the file. Raises NoAnswer."""
    with contextlib.suppress(OSError):
        return _expanded(path.read_text().strip())
    return []


@functools.cache
def _expanded(nodes: str) -> list[str]:
    """The names in a list of nodes as SLURM writes it, such as n[1-2],n7. Without SLURM a list with brackets
    stays as it is."""
    if "[" in nodes:
        with contextlib.suppress(scheduler.Refused):
            return scheduler.ask("scontrol", "show", "hostnames", nodes).split()
        return [nodes]
    return [name for name in nodes.split(",") if name]


def _short(host: str) -> str:
    """A host's name without its domain."""
    return host.partition(".")[0]


def requeue_refused(root: Path, job: str) -> bool:
    """Whether SLURM refused to queue a job again after the job had lost its nodes."""
    return job_files.refused(root, job).exists()


def memory_kills(root: Path = Path("/")) -> int:
    """How often the kernel has ended a process of this control group, or of this container, for lack of
    memory."""
    kills = 0
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controller, path = line.split(":", 2)
            if controller not in ("", "memory"):  # "" in version 2 of control groups, "memory" in version 1
                continue
            top = root / "sys/fs/cgroup" / controller
            own = top / path.strip("/")
            group = own if own.is_dir() else top  # a container sees its own group as the root
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    rows = [row.split() for row in (group / name).read_text().splitlines()]
                    kills += sum(int(row[1]) for row in rows if row[0] == "oom_kill")
    return kills


def mark(root: Path, job: str, kind: Kind, message: str) -> None:
    """Note in the status of a job's runs what ended them, where they could not note it themselves."""
    for name, note in job_notes.notes(root).items():
        if note["job"] == job:
            report_error(name, kind, message)
            runfolder.mark_failed(root / name, kind, message)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command for the end of a batch script, where no rank is left to report the error."""
    parser = argparse.ArgumentParser(prog="python -m hpc.launching.failures", description=__doc__)
    for name, help_text in (
        ("jobs", "the folder of the logs"),
        ("job", "the id of the job"),
        ("kind", "how the job ended"),
        ("message", "what ended it, in one line"),
    ):
        parser.add_argument(name, help=help_text)
    given = parser.parse_args(arguments)
    mark(Path(given.jobs).parent, given.job, given.kind, given.message)


if __name__ == "__main__":
    main()
