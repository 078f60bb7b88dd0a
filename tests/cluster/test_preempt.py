"""Runs of ranks on two hosts that lose their place, in each way a cluster takes it: they end with the same
bits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from leukotree.spec import RunSpec
from tests.helpers.cluster.processes import wait_for
from tests.helpers.cluster.slurm import Slurm
from tests.helpers.specs import tiny_spec

LEUKOTREE = [sys.executable, "-m", "hpc.cli"]
RANKS = "2"
"""One on each host."""
LIMITS = ["--threads", "1", "--device", "cpu"]
SITE = "partition: main\ntime: 30\ncpus_per_task: 1\ninterface: eth0\nwarn: 60\n"


@pytest.fixture(scope="module")
def spec(shards: Path) -> RunSpec:
    return tiny_spec(shards, {"variant": "flat", "optim.batch_size": 16, "optim.epochs": 30})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[RunSpec], pd.DataFrame]:
    """Predictions of a spec by as many ranks of one machine."""
    root = tmp_path_factory.mktemp("undisturbed")

    def predictions_of(wanted: RunSpec) -> pd.DataFrame:
        (root / "run.yaml").write_text(wanted.dump())
        words = [*LEUKOTREE, "train", "run.yaml", "--ranks", RANKS, *LIMITS]
        subprocess.run(words, cwd=root, check=True, capture_output=True)
        return _predictions(root, wanted)

    return predictions_of


def _predictions(home: Path, spec: RunSpec) -> pd.DataFrame:
    path = home / "results" / "runs" / "single" / spec.run_name / "predictions.parquet"
    return pd.read_parquet(path).sort_values("key", ignore_index=True)


class Launched:
    """`leukotree train --on slurm` over two hosts, which waits for its job."""

    def __init__(self, slurm: Slurm, home: Path, spec: RunSpec) -> None:
        self.slurm, self.home, self.spec = slurm, home, spec
        self.folder = home / "results" / "runs" / "single" / spec.run_name
        (home / "run.yaml").write_text(spec.dump())
        (home / "site.yaml").write_text(SITE)
        where = ["--on", "slurm", "--nodes", "2", "--ranks", RANKS, "--site", "site.yaml"]
        environment = slurm.environment | {"OMP_NUM_THREADS": "1"}
        self.output = (home / "output").open("w+")
        self.process = subprocess.Popen(
            [*LEUKOTREE, "train", "run.yaml", *where, *LIMITS],
            cwd=home,
            env=environment,
            stdout=self.output,
            stderr=self.output,
        )

    def state(self) -> str:
        return self.slurm.run("squeue", "--noheader", "--format=%T", "--jobs", self.job()).strip()

    def job(self) -> str:
        note = (self.folder.parent / "submitted.jsonl").read_text().splitlines()[-1]
        return str(json.loads(note)["job"])

    def trained(self, steps: int) -> bool:
        """Whether so many steps stand in its record."""
        assert self.process.poll() is None, self.said()
        record = self.folder / "metrics.jsonl"
        return record.exists() and record.read_text().count("\n") > steps

    def attempts(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.folder / "attempts.jsonl").read_text().splitlines()]

    def logs(self) -> dict[str, str]:
        """What its jobs wrote, by file name; a later attempt of a job appends to the files of the first."""
        return {log.name: log.read_text() for log in sorted((self.folder.parent / "jobs").glob("*_log.*"))}

    def said(self) -> str:
        self.output.seek(0)
        return self.output.read() + "".join(
            f"\n== {name}\n{log[-2000:]}" for name, log in self.logs().items()
        )

    def finish(self) -> pd.DataFrame:
        assert self.process.wait(500) == 0, self.said()
        return _predictions(self.home, self.spec)


@pytest.fixture
def launched(slurm: Slurm, tmp_path: Path) -> Iterator[Callable[[RunSpec], Launched]]:
    begun: list[Launched] = []

    def launch(spec: RunSpec) -> Launched:
        begun.append(Launched(slurm, tmp_path, spec))
        return begun[-1]

    yield launch
    for one in begun:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
            slurm.run("scancel", one.job().partition("_")[0])
        one.output.close()


def _no_step_twice(folder: Path) -> None:
    ended, _, _ = (folder / "metrics.jsonl").read_text().rpartition("\n")  # a line may be on its way
    rows = [json.loads(line) for line in ended.splitlines()]
    steps = [(row.get("stage"), row["epoch"], row["step"]) for row in rows if row["kind"] == "step"]
    assert len(steps) == len(set(steps))


def test_requeued_and_then_without_a_host(
    slurm: Slurm,
    spec: RunSpec,
    launched: Callable[[RunSpec], Launched],
    undisturbed: Callable[[RunSpec], pd.DataFrame],
) -> None:
    run = launched(spec)
    wait_for("training", lambda: run.trained(30), 300)
    slurm.run("scontrol", "requeue", run.job())
    wait_for("a second attempt", lambda: len(run.attempts()) == 2, 400)
    before = len((run.folder / "metrics.jsonl").read_text().splitlines())
    wait_for("training", lambda: run.trained(before + 50), 300)
    slurm.kill_host("n2")
    try:
        wait_for("the job to lose its place", lambda: run.state() != "RUNNING", 240)
    finally:
        slurm.start_host("n2")
    pd.testing.assert_frame_equal(run.finish(), undisturbed(spec))
    # SLURM may still send to the new step what was meant for the lost one: then there are more attempts.
    assert [attempt["after"] for attempt in run.attempts()][:3] == [None, "preempted", "node"]
    _no_step_twice(run.folder)


def test_sharded_optimizer_asked_to_stop_by_a_preemption_that_grants_time(
    slurm: Slurm,
    spec: RunSpec,
    launched: Callable[[RunSpec], Launched],
    undisturbed: Callable[[RunSpec], pd.DataFrame],
) -> None:
    """SIGTERM while SLURM still counts the job as running: it has to be queued again by itself."""
    sharded = spec.override({"engine.strategy": "zero2", "optim.epochs": 12})
    run = launched(sharded)
    wait_for("training", lambda: run.trained(10), 300)
    slurm.run("scancel", "--signal=TERM", run.job())
    pd.testing.assert_frame_equal(run.finish(), undisturbed(sharded))
    assert [attempt["after"] for attempt in run.attempts()] == [None, "preempted"]
    _no_step_twice(run.folder)


def test_at_its_time_limit(slurm: Slurm, spec: RunSpec, launched: Callable[[RunSpec], Launched]) -> None:
    """Limits are minutes, so it is moved to a running job, and away from the next attempt. SLURM looks every
    30 s, so the run is one without an end, and is cancelled once it has gone on."""
    run = launched(spec.override({"optim.epochs": 10_000}))
    wait_for("training", lambda: run.trained(30), 300)
    *_, minutes, seconds = map(
        int, slurm.run("squeue", "--noheader", "--format=%M", "--jobs", run.job()).split(":")
    )
    slurm.run("scontrol", "update", f"JobId={run.job()}", f"TimeLimit={minutes + (1 if seconds < 45 else 2)}")
    wait_for("the job to be queued again", lambda: run.state() == "PENDING", 240)
    slurm.run("scontrol", "update", f"JobId={run.job()}", "TimeLimit=30")
    before = len((run.folder / "metrics.jsonl").read_text().splitlines())
    wait_for("training", lambda: run.trained(before + 10), 300)
    assert [attempt["after"] for attempt in run.attempts()] == [None, "preempted"]
    assert "Caught signal SIGUSR2" in "".join(run.logs().values())
    _no_step_twice(run.folder)
