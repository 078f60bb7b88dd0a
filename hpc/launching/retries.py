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
        if error and error[0] == "server":
            return _server_was_away(root, run_name, note, error[1])
        return _not_begun(root, run_name, note)
    kind = state.kind or ("node" if state.state in ("running", "hung") else "preempted")
    if state.state == "failed":  # for a new command a full disk may have room again
        reason = _with_spec(state.message or _last_log_line(root, note), folder)
        return Verdict(new_command and kind == "disk", kind, reason)
    if error and error[0] not in RETRIED:
        # Either one rank reported it while the main rank only lost that rank, or the latest job was refused
        # before it continued the run. For a new command somebody may have repaired the second.
        return Verdict(new_command and error[0] == "error", error[0], _with_spec(error[1], folder))
    if note and error and error[0] == "server":
        return _server_was_away(root, run_name, note, error[1])
    count = ends_without_progress(folder, kind)
    if kind in RETRIED and count <= caps.RUN_ENDS[kind]:
        why = f"; {state.message}" if kind == "server" else ""
        return Verdict(True, kind, f"ended as {kind} in epoch {state.epoch} of {state.epochs}{why}")
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


def _server_was_away(root: Path, run_name: str, note: dict[str, Any], message: str) -> Verdict:
    """The verdict on a run whose latest job could not fetch shards. No node is to blame."""
    times = _server_ends(root, run_name, note)
    reason = f"{message} (the {times}th time without progress); see {job_files.log(root, note['job'])}"
    return Verdict(times <= caps.RUN_ENDS["server"], "server", reason)


def server_pause(root: Path, run_name: str, note: dict[str, Any]) -> int:
    """Seconds to wait before a run is tried again: 0 unless the server of its shards was away when its latest
    job ended."""
    error = failures.reported_error(root, run_name, note["job"])
    if error is None or error[0] != "server":
        return 0
    doublings = min(_server_ends(root, run_name, note) - 1, 20)
    return min(caps.LONGEST_SERVER_PAUSE, caps.SERVER_PAUSE * 2**doublings)


def _server_ends(root: Path, run_name: str, note: dict[str, Any]) -> int:
    """How often in a row a run has ended since the server of its shards was away, without progress. The jobs
    that ended before they began an attempt count, too."""
    count = 0
    for job in reversed(note["jobs"]):
        error = failures.reported_error(root, run_name, job)
        if failures.began(root / run_name, job) or error is None or error[0] != "server":
            break
        count += 1
    if run_states.read(root / run_name).kind == "server":
        count += ends_without_progress(root / run_name, "server")
    return max(count, 1)


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
