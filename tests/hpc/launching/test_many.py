"""Many runs at once: what is missing is done, what is done stays, what fails is told and tried again where
that helps."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpc.launching import caps, job_notes, retries, runs, sender, submission
from hpc.launching import job as jobs
from hpc.launching.place import Place, Where
from hpc.launching.runs import Outcome
from hpc.search.choice import chosen
from hpc.studies.study import Study
from leukotree import files
from leukotree.config import parse
from leukotree.errors import InputError, RunFailed
from leukotree.records import predictions
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec

pytestmark = pytest.mark.slow("trains in jobs of this machine")

QUIET = Runtime(device="cpu", threads=1, quiet=True)


@pytest.fixture
def plan(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """One variant, four outer folds, and a search that has ended."""
    monkeypatch.chdir(tmp_path)
    fields = {
        "study": "folds",
        "base": {
            "data": {"shards": str(shards)},
            "backbone": {"name": "test_vit"},
            "engine": {"precision": "fp32"},
            "optim": {"epochs": 1, "batch_size": 16},
        },
        "variants": ["flat"],
        "folds": {"outer": 4, "inner": 2},
        "search": {"nested": False, "trials": 1, "space": {"loss.gamma": {"uniform": [0, 5]}}},
    }
    plan = parse(Study, fields, "test")
    folder = plan.search_folder(plan.search_ids[0])
    folder.mkdir(parents=True)
    (folder / "best.yaml").write_text(yaml.safe_dump({"test_fold": 0, "chosen": {"loss.gamma": 1.25}}))
    return plan


def launched(plan: Study, on: Where = "local", **options: Any) -> Outcome:
    return runs.run_many(folds(plan), plan.root, Place(on), runtime=QUIET, **options)


def folds(plan: Study) -> list[RunSpec]:
    return plan.fold_specs(chosen(plan))


def spoil(plan: Study, spec: RunSpec) -> Path:
    """A run folder of another version of the defaults, which is refused before the run begins."""
    folder = plan.root / spec.run_name
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text("variant: flat\n")
    return folder


def ended(
    plan: Study,
    spec: RunSpec,
    *,
    after: Sequence[str | None] = (None,),
    at: Sequence[int] = (),
    **status: Any,
) -> None:
    """What a run leaves that began once for each of `after`, from the checkpoints `at` (older versions did
    not say), and whose last attempt ended as `status` says."""
    folder = plan.root / spec.run_name
    folder.mkdir(parents=True, exist_ok=True)
    attempts = [
        {"ranks": 1, "after": one, **({"at": at[number]} if at else {})} for number, one in enumerate(after)
    ]
    (folder / "attempts.jsonl").write_text("".join(json.dumps(attempt) + "\n" for attempt in attempts))
    (folder / "status.json").write_text(
        json.dumps({"epoch": 0, "epochs": 1, "heartbeat": time.time() - 999, **status})
    )


def test_without_a_search_there_is_nothing_to_launch(plan: Study) -> None:
    (plan.search_folder(plan.search_ids[0]) / "best.yaml").unlink()
    with pytest.raises(InputError, match=r"best\.yaml: missing; run `leukotree sweep`"):
        folds(plan)


def test_local_jobs_do_every_fold_once(plan: Study) -> None:
    first = launched(plan, parallel=2)
    assert (len(first.submitted), len(first.done), first.failed, first.waiting) == (2, 4, {}, {})
    keys = []
    for spec in folds(plan):
        frame, _, _ = predictions.read(plan.root / spec.run_name)
        assert set(frame["fold"]) == {spec.data.test_fold}
        keys += list(frame["key"])
    assert (
        len(keys) == len(set(keys)) == 28 * 6
    )  # every image is scored once, by a model that never saw its patient

    again = launched(plan)
    assert (again.submitted, sorted(again.done)) == ([], sorted(first.done))
    assert again.lines() == ["4 runs done, 0 failed, 0 queued or at work"]


def test_a_refused_run_stops_no_other_and_is_done_when_repaired(plan: Study) -> None:
    broken, *others = folds(plan)
    folder = spoil(plan, broken)
    result = launched(plan, parallel=1)
    assert len(result.submitted) == 1, "the same refusal would come again"
    assert sorted(result.done) == sorted(spec.run_name for spec in others)
    assert result.failed[broken.run_name].startswith("error: ")
    assert "made by another version of the defaults" in result.failed[broken.run_name]
    assert "\n" not in result.failed[broken.run_name]

    (folder / "spec.yaml").unlink()
    assert runs.missing(folds(plan), plan.root) == [broken]
    repaired = launched(plan, "inline")
    assert (len(repaired.done), repaired.failed) == (4, {})


def test_inline_failures_are_told_too(plan: Study) -> None:
    for spec in folds(plan):
        spoil(plan, spec)
    result = launched(plan, "inline")
    assert len(result.failed) == 4
    assert all("another version of the defaults" in line for line in result.lines()[1:])
    assert json.loads(json.dumps(result.as_dict()))["done"] == []


def test_what_is_queued_is_not_submitted_twice(plan: Study) -> None:
    first = launched(plan, parallel=1, wait=False)
    assert len(first.waiting) == 4
    assert runs.missing(folds(plan), plan.root) == []
    second = launched(plan)  # waits for the jobs of the first
    assert second.submitted == []
    assert len(second.done) == 4
    assert job_notes.alive(plan.root) == {}


@pytest.mark.parametrize("kind", ["oom", "nan", "error"])
def test_a_run_that_failed_by_itself_is_reported_and_not_repeated(plan: Study, kind: str) -> None:
    first, *others = folds(plan)
    ended(plan, first, state="failed", kind=kind, message="it went wrong")
    assert runs.missing(folds(plan), plan.root) == others
    assert runs.missing(folds(plan), plan.root, retry_failed=True) == [first, *others]
    outcome = runs.run_many([first], plan.root, Place("local"), runtime=QUIET)
    expected = f"{kind}: it went wrong; its spec: {plan.root / first.run_name / 'spec.yaml'}"
    assert (outcome.submitted, outcome.failed) == ([], {first.run_name: expected})


def test_a_run_that_met_a_full_disk_is_tried_by_the_next_command_but_not_by_the_same(plan: Study) -> None:
    first, *_ = folds(plan)
    ended(plan, first, state="failed", kind="disk", message="no room")
    assert first in runs.missing(folds(plan), plan.root)
    assert first not in runs.missing(folds(plan), plan.root, new_command=False)


@pytest.mark.parametrize("kind", ["preempted", "timeout", "node", "server"])
def test_a_run_that_its_slot_ended_is_tried_again_so_many_times(plan: Study, kind: str) -> None:
    first, *_ = folds(plan)
    cap = caps.RUN_ENDS[kind]
    before = [None, *[kind] * (cap - 1), "oom"]  # of other kinds there may have been more
    ended(plan, first, after=before, state="preempted", kind=kind)
    assert first in runs.missing(folds(plan), plan.root)
    ended(plan, first, after=[*before, kind], state="preempted", kind=kind)
    assert first not in runs.missing(folds(plan), plan.root)
    outcome = runs.run_many([first], plan.root, Place("local"), runtime=QUIET)
    assert outcome.failed[first.run_name].startswith(f"{kind}: ended as {kind} for the {cap + 1}th time")
    assert first in runs.missing(folds(plan), plan.root, retry_failed=True)


@pytest.mark.parametrize("kind", ["preempted", "timeout", "node", "server"])
def test_a_run_that_comes_further_each_time_is_tried_again_for_ever(plan: Study, kind: str) -> None:
    first, *_ = folds(plan)
    folder, ends = plan.root / first.run_name, 50
    ended(
        plan,
        first,
        after=[None, *[kind] * ends],
        at=[9 * attempt for attempt in range(ends + 1)],
        state="preempted",
        kind=kind,
    )
    assert retries.ends_without_progress(folder, kind) == 1, "the last attempt left no newer checkpoint"
    (folder / "checkpoints" / f"{9 * ends + 1:08d}").mkdir(parents=True)
    assert retries.ends_without_progress(folder, kind) == 0
    assert first in runs.missing(folds(plan), plan.root)


def test_attempts_in_a_row_that_come_no_further_are_counted(plan: Study) -> None:
    first, *_ = folds(plan)
    (plan.root / first.run_name / "checkpoints" / "00000007").mkdir(parents=True)
    cap = caps.RUN_ENDS["node"]
    ended(plan, first, after=[None, *["node"] * cap], at=[0, *[7] * cap], state="preempted", kind="node")
    assert first in runs.missing(folds(plan), plan.root)
    ended(
        plan,
        first,
        after=[None, *["node"] * (cap + 1)],
        at=[0, *[7] * (cap + 1)],
        state="preempted",
        kind="node",
    )
    assert first not in runs.missing(folds(plan), plan.root)


def test_a_job_that_was_queued_again_often_ends_unless_its_run_comes_further(
    plan: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    cap, [first, *_] = caps.RUN_ENDS["timeout"], folds(plan)
    for name, value in {"RESTART_COUNT": str(cap + 1), "JOB_ID": "5"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    ended(
        plan, first, after=[None, *["timeout"] * cap], at=[0] * (cap + 1), state="preempted", kind="timeout"
    )
    job, losses = jobs.Job([first], plan.root, QUIET), plan.root / "jobs" / "5_lost"
    losses.parent.mkdir()
    losses.write_text("3\n")
    with pytest.raises(RunFailed, match=f"was queued again {cap + 1} times without progress"):
        job._check_progress()
    assert losses.exists()
    (plan.root / first.run_name / "checkpoints" / "00000007").mkdir(parents=True)
    job._check_progress()
    assert not losses.exists(), "its losses count from zero"


def test_a_run_whose_process_vanished_counts_as_a_lost_node(plan: Study) -> None:
    first, *_ = folds(plan)
    ended(plan, first, after=[None, "node", "node"], state="running")
    assert first in runs.missing(folds(plan), plan.root)
    ended(plan, first, after=[None, "node", "node", "node"], state="running")
    assert first not in runs.missing(folds(plan), plan.root)


def test_a_preempted_run_whose_next_job_was_refused_is_not_submitted_for_ever(plan: Study) -> None:
    """Its attempts do not grow: the job ended before it went on with the run."""
    first, *_ = folds(plan)
    ended(plan, first, state="preempted", kind="preempted")
    job_notes.record(plan.root, {"999999": [first.run_name]}, "local")
    log = plan.root / "jobs" / "999999_0_log.err"
    log.parent.mkdir()
    log.write_text(f"{first.run_name}: error: shards: no such folder\n")
    assert first not in runs.missing(folds(plan), plan.root, new_command=False)
    assert first in runs.missing(
        folds(plan), plan.root
    )  # somebody may have repaired it before giving the command again


def test_inline_ranks_that_die_before_the_run_begins_are_not_started_for_ever(
    plan: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def die(spec: RunSpec, *_: Any, **__: Any) -> None:
        tries.append(spec.run_name)
        raise RunFailed("rank 0 was killed", "node")

    monkeypatch.setattr(runs, "run_spec", die)
    first, *_ = folds(plan)
    outcome = runs.run_many([first], plan.root, Place("inline"), runtime=QUIET)
    assert outcome.failed == {first.run_name: "node: rank 0 was killed"}
    assert len(tries) == caps.RUN_ENDS["node"] + 1


def test_while_another_command_submits_this_one_waits_and_then_says_so(
    plan: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "BUSY_SECONDS", 2)
    plan.root.mkdir(parents=True, exist_ok=True)
    with (
        files.locked(plan.root / ".submit.lock", "busy"),
        pytest.raises(InputError, match="another command is submitting its runs"),
    ):
        launched(plan)
    assert job_notes.notes(plan.root) == {}


def test_a_job_that_is_killed_is_submitted_again_while_the_command_waits(
    plan: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, jobs_begun = submission.submit, []

    def submit_and_kill(*arguments: Any, **options: Any) -> list[str]:
        ids = submit(*arguments, **options)
        if not jobs_begun:  # the first one only: its controller, which then starts nothing
            os.kill(int(ids[0]), signal.SIGKILL)
            os.waitpid(int(ids[0]), 0)
        jobs_begun.extend(ids)
        return ids

    monkeypatch.setattr(submission, "submit", submit_and_kill)
    first, *_ = folds(plan)
    outcome = runs.run_many([first], plan.root, Place("local"), runtime=QUIET)
    assert (outcome.done, outcome.failed, len(jobs_begun)) == ([first.run_name], {}, 2)


def test_after_two_bad_nodes_a_run_is_given_up_and_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    note = {"job": "8", "on": "slurm", "jobs": ["7", "8"]}
    (tmp_path / "jobs" / "7_bad").write_text("n1,n3\n")
    assert retries.judge(tmp_path, "flat-0", note, new_command=False).again, "two nodes of one job"
    (tmp_path / "jobs" / "8_bad").write_text("n2\n")
    verdict = retries.judge(tmp_path, "flat-0", note, new_command=False)
    assert (verdict.again, verdict.reason.partition(";")[0]) == (
        False,
        "it could not begin on n1 and n2 and n3",
    )


@pytest.mark.parametrize(
    ("kind", "times", "again"),
    [("node", 1, True), ("node", 3, True), ("node", 4, False), ("error", 1, False)],
)
def test_a_run_that_a_broken_node_kept_from_beginning_is_tried_elsewhere(
    tmp_path: Path, kind: str, times: int, again: bool
) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "7_0_log.err").write_text(
        f"flat-0: {kind}: n1: the job asked for a GPU, but there is none\n"
    )
    verdict = retries.judge(
        tmp_path, "flat-0", {"job": "7", "on": "slurm", "jobs": ["7"] * times}, new_command=False
    )
    assert (verdict.again, verdict.kind) == (again, kind)
    assert retries.judge(
        tmp_path, "flat-0", {"job": "7", "on": "slurm", "jobs": ["7"] * times}, new_command=True
    ).again


def test_a_line_that_says_how_far_a_run_is_is_not_what_ended_it(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    log = tmp_path / "jobs" / "7_0_log.err"
    log.write_text("Killed\n2026-01-02 03:04:05 n1 rank 0 flat-0 INFO: epoch 2 of 9: loss 0.5\n")
    assert retries._last_log_line(tmp_path, {"job": "7"}) == f"Killed; see {log}"
