"""A limit on the jobs of a user: what fits is queued, the rest follows as room comes, also where nobody
waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.launching import missing_list, runs, sender
from tests.helpers.cluster.many_runs import SITE, ids_in_queue, run, specs, talk_to
from tests.helpers.cluster.processes import wait_for
from tests.helpers.cluster.slurm import ClusterError, Settings, Slurm

LIMIT = 3


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A SLURM that takes three jobs of a user at a time."""
    cluster = Slurm(
        tmp_path_factory.mktemp("slurm"), 20, Settings(more="AccountingStorageEnforce=associations,limits")
    )
    try:
        cluster.up()
    except (ClusterError, OSError) as error:
        pytest.skip(f"no test SLURM here: {error}")
    try:
        cluster.run("sacctmgr", "-i", "add", "account", "lab")
        cluster.run("sacctmgr", "-i", "add", "user", "root", "account=lab")
        cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", f"MaxSubmitJobs={LIMIT}")
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(autouse=True)
def _here(limited: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talk_to(limited, monkeypatch)
    monkeypatch.chdir(tmp_path)


def test_the_rest_is_queued_by_the_last_job_where_nobody_waits(
    limited: Slurm, shards: Path, tmp_path: Path
) -> None:
    wanted, root = specs(4, shards), tmp_path / "study"
    first = run(wanted, root)
    assert (len(first.submitted), len(first.unsent), first.failed) == (LIMIT - 1, 2, {}), (
        "one place is that of the last job"
    )
    assert (
        f"2 runs are not queued yet, SLURM takes no more jobs: job {first.reducer} submits them"
        in " ".join(first.lines())
    )
    answer = root / missing_list.FILE
    wait_for(
        "all runs", lambda: answer.exists() and json.loads(answer.read_text())["done"] == len(wanted), 400
    )
    assert json.loads(answer.read_text())["missing"] == {}


def test_a_command_that_waits_queues_the_rest_as_room_comes(
    limited: Slurm,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wait_for("an empty queue", lambda: not ids_in_queue(limited), 60)
    monkeypatch.setattr(sender, "RETRY_SECONDS", 1.0)
    monkeypatch.setitem(runs.POLL, "slurm", 1.0)
    wanted = specs(5, shards)
    outcome = run(wanted, tmp_path / "study", SITE, wait=True)
    assert (len(outcome.done), outcome.failed, len(outcome.submitted)) == (5, {}, 5)
    assert "SLURM takes no more jobs now; 2 runs wait for room" in capsys.readouterr().err
