"""What ended a run, from what its jobs left behind: the word of a rank, the memory that was not there, a node
that is broken."""

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
from leukotree.errors import Busy, InputError, Kind, kind
from leukotree.records import attempts, runfolder
from leukotree.spec import RunSpec

HELD = 60.0
"""Seconds for which a run whose folder another process holds waits before it counts as lost: the process that
had it may be cut off, or gone, and the file system has not noticed yet."""


def kind_here(error: Exception, spec: RunSpec) -> Kind:
    """The kind of an error of a run that was checked before it was queued: that its folder is still held, or
    that its data set is not on this node, is the node's fault."""
    if isinstance(error, Busy) or (isinstance(error, InputError) and not Path(spec.data.shards).is_dir()):
        return "node"
    return kind(error)


def said(root: Path, run_name: str, job: str) -> tuple[str, str] | None:
    """(kind, message) of the error that ended a run, from the logs of its job; the one that says most, if
    several ranks did."""
    found = []
    for task in itertools.count():
        log = job_files.log(root, job, task)
        if not log.exists():
            break
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith(f"{run_name}: "):
                what, _, message = line.removeprefix(f"{run_name}: ").partition(": ")
                found.append((what, message))
    return min(found, key=lambda one: one[0] == "node", default=None)


def bad_nodes(root: Path, note: dict[str, Any], run_name: str) -> list[str]:
    """The nodes of all `bad_places` of a run. Raises NoAnswer."""
    return sorted({node for place in bad_places(root, note, run_name) for node in place})


def bad_places(root: Path, note: dict[str, Any], run_name: str) -> set[tuple[str, ...]]:
    """For each job that ended before its run began, the nodes to blame: Python was missing there, or a rank
    said that the node is broken. Those that it names, or all of the job. Raises NoAnswer."""
    return {tuple(nodes) for job in note["jobs"] if (nodes := _blamed(root, job, run_name))}


def _blamed(root: Path, job: str, run_name: str) -> list[str]:
    words, began = said(root, run_name, job), _began(root / run_name, job)
    if words is None:
        return [] if began else _hosts(job_files.bad_nodes(root, job))
    if words[0] != "node":
        return []
    hosts = _hosts(job_files.nodes(root, job))
    named = {_short(part.partition(":")[0]) for part in words[1].split("; ")}
    return [host for host in hosts if _short(host) in named] or ([] if began else hosts)


def _began(folder: Path, job: str) -> bool:
    """Whether an attempt of a run was made in a job."""
    return any(attempts.is_of_job(attempt, job) for attempt in attempts.read(folder))


def _hosts(path: Path) -> list[str]:
    """The nodes in a file that a batch script left; none without it. Raises NoAnswer."""
    with contextlib.suppress(OSError):
        return _expanded(path.read_text().strip())
    return []


@functools.cache
def _expanded(nodes: str) -> list[str]:
    """Their names, of a list as SLURM writes it: n[1-2],n7. Where SLURM is not, the list as it is."""
    if "[" in nodes:
        with contextlib.suppress(scheduler.Refused):
            return scheduler.ask("scontrol", "show", "hostnames", nodes).split()
        return [nodes]
    return [name for name in nodes.split(",") if name]


def _short(host: str) -> str:
    """A host's name without its domain."""
    return host.partition(".")[0]


def requeue_refused(root: Path, job: str) -> bool:
    """Whether SLURM would not queue a job again that had lost its place."""
    return job_files.refused(root, job).exists()


def memory_kills(root: Path = Path("/")) -> int:
    """How often the kernel has ended a process of our control group, or of the container that we are in, for
    want of memory."""
    found = 0
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controller, path = line.split(":", 2)
            if controller not in ("", "memory"):  # version 2, version 1
                continue
            top = root / "sys/fs/cgroup" / controller
            group = (
                top / path.strip("/") if (top / path.strip("/")).is_dir() else top
            )  # a container sees its own as the root
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    rows = [row.split() for row in (group / name).read_text().splitlines()]
                    found += sum(int(row[1]) for row in rows if row[0] == "oom_kill")
    return found


def mark(root: Path, job: str, what: Kind, message: str) -> None:
    """Note in their status what ended the runs of a job, which could not say it themselves."""
    for name, note in job_notes.notes(root).items():
        if note["job"] != job:
            continue
        print(f"{name}: {what}: {message}", file=sys.stderr)  # `said` looks for it
        runfolder.mark_failed(root / name, what, message)


def main(arguments: Sequence[str] | None = None) -> None:
    """For the end of a batch script, where no rank is left to say it."""
    parser = argparse.ArgumentParser(prog="python -m hpc.launching.failures", description=__doc__)
    for name, what in (
        ("jobs", "folder of the logs"),
        ("job", "its id"),
        ("kind", "of its end"),
        ("message", "one line"),
    ):
        parser.add_argument(name, help=what)
    given = parser.parse_args(arguments)
    mark(Path(given.jobs).parent, given.job, given.kind, given.message)


if __name__ == "__main__":
    main()
