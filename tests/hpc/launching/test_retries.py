"""What becomes of a run whose server of shards is away: it waits, longer each time, and no node is blamed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc.launching import caps, failures, retries, runs, sender, submission
from hpc.launching import job as jobs
from hpc.launching.place import Place
from leukotree import signals
from leukotree.errors import Preempted, RunFailed
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from tests.helpers.specs import tiny_spec

QUIET = Runtime(device="cpu", threads=1, quiet=True)


@pytest.fixture
def run() -> RunSpec:
    return tiny_spec(Path("shards"), {})


def ended(
    folder: Path, *, after: Sequence[str | None] = (None,), at: Sequence[int] = (0,), kind: str
) -> None:
    """What a run leaves that began once for each of `after`, from the checkpoints `at`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"ranks": 1, "after": one, "at": place}) for one, place in zip(after, at, strict=True)
    ]
    (folder / "attempts.jsonl").write_text("\n".join(lines) + "\n")
    status = {"epoch": 0, "epochs": 1, "heartbeat": time.time(), "state": "preempted", "kind": kind}
    (folder / "status.json").write_text(json.dumps(status))


AWAY = "https://a.org/set/dataset.json: the server answers 503; no byte in 300 s"


def _jobs_that_met_a_dead_server(root: Path, name: str, count: int) -> dict[str, Any]:
    (root / "jobs").mkdir(parents=True, exist_ok=True)
    for job in range(count):
        (root / "jobs" / f"{job}_nodes").write_text(f"n{job}\n")
        (root / "jobs" / f"{job}_0_log.err").write_text(f"{name}: server: {AWAY}\n")
    return {"job": str(count - 1), "on": "slurm", "jobs": [str(job) for job in range(count)]}


@pytest.mark.parametrize("begun", [False, True])
def test_a_server_that_is_away_is_no_nodes_fault_and_the_run_waits_longer_each_time(
    tmp_path: Path, run: RunSpec, begun: bool
) -> None:
    name, cap = run.run_name, caps.RUN_ENDS["server"]
    if begun:  # once; the later jobs could not even open the data
        ended(tmp_path / name, kind="preempted")
    pauses = []
    for count in range(1, cap + 2):
        note = _jobs_that_met_a_dead_server(tmp_path, name, count)
        assert failures.bad_nodes(tmp_path, note, name) == []
        verdict = retries.judge(tmp_path, name, note, new_command=False)
        assert (verdict.again, verdict.kind) == (count <= cap, "server")
        assert verdict.reason.startswith(f"{AWAY} (the {count}th time without progress)")
        pauses.append(retries.server_pause(tmp_path, name, note))
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert retries.judge(tmp_path, name, note, new_command=True).again is not begun


def test_a_run_that_comes_further_between_two_outages_waits_as_after_the_first(
    tmp_path: Path, run: RunSpec
) -> None:
    ended(tmp_path / run.run_name, after=[None, *["server"] * 30], at=range(31), kind="server")
    (tmp_path / run.run_name / "checkpoints" / "00000031").mkdir(parents=True)
    note = _jobs_that_met_a_dead_server(tmp_path, run.run_name, 1)
    assert retries.server_pause(tmp_path, run.run_name, note) == caps.SERVER_PAUSE
    assert retries.judge(tmp_path, run.run_name, note, new_command=False).again


def test_the_next_job_begins_later_and_on_any_node(
    tmp_path: Path, run: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(submission, "submit", lambda *_, **options: given.update(options) or ["5"])
    note = _jobs_that_met_a_dead_server(tmp_path, run.run_name, 2)
    monkeypatch.setattr(sender.job_notes, "notes", lambda root: {run.run_name: note})
    one = sender.Sender(sender.Runs([run], tmp_path, Place("local"), None, QUIET))
    one.send(lambda: [run])
    assert (given["pause"], list(given["exclude"])) == (120, [])
    one.send(lambda: [run], new_command=True)
    assert given["pause"] == 0


def test_a_local_job_waits_before_its_first_run_and_can_be_stopped(
    tmp_path: Path, run: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "_received", 15)
    with pytest.raises(Preempted, match="asked to stop before the first run"):
        signals.sleep(60.0, "asked to stop before the first run")
    waited: list[float] = []
    monkeypatch.setattr(signals, "sleep", lambda seconds, done: waited.append(seconds))
    monkeypatch.setattr(jobs.meeting, "export_ranks", lambda folder: 1)
    monkeypatch.setattr(jobs, "_run", lambda *_: None)
    jobs.Job([run], tmp_path, QUIET, 60.0)()
    assert waited == [60.0]


def test_an_inline_run_whose_server_is_away_is_tried_again_after_pauses(
    tmp_path: Path, run: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def fail(*_: Any, **__: Any) -> None:
        raise RunFailed(AWAY, "server")

    monkeypatch.setattr(runs, "run_spec", fail)
    monkeypatch.setattr(signals, "sleep", lambda seconds, done: waited.append(seconds))
    outcome = runs.run_many([run], tmp_path, Place("inline"), runtime=QUIET)
    assert outcome.failed == {run.run_name: f"server: {AWAY}"}
    assert waited == [60, 120, 240]
