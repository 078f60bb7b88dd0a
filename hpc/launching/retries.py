"""Which runs that ended early are tried again, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.launching import caps, failures, job_files, run_states
from leukotree import progress
from leukotree.errors import RETRIED
from leukotree.log import INFO_LINE
from leukotree.records import attempts
from leukotree.records.runfolder import SPEC, reached


@dataclass(frozen=True)
class Verdict:
    """What to do with a run that is not done and has no job."""

    again: bool
    """Whether to try it again."""
    kind: str = ""
    """How it ended."""
    reason: str = ""
    """Why it is, or is not, tried again: one line, for people."""


def judge(root: Path, run_name: str, note: dict[str, Any] | None, *, new_command: bool) -> Verdict:
    """Whether to try a run again. `note` is the run's note of `job_notes.notes`, if it has one.

    `new_command`: a command has just begun. Then a run that never began is tried again, too, and one that met
    a full disk: somebody may have repaired the cause, or have cancelled the jobs while they waited. A run
    that ended as oom, nan or error is not tried again. Raises NoAnswer."""
    folder = root / run_name
    state = run_states.read(folder)
    error = failures.reported_error(root, run_name, note["job"]) if note else None
    if not state.begun:
        if note is None or new_command:
            return Verdict(True)
        if error and error[0] not in RETRIED:
            return Verdict(False, *error)
        return _not_begun(root, run_name, note)
    kind = state.kind or ("node" if state.state in ("running", "hung") else "preempted")
    if state.state == "failed":  # for a new command a full disk may have room again
        reason = _with_spec(state.message or _last_log_line(root, note), folder)
        return Verdict(new_command and kind == "disk", kind, reason)
    if error and error[0] not in RETRIED:
        # Either one rank reported it while the main rank only lost that rank, or the latest job was refused
        # before it continued the run. For a new command somebody may have repaired the second.
        return Verdict(new_command and error[0] == "error", error[0], _with_spec(error[1], folder))
    count = ends_without_progress(folder, kind)
    if kind in RETRIED and count <= caps.RUN_ENDS[kind]:
        return Verdict(True, kind, f"ended as {kind} in epoch {state.epoch} of {state.epochs}")
    last = state.message or _last_log_line(root, note)
    reason = f"ended as {kind} for the {count}th time without progress; {last}"
    return Verdict(False, kind, _with_spec(reason, folder))


def _not_begun(root: Path, run_name: str, note: dict[str, Any]) -> Verdict:
    """The verdict on a run whose jobs all ended before it began."""
    log = job_files.log(root, note["job"])
    if len(failures.bad_places(root, note, run_name)) >= caps.BAD_PLACES:
        bad = " and ".join(failures.bad_nodes(root, note, run_name))
        reason = f"it could not begin on {bad}; see {log}, and check that Python is the same on each node"
        return Verdict(False, "node", reason)
    jobs = len(note["jobs"])
    again = jobs <= caps.UNSTARTED_JOBS[note["on"]]
    return Verdict(again, "node", f"{jobs} jobs ended before it began; see {log}")


def ends_without_progress(folder: Path, kind: str) -> int:
    """How many attempts of a run ended as `kind` since the last attempt that made progress; the latest one
    counts. An attempt's `after` is how the one before it ended, and its `at` is where it began itself.
    Attempts of older versions lack `at`."""
    count, after, place = 0, kind, reached(folder)
    for attempt in reversed(attempts.read(folder)):
        began = attempt.get("at")
        if began is not None and place is not None and place > began:
            break
        count += after == kind
        after, place = attempt.get("after"), began
    return count


def _last_log_line(root: Path, note: dict[str, Any] | None) -> str:
    if note is None:
        return "it left no message"
    log = job_files.log(root, note["job"])
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()] if log.exists() else []
    lines = [line for line in lines if line and not (progress.LINE.search(line) or INFO_LINE.search(line))]
    return f"{lines[-1][:300]}; see {log}" if lines else f"it left no message; see {log}"


def _with_spec(message: str, folder: Path) -> str:
    return f"{message}; its spec: {folder / SPEC}"
