"""What stands in the run folders: the state of every run of a study, read from the files alone.

One small read per folder, so that ten thousand folders are looked at in a second or two.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hpc import history, submitted
from leukotree.errors import InputError
from leukotree.runfolder import read_status
from leukotree.spec import VARIANTS

STALE = 300.0
"""Seconds without a heartbeat after which a run that says "running" counts as hung (a live one writes every 15 s)."""
STATES = ("done", "running", "hung", "queued", "lost", "preempted", "stopped", "failed")


@dataclass(frozen=True)
class RunState:
    """One run. `state` is that of status.json, but "hung" for a running one whose heartbeat is older than STALE and "queued"
    where no status has been written yet. `scan` knows the jobs, too: "queued" then is a run that a job is still to begin or
    to go on with, and "lost" one whose job has ended without a word; the command that submitted it tries it again."""

    study: str
    run_name: str
    state: str
    kind: str
    """What ended a run early: preempted, timeout, node, oom, nan, disk or error."""
    epoch: int
    epochs: int
    macro_f1: float | None
    """Of the evaluated fold, once the run is done."""
    age: float | None
    """Seconds since the last heartbeat; None if there was none."""
    message: str
    """Why a failed run failed."""

    @property
    def variant(self) -> str:
        return self.run_name.rpartition("-")[0]

    @property
    def begun(self) -> bool:
        """Whether it has ever said something."""
        return self.age is not None


def read(folder: Path, now: float | None = None) -> RunState:
    """The state of one run folder at the time `now` (unix s). A missing or broken status.json reads as "queued"."""
    status = read_status(folder)
    beat = status.get("heartbeat")
    age = max(0.0, (time.time() if now is None else now) - beat) if isinstance(beat, int | float) else None
    state = str(status.get("state", "queued"))
    if state == "running" and (age is None or age > STALE):
        state = "hung"
    kind = status.get("kind", "") if state in ("preempted", "failed") else ""
    epoch, epochs, message = status.get("epoch", 0), status.get("epochs", 0), status.get("message", "")
    return RunState(folder.parent.name, folder.name, state, kind, epoch, epochs, status.get("macro_f1"), age, message)


def scan(root: str | Path) -> list[RunState]:
    """The runs of a study's folder, or of all studies if `root` holds the studies' folders; by study and name. Runs that
    were submitted and have no folder yet are among them.

    Raises InputError if `root` cannot be read.
    """
    now = time.time()
    try:
        folders = _folders(root)
    except OSError as error:
        raise InputError(f"{root}: cannot be read: {error.strerror}; no run has been started there") from None
    studies = [Path(root), *(folder for folder in folders if not _is_run(folder.name))]
    return [run for study in studies for run in _study(study, folders if study == Path(root) else _folders(study), now)]


def _study(root: Path, folders: list[Path], now: float) -> list[RunState]:
    runs = {folder.name: read(folder, now) for folder in folders if _is_run(folder.name)}
    notes = submitted.notes(root)
    open_names = [name for name in notes if name not in runs or runs[name].state not in ("done", "running")]
    if open_names:  # otherwise no job needs asking for
        try:
            alive = submitted.alive(root)
        except InputError:  # nobody here knows the jobs, as in a copy of the results
            return list(runs.values())
        for name in open_names:
            run = runs.get(name) or RunState(root.name, name, "queued", "", 0, 0, None, None, "")
            runs[name] = replace(run, state=_with_job(run.state, name in alive))
    return [runs[name] for name in sorted(runs)]


def _with_job(state: str, alive: bool) -> str:
    """The state of a run that was submitted, where its files say `state` and its job is alive or not."""
    if alive:
        return state if state == "hung" else "queued"
    return "lost" if state in ("hung", "queued") else state


def _folders(root: str | Path) -> list[Path]:
    with os.scandir(root) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir())


def _is_run(name: str) -> bool:
    variant, _, digest = name.rpartition("-")
    return variant in VARIANTS and len(digest) == 12


@dataclass(frozen=True)
class SearchState:
    """One search: how many trials have reported, how often in all (after epochs, or inner folds), the best score so far."""

    study: str
    name: str
    """The variant, and with nested searches the outer fold: "flat" or "flat/fold0"."""
    trials: int
    reports: int
    best: float
    ended: bool


def searches(root: str | Path) -> list[SearchState]:
    """The searches of a study's folder, or of all studies if `root` holds the studies' folders."""
    found = []
    patterns = [f"{study}search/*/{fold}history.csv" for study in ("", "*/") for fold in ("", "fold*/")]
    for path in sorted(path for pattern in patterns for path in Path(root).glob(pattern)):
        if rows := history.read(path):
            best, trials = max(row["macro_f1"] for row in rows), {row["trial"] for row in rows}
            folder = path.parent
            search = folder.parents[1] if folder.name.startswith("fold") else folder.parent
            ended = (folder / "best.yaml").exists()
            name = folder.relative_to(search).as_posix()
            found.append(SearchState(search.parent.name, name, len(trials), len(rows), best, ended))
    return found


def status_json(root: str | Path) -> str:
    """One object per run, with the fields of RunState."""
    return json.dumps([asdict(run) for run in scan(root)], indent=1)


def status_table(root: str | Path) -> str:
    """For people: how far each search is, how many runs of each variant are in which state and how well the finished ones
    score, then every run that is not done."""
    runs, sought = scan(root), searches(root)
    if not runs and not sought:
        return f"{root}: no runs yet"
    lines = []
    if sought:
        heads = ["study", "search", "trials", "reports", "best macro_f1", "state"]
        cells = [
            [s.study, s.name, str(s.trials), str(s.reports), f"{s.best:.4f}", "ended" if s.ended else "open"] for s in sought
        ]
        lines += [*align([heads, *cells]), *([""] if runs else [])]
    return "\n".join(lines + _runs_table(runs))


def _runs_table(runs: list[RunState]) -> list[str]:
    if not runs:
        return []
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
    lines = align(rows)
    if waiting := [run for run in runs if run.state != "done"]:
        heads = ["study", "run", "state", "kind", "epoch", "heartbeat", "message"]
        cells = [[r.study, r.run_name, r.state, r.kind or "-", f"{r.epoch}/{r.epochs}", _ago(r.age), r.message] for r in waiting]
        lines += ["", *align([heads, *cells])]
    return lines


def _ago(age: float | None) -> str:
    if age is None:
        return "-"
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if age >= 2 * seconds:
            return f"{age / seconds:.0f} {unit} ago"
    return f"{age:.0f} s ago"


def align(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
