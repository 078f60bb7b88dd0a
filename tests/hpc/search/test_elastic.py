"""The workers of an elastic search. Scripts with a queue in a file stand in for SLURM's commands."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpc.launching import caps
from hpc.search import elastic
from hpc.slurm.site_model import Site
from leukotree import files

COMMAND = """\
#!{python}
import json, os, sys
from pathlib import Path
name, words, path = os.path.basename(sys.argv[0]), sys.argv[1:], Path({path!r})
state = json.loads(path.read_text())
state["calls"].append([name, *words])
options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
refused = state["refuse"].get(name, "")
if not refused and name == "sbatch":
    count = int(options["--array"].split("-")[1]) + 1
    if len(state["queue"]) + count > state["limit"]:
        refused = "sbatch: error: QOSMaxSubmitJobPerUserLimit\\nsbatch: error: Batch job submission failed: \
Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    else:
        state["last"] += 1
        state["queue"].update({{f"{{state['last']}}_{{index}}": "PENDING" for index in range(count)}})
elif not refused and name == "scancel":
    for job in words:
        state["queue"].pop(job, None)
elif not refused:
    wanted = os.environ.get("SQUEUE_STATES", "")
    jobs = [(job, what) for job, what in state["queue"].items() if wanted in ("", what)]
    print("".join(f"{{job}} {{what}}\\n" for job, what in jobs), end="")
if name != "squeue":
    whole = path.with_name(f"{{os.getpid()}}.json")
    whole.write_text(json.dumps(state))
    whole.replace(path)
if refused:
    sys.exit(refused)
"""


class Queue:
    """A queue of SLURM, and the search's view of its workers."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "queue.json"
        self.path.write_text(json.dumps({"queue": {}, "last": 0, "limit": 1000, "refuse": {}, "calls": []}))
        (folder / "bin").mkdir()
        for name in ("sbatch", "squeue", "scancel"):
            (folder / "bin" / name).write_text(COMMAND.format(python=sys.executable, path=str(self.path)))
            (folder / "bin" / name).chmod(0o755)
        self.shared = folder / "here-7"
        self.shared.mkdir()
        self.joined, self.open, self.gave_up = 0, 100, list[str]()

    def __getitem__(self, key: str) -> Any:
        return json.loads(self.path.read_text())[key]

    def set(self, **values: Any) -> None:
        files.write_atomic(self.path, json.dumps(json.loads(self.path.read_text()) | values))

    def all_become(self, state: str) -> None:
        self.set(queue=dict.fromkeys(self["queue"], state))

    def calls(self, name: str) -> list[list[str]]:
        return [words for command, *words in self["calls"] if command == name]

    def workers(self, most: int, slots: int = 1) -> elastic.Workers:
        return elastic.Workers(
            elastic.Elastic(most, self.shared, Site()),
            open_trials=lambda: self.open,
            slots_per_worker=slots,
            joined=lambda: self.joined,
            give_up=self.gave_up.append,
        )

    def bad(self, *hosts: str) -> None:
        (self.shared / "bad-nodes").write_text("".join(f"{host} no room\n" for host in hosts))


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return Queue(tmp_path)


@pytest.mark.parametrize(
    ("most", "trials", "slots", "expected"),
    [(3, 100, 1, 3), (3, 2, 1, 2), (3, 1, 1, 1), (3, 5, 4, 2), (1, 1, 1, 1)],
)
def test_as_many_workers_are_queued_as_there_are_trials_for(
    queue: Queue, most: int, trials: int, slots: int, expected: int
) -> None:
    queue.open = trials
    workers = queue.workers(most, slots)
    for _ in range(3):
        assert workers._look() is None
    assert len(queue["queue"]) == expected
    assert len(queue.calls("sbatch")) == 1


def test_many_workers_are_queued_in_arrays_that_every_cluster_takes(queue: Queue) -> None:
    queue.open = 1000
    workers = queue.workers(250)
    for _ in range(4):
        workers._look()
    assert [words[0] for words in queue.calls("sbatch")] == ["--array=0-99", "--array=0-99", "--array=0-49"]


def test_superfluous_pending_workers_are_cancelled_and_running_ones_stay(queue: Queue) -> None:
    workers = queue.workers(4)
    workers._look()
    states = dict(zip(queue["queue"], ("RUNNING", "PENDING", "PENDING", "PENDING"), strict=True))
    queue.set(queue=states)
    queue.open = 2
    workers._look()
    assert sorted(queue["queue"].values()) == ["PENDING", "RUNNING"]
    queue.open = 0
    workers._look()
    assert list(queue["queue"].values()) == ["RUNNING"]


def test_a_limit_on_jobs_is_used_to_the_full(queue: Queue) -> None:
    queue.set(limit=2)
    workers = queue.workers(8)
    for _ in range(3):
        assert workers._look() is None
    assert len(queue["queue"]) == 2


def test_a_full_queue_is_asked_again_and_reported_once(
    queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    queue.set(limit=0)
    workers = queue.workers(2)
    for _ in range(3):
        assert workers._look() is None
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "leukotree: the queue takes no workers: sbatch: error: QOSMaxSubmitJobPerUserLimit"
    )
    queue.set(limit=2)
    assert workers._look() is None
    assert len(queue["queue"]) == 2


@pytest.mark.parametrize("command", ["squeue", "sbatch"])
def test_a_slurm_that_does_not_answer_is_asked_again(queue: Queue, command: str) -> None:
    queue.set(refuse={command: f"{command}: error: Unable to contact slurm controller (connect failure)"})
    workers = queue.workers(2)
    for _ in range(10):
        assert workers._look() is None
    assert queue["queue"] == {}
    queue.set(refuse={})
    assert workers._look() is None
    assert len(queue["queue"]) == 2


def test_a_lasting_refusal_ends_the_search_with_the_words_of_slurm(queue: Queue) -> None:
    queue.set(refuse={"sbatch": "sbatch: error: invalid partition specified: moon"})
    assert (
        queue.workers(4)._look()
        == "sbatch refused the workers: sbatch: error: invalid partition specified: moon; see the site file"
    )


def test_a_refusal_while_other_workers_run_is_ignored(queue: Queue) -> None:
    queue.joined = 1
    queue.set(refuse={"sbatch": "sbatch: error: invalid partition specified: moon"})
    assert queue.workers(4)._look() is None


def test_workers_that_end_at_once_are_queued_a_few_times_only(queue: Queue) -> None:
    workers = queue.workers(2)
    answers = []
    for _ in range(caps.UNJOINED_WORKERS + 1):
        answers.append(workers._look())
        queue.set(queue={})
    assert answers[:-1] == [None] * caps.UNJOINED_WORKERS
    assert "workers end before they join the search" in str(answers[-1])


def test_all_workers_may_be_lost_repeatedly_if_they_had_joined(queue: Queue) -> None:
    """For example on a partition whose jobs are preempted."""
    workers = queue.workers(2)
    for _ in range(3 * caps.UNJOINED_WORKERS):
        queue.joined = 0
        assert workers._look() is None
        queue.joined = 2
        assert workers._look() is None
        queue.set(queue={})
    assert queue.gave_up == []


def test_bad_nodes_are_excluded_and_two_of_them_end_a_search_without_workers(queue: Queue) -> None:
    workers = queue.workers(1)
    workers._look()
    queue.set(queue={})
    queue.bad("n1")
    assert workers._look() is None
    assert "--exclude=n1" in queue.calls("sbatch")[-1]
    queue.set(queue={})
    queue.bad("n1", "n2")
    assert workers._look() == "workers cannot start on n1, n2 (n2: no room); fix that"


def test_nodes_that_became_bad_over_a_long_search_do_not_end_it(queue: Queue) -> None:
    workers = queue.workers(1)
    for number in range(5):
        queue.bad(*(f"n{index}" for index in range(number + 1)))
        queue.joined = 0
        assert workers._look() is None
        queue.joined = 1
        assert workers._look() is None
        queue.set(queue={})


def test_settings_of_a_user_for_squeue_hide_no_worker(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden workers would be queued again and again."""
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    workers = queue.workers(2)
    for _ in range(3):
        workers._look()
    assert len(queue["queue"]) == 2


def until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow("runs whole commands")
@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_at_the_end_of_the_search_its_workers_are_cancelled(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Held workers too: they are pending."""
    monkeypatch.setattr(elastic, "TICK", 0.05)
    with queue.workers(3):
        until(lambda: len(queue["queue"]) == 3)
        time.sleep(0.3)
        queue.all_become(state)
    assert queue["queue"] == {}
    assert queue.gave_up == []


def test_an_error_in_the_thread_is_reported_to_the_search(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elastic, "TICK", 0.05)
    workers = queue.workers(1)
    monkeypatch.setattr(workers, "_joined", lambda: 1 // 0)
    with workers:
        until(lambda: bool(queue.gave_up))
    assert queue.gave_up == [
        "the workers cannot be managed: ZeroDivisionError: integer division or modulo by zero"
    ]
