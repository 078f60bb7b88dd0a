"""What stands in the run folders: the state of every run of a study, read from the files alone.

One small read per folder, so that ten thousand folders are looked at in a second or two.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc import history
from leukotree.errors import InputError
from leukotree.files import append_lines
from leukotree.runfolder import read_status
from leukotree.spec import VARIANTS

STALE = 300.0
"""Seconds without a heartbeat after which a run that says "running" counts as hung (a live one writes every 15 s)."""
STATES = ("done", "running", "hung", "queued", "preempted", "stopped", "failed")
QUEUE = "submitted.jsonl"


@dataclass(frozen=True)
class RunState:
    """One run folder. `state` is that of status.json, but "hung" for a running one whose heartbeat is older than STALE,
    and "queued" where no status has been written yet."""

    study: str
    run_name: str
    state: str
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


def read(folder: Path, now: float | None = None) -> RunState:
    """The state of one run folder at the time `now` (unix s). A missing or broken status.json reads as "queued"."""
    status = read_status(folder)
    beat = status.get("heartbeat")
    age = max(0.0, (time.time() if now is None else now) - beat) if isinstance(beat, int | float) else None
    state = str(status.get("state", "queued"))
    if state == "running" and (age is None or age > STALE):
        state = "hung"
    epoch, epochs, message = status.get("epoch", 0), status.get("epochs", 0), status.get("message", "")
    return RunState(folder.parent.name, folder.name, state, epoch, epochs, status.get("macro_f1"), age, message)


def scan(root: str | Path) -> list[RunState]:
    """The runs of a study's folder, or of all studies if `root` holds the studies' folders; by study and name.

    Raises InputError if `root` cannot be read.
    """
    now = time.time()
    try:
        folders = _folders(root)
    except OSError as error:
        raise InputError(f"{root}: cannot be read: {error.strerror}; no run has been started there") from None
    runs = [path for path in folders if _is_run(path.name)]
    runs += [path for other in folders if not _is_run(other.name) for path in _folders(other) if _is_run(path.name)]
    return [read(folder, now) for folder in runs]


def _folders(root: str | Path) -> list[Path]:
    with os.scandir(root) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir())


def _is_run(name: str) -> bool:
    variant, _, digest = name.rpartition("-")
    return variant in VARIANTS and len(digest) == 12


def record(root: Path, run_names: Iterable[str], on: str, job_id: str) -> None:
    """Note in the study's folder which job is to do these runs."""
    root.mkdir(parents=True, exist_ok=True)
    started = _started(job_id) if on == "local" else None
    note = {"on": on, "job": job_id, "host": socket.gethostname(), "time": time.time(), "started": started}
    append_lines(root / QUEUE, (json.dumps({"run_name": name, **note}) for name in run_names))


def submitted(root: Path) -> dict[str, dict[str, Any]]:
    """run_name -> the latest note {on, job, host, time, started} that `record` made about it."""
    try:
        lines = (root / QUEUE).read_text().splitlines()
    except OSError:
        return {}
    latest = {}
    for line in lines:
        with contextlib.suppress(ValueError):  # a line cut short by a kill
            note = json.loads(line)
            latest[note.pop("run_name")] = note
    return latest


def queued(root: Path) -> dict[str, str]:
    """run_name -> job id, for the runs whose job is still waiting or at work. Raises InputError if SLURM does not answer."""
    notes = submitted(root)
    slurm = _slurm_jobs() if any(note["on"] == "slurm" for note in notes.values()) else set()
    alive = {name: note["job"] in slurm if note["on"] == "slurm" else _lives(note) for name, note in notes.items()}
    return {name: note["job"] for name, note in notes.items() if alive[name]}


def _slurm_jobs() -> set[str]:
    """Ids of this user's jobs that SLURM holds or runs, elements of arrays as 12_3. Asks squeue: it needs no accounting."""
    if not shutil.which("squeue"):
        raise InputError("squeue: not found, so jobs submitted earlier cannot be followed; run this where SLURM is")
    command = ["squeue", "--noheader", "--array", "--format=%i", "--user", str(os.getuid())]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise InputError(f"squeue: {' '.join(answer.stderr.split()) or 'failed'}; try again when SLURM answers")
    return set(answer.stdout.split())


def _lives(note: dict[str, Any]) -> bool:
    """Whether the controller process of a local job is alive."""
    if note["host"] != socket.gethostname():
        return time.time() - note["time"] < STALE  # cannot be asked from here
    return note["started"] is not None and note["started"] == _started(note["job"])


def _started(pid: str) -> str | None:
    """When a living process of this host began, in clock ticks since boot: numbers of processes are used again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[19] if fields[0] not in "ZX" else None


@dataclass(frozen=True)
class SearchState:
    """One variant's search: how many trials have reported, how many epochs in all, the best score so far."""

    study: str
    variant: str
    trials: int
    epochs: int
    best: float
    ended: bool


def searches(root: str | Path) -> list[SearchState]:
    """The searches of a study's folder, or of all studies if `root` holds the studies' folders."""
    found = []
    for path in sorted([*Path(root).glob("search/*/history.csv"), *Path(root).glob("*/search/*/history.csv")]):
        if rows := history.read(path):
            best, trials = max(row["macro_f1"] for row in rows), {row["trial"] for row in rows}
            folder = path.parent
            ended = (folder / "best.yaml").exists()
            found.append(SearchState(folder.parents[1].name, folder.name, len(trials), len(rows), best, ended))
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
        heads = ["study", "search", "trials", "epochs", "best macro_f1", "state"]
        cells = [
            [s.study, s.variant, str(s.trials), str(s.epochs), f"{s.best:.4f}", "ended" if s.ended else "open"] for s in sought
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
        heads = ["study", "run", "state", "epoch", "heartbeat", "message"]
        cells = [[r.study, r.run_name, r.state, f"{r.epoch}/{r.epochs}", _ago(r.age), r.message] for r in waiting]
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
