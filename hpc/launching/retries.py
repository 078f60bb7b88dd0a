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
    """On a run that is not done and that no job is to do."""

    again: bool
    kind: str = ""
    reason: str = ""
    """One line, for people."""


def judge(root: Path, run_name: str, note: dict[str, Any] | None, *, anew: bool) -> Verdict:
    """Whether to try a run again; `note` is what `submitted.notes` has of it.

    `anew` is for the start of a command: then also a run that never began, or that met a full disk, as
    somebody may have mended
    what was wrong, or have cancelled its jobs while they waited. An end of the kinds oom, nan or error is the
    run's own, and nothing is gained by repeating it.
    """
    folder = root / run_name
    state = run_states.read(folder)
    words = failures.said(root, run_name, note["job"]) if note else None
    if not state.begun:
        if note is None or anew:
            return Verdict(True)
        if words and words[0] not in RETRIED:
            return Verdict(False, *words)
        return _unbegun(root, run_name, note)
    kind = state.kind or ("node" if state.state in ("running", "hung") else "preempted")
    if state.state == "failed":  # a full disk may have room again when somebody gives the command anew
        return Verdict(anew and kind == "disk", kind, _line(state.message or _last_words(root, note), folder))
    if words and words[0] not in RETRIED:
        # One rank said why, while the main rank saw it vanish; or the latest job was refused before it went
        # on with the run, which somebody may have mended when the command is given anew.
        return Verdict(anew and words[0] == "error", words[0], _line(words[1], folder))
    count = fruitless(folder, kind)
    if kind in RETRIED and count <= caps.RUN_ENDS[kind]:
        return Verdict(True, kind, f"ended as {kind} in epoch {state.epoch} of {state.epochs}")
    last = state.message or _last_words(root, note)
    return Verdict(
        False, kind, _line(f"ended as {kind} for the {count}th time without coming further; {last}", folder)
    )


def _unbegun(root: Path, run_name: str, note: dict[str, Any]) -> Verdict:
    times = len(note["jobs"])
    if len(failures.bad_places(root, note, run_name)) >= caps.BAD_PLACES:
        bad = failures.bad_nodes(root, note, run_name)
        where = f"it could not begin on {' and '.join(bad)}; see {job_files.log(root, note['job'])}, and whether Python is the same on each node"
        return Verdict(False, "node", where)
    return Verdict(
        times <= caps.UNSTARTED_JOBS[note["on"]],
        "node",
        f"{times} jobs ended before it began; see {job_files.log(root, note['job'])}",
    )


def fruitless(folder: Path, kind: str) -> int:
    """How many attempts of a run ended in this way since the last one that came further, the last one
    included. `after` and `at` of each attempt say how the one before it ended, and where it began itself;
    those of older versions lack `at`."""
    count, after, place = 0, kind, reached(folder)
    for attempt in reversed(attempts.read(folder)):
        began = attempt.get("at")
        if began is not None and place is not None and place > began:
            break
        count += after == kind
        after, place = attempt.get("after"), began
    return count


def _last_words(root: Path, note: dict[str, Any] | None) -> str:
    if note is None:
        return "it left no word"
    log = job_files.log(root, note["job"])
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()] if log.exists() else []
    lines = [line for line in lines if line and not (progress.LINE.search(line) or INFO_LINE.search(line))]
    return f"{lines[-1][:300]}; see {log}" if lines else f"it left no word; see {log}"


def _line(message: str, folder: Path) -> str:
    return f"{message}; its spec: {folder / SPEC}"
