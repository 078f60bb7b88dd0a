"""`leukotree status`, for people and as JSON: how far searches and runs are, and what their jobs wait for."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from hpc import code_changes, store
from hpc.store import Look, RunState
from hpc.tables import align

STATES = ("done", "stale", "running", "hung", "queued", "lost", "preempted", "stopped", "failed")


def as_json(look: Look) -> str:
    """One object per run, with the fields of RunState."""
    return json.dumps([asdict(run) for run in look.runs], indent=1)


def table(root: str | Path, look: Look) -> str:
    """How far each search is, how many runs of each variant are in which state and how well the finished ones score, the jobs
    that do no run, each run that is at work or has ended early, and those that have not begun, counted by what they wait for."""
    changed = code_changes.lines(look.runs, store.studies(root))
    parts = [
        _searches(root), _counts(look.runs), _jobs(look), _open(look.runs), _waiting(look.runs), changed, _notes(root, look)
    ]  # fmt: skip
    lines = [line for part in parts if part for line in ("", *part)]
    return "\n".join(lines[1:]) or f"{root}: no runs yet"


def _searches(root: str | Path) -> list[str]:
    heads = ["study", "search", "trials", "reports", "best macro_f1", "state"]
    found = store.searches(root)
    cells = [
        [s.study, s.name, str(s.trials), str(s.reports), f"{s.best:.4f}", "stale" if s.stale else "ended" if s.ended else "open"]
        for s in found
    ]
    return align([heads, *cells]) + [f"{s.study} search/{s.name}: {s.stale}" for s in found if s.stale] if cells else []


def _counts(runs: list[RunState]) -> list[str]:
    groups: dict[tuple[str, str], list[RunState]] = {}
    for run in runs:
        groups.setdefault((run.study, run.variant), []).append(run)
    counts = {key: Counter(run.state for run in group) for key, group in groups.items()}
    states = [state for state in STATES if any(count[state] for count in counts.values())]
    rows = [["study", "variant", *states, "macro_f1"]]
    for key, group in groups.items():
        scores = [run.macro_f1 for run in group if run.macro_f1 is not None]
        mean = f"{sum(scores) / len(scores):.4f}" if scores else "-"
        rows.append([*key, *(str(counts[key][state]) for state in states), mean])
    return align(rows) if runs else []


def _jobs(look: Look) -> list[str]:
    heads = ["study", "job of", "job", "state", "node", "time left", "log or reason"]
    cells = [
        [one.study, one.kind, one.job.id, one.job.state, one.job.nodes or "-", one.job.left or "-", one.job.reason or one.job.log]
        for one in look.jobs
    ]
    return align([heads, *cells]) if cells else []


def _open(runs: list[RunState]) -> list[str]:
    heads = ["study", "run", "state", "kind", "epoch", "heartbeat", "job", "node", "time left", "message"]
    cells = []
    for run in runs:
        if run.state == "done" or _waits(run):
            continue
        job = [run.job.id, run.job.nodes or "-", run.job.left or "-"] if run.job else ["-", "-", "-"]
        said = run.message or (run.job.reason if run.job else "")
        epoch = f"{run.epoch}/{run.epochs}"
        cells.append([run.study, run.run_name, run.state, run.kind or "-", epoch, _ago(run.age), *job, said])
    return align([heads, *cells]) if cells else []


def _waits(run: RunState) -> bool:
    """Whether there is no more to say of a run than why it has not begun."""
    if run.state == "lost":
        return not run.begun
    return run.state == "queued" and (run.job is None or run.job.state == "PENDING" or run.job.on == "local")


def _waiting(runs: list[RunState]) -> list[str]:
    """A line for each reason: ten thousand runs mostly wait for the same."""
    groups: dict[tuple[str, str], list[RunState]] = {}
    for run in filter(_waits, runs):
        groups.setdefault((run.study, _reason(run)), []).append(run)
    lines = []
    for (study, reason), group in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]))):
        first, many = group[0], len(group) > 1
        job = f", job {first.job.id}" if first.job else ""
        named = f"{len(group)} runs" if many else "1 run"
        lines.append(f"{study}: {named} {reason}; {'first ' if many else ''}{first.run_name}{job}")
    return lines


def _reason(run: RunState) -> str:
    if run.state == "lost":
        return "lost: the job ended before the run began"
    if run.job is None:
        return "pending: no job is known"
    if run.job.on == "local":
        return f"pending: a local job on {run.job.nodes} is to do it"
    return f"pending: {run.job.reason or 'SLURM gives no reason'}"


def _notes(root: str | Path, look: Look) -> list[str]:
    """Where the logs lie, and what could not be known."""
    logs = sorted({str(Path(run.job.log).parent) for run in look.runs if run.job})
    lines = [f"logs: {folder}/JOB_0_log.err" for folder in logs]
    return [*lines, f"jobs of SLURM are not known here: {look.silent}"] if look.silent else lines


def _ago(age: float | None) -> str:
    if age is None:
        return "-"
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if age >= 2 * seconds:
            return f"{age / seconds:.0f} {unit} ago"
    return f"{age:.0f} s ago"
