"""`leukotree status`, for people and as JSON: how far searches and runs are, and why their jobs wait."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hpc.launching import code_changes, job_files, run_states
from hpc.launching.run_states import Look, RunState
from hpc.search import search_states
from hpc.search.search_states import SearchState
from hpc.tables import align

STATES = ("done", "stale", "running", "hung", "queued", "lost", "preempted", "stopped", "failed")


def as_json(root: str | Path, look: Look) -> str:
    """A list of objects: one per run, with the fields of RunState, then one per search, with those of
    SearchState. Only runs have a `run_name`, only searches a `search`."""
    states: list[RunState | SearchState] = [*look.runs, *searches(root, look)]
    return json.dumps([asdict(state) for state in states], indent=1)


def searches(root: str | Path, look: Look) -> list[SearchState]:
    """The searches of the studies below `root`. A search waits where the job of its study waits in the
    queue."""
    queued = {one.study for one in look.jobs if one.kind == "sweep" and one.job.state == "PENDING"}
    return search_states.read(root, queued)


def table(root: str | Path, look: Look) -> str:
    """The answer for people. Its parts, each left out if empty: searches; runs of each variant by state, with
    their mean score; jobs that do no run; runs that are at work or ended early; waiting runs by reason;
    notes."""
    changed = code_changes.lines(look.runs, run_states.studies(root))
    parts = [
        _searches(searches(root, look)),
        _counts(look.runs),
        _jobs(look),
        _open(look.runs),
        _waiting(look.runs),
        changed,
        _notes(root, look),
    ]
    lines = [line for part in parts if part for line in ("", *part)]
    return "\n".join(lines[1:]) or f"{root}: no runs yet"


def _searches(searches: Sequence[SearchState]) -> list[str]:
    """A line for each search, then for each study the time that is left, or the command that continues it."""
    if not searches:
        return []
    again, late = any(search.reruns for search in searches), any(search.interrupted for search in searches)
    optional = ["re-runs"] * again, ["interrupted"] * late
    rows = [
        [
            "study",
            "search",
            "state",
            "trials",
            *optional[0],
            "running",
            "waiting",
            *optional[1],
            "epoch",
            "best macro_f1",
        ]
    ]
    for one in searches:
        trials = f"{one.ended} of {'?' if one.trials is None else one.trials}"
        reruns = [f"{one.reruns_ended} of {one.reruns}"] * again
        epoch = "-" if one.epoch is None else f"{one.epoch} of {one.epochs}"
        best = "-" if one.best is None else f"{one.best:.4f}"
        counts = [str(one.running), str(one.waiting), *[str(one.interrupted)] * late]
        state = "stale" if one.stale else one.state or "?"
        rows.append([one.study, one.search, state, trials, *reruns, *counts, epoch, best])
    return [*align(rows), *_of_studies(searches)]


def _of_studies(searches: Sequence[SearchState]) -> list[str]:
    lines = [f"{one.study}: {one.problem}" for one in searches if one.problem]
    lines += [f"{one.study} search/{one.search}: {one.stale}" for one in searches if one.stale]
    lines += [
        f"{one.study} search/{one.search}: stopped after {one.trials} trials: {one.closed}"
        for one in searches
        if one.closed
    ]
    for study in dict.fromkeys(one.study for one in searches):
        of_study = [one for one in searches if one.study == study]
        if any(one.state == "interrupted" for one in of_study):
            lines.append(f"{study}: no search is at work; the same `leukotree sweep` command continues it")
        elif left := next((known for one in of_study if (known := one.left)), None):
            lines.append(f"{study}: its searches take {left} more")
    return lines


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
        [
            one.study,
            one.kind,
            one.job.id,
            one.job.state,
            one.job.nodes or "-",
            one.job.left or "-",
            one.job.reason or one.job.log,
        ]
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
        message = run.message or (run.job.reason if run.job else "")
        epoch = f"{run.epoch}/{run.epochs}"
        cells.append(
            [run.study, run.run_name, run.state, run.kind or "-", epoch, _ago(run.age), *job, message]
        )
    return align([heads, *cells]) if cells else []


def _waits(run: RunState) -> bool:
    """Whether a run has not begun, so that only the reason is of interest."""
    if run.state == "lost":
        return not run.begun
    return run.state == "queued" and (run.job is None or run.job.state == "PENDING" or run.job.on == "local")


def _waiting(runs: list[RunState]) -> list[str]:
    """A line for each reason, since ten thousand runs mostly wait for the same one."""
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
    """Where the logs are, and why jobs of SLURM are not known."""
    logs = sorted({str(Path(run.job.log).parent) for run in look.runs if run.job})
    lines = [f"logs: {folder}/{job_files.LOG.format(job='JOB', task=0)}" for folder in logs]
    return (
        [*lines, f"jobs of SLURM are not known here: {look.slurm_problem}"] if look.slurm_problem else lines
    )


def _ago(age: float | None) -> str:
    if age is None:
        return "-"
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if age >= 2 * seconds:
            return f"{age / seconds:.0f} {unit} ago"
    return f"{age:.0f} s ago"
