"""Elastic searches on the real SLURM: their workers come one after the other, and leave in each way that a
cluster has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.cluster.jobs import wait_for_jobs
from tests.helpers.cluster.processes import wait_for
from tests.helpers.cluster.slurm import Slurm
from tests.helpers.cluster.sweep_jobs import ray_processes

SITE = {"partition": "main", "time": 30, "cpus_per_task": 3, "interface": "eth0", "small": {"time": 30}}
"""A host has four cores: one worker and the head of the search fit beside each other."""
ONE_AT_A_TIME = ["--cpus-per-trial", "3", "--threads", "1", "--workers", "0"]
"""One trial on a worker."""
LONG = ["search.trials=2", "search.rerun_top=0", "search.scheduler=none", "base.optim.epochs=50"]
"""Each trial takes longer than a worker to join."""


@pytest.fixture
def smoke(home: Path, venv: Path, shards: Path) -> Path:
    """sweeps/smoke.yaml with its data in a checkout to submit from."""
    study = Path(__file__).parents[2] / "sweeps" / "smoke.yaml"
    tree = yaml.safe_load(study.read_text())
    tree["base"]["data"]["shards"] = str(shards)
    tree["folds"]["outer"] = 4  # as the shards are packed
    tree["variants"] = ["flat", "multilabel"]
    tree["search"]["nested"] = False
    (home / "sweeps" / "smoke.yaml").write_text(yaml.safe_dump(tree))
    return home


class Search:
    """A search of that study as a job, without the folds that would follow."""

    def __init__(
        self, slurm: Slurm, home: Path, elastic: int, *overrides: str, site: Mapping[str, Any] = {}
    ) -> None:
        self.slurm, self.home = slurm, home
        (home / "site.yaml").write_text(yaml.safe_dump({**SITE, **site, "elastic": elastic}))
        self.folder = home / "results/runs/smoke/search"
        options = [f"--site={home / 'site.yaml'}", *overrides, *ONE_AT_A_TIME]
        sbatch = f".venv/bin/python -m hpc.slurm.site {home / 'site.yaml'} --sbatch"
        command = f'sbatch --parsable $({sbatch}) slurm/sweep.sh sweeps/smoke.yaml "$@"'
        environment = slurm.environment | {"OMP_NUM_THREADS": "1"}
        self.job = slurm.run("bash", "-c", command, "submit", *options, cwd=home, env=environment).strip()

    def workers(self, state: str = "RUNNING") -> dict[str, str]:
        """Job id -> node, of the workers in a state."""
        name = f"--name=leukotree-workers-{self.slurm.cluster}-{self.job}"
        lines = self.slurm.run("squeue", "-h", "-r", name, f"--states={state}", "-o", "%i %N").splitlines()
        return {line.split()[0]: " ".join(line.split()[1:]) for line in lines}

    def lines(self, name: str) -> list[dict[str, Any]]:
        files = sorted(self.folder.glob(f"*/{name}"))
        return [
            json.loads(line) | {"variant": file.parent.name}
            for file in files
            for line in file.read_text().splitlines()
        ]

    def ended(self) -> list[tuple[str, int]]:
        """(variant, number) of each trial, as often as it ended."""
        return [(line["variant"], line["trial"]) for line in self.lines("trials.jsonl") if "state" in line]

    def attempts(self) -> list[dict[str, Any]]:
        files = sorted(self.folder.glob("*/runs/*/*/attempts.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def said(self) -> str:
        logs = [
            self.home / f"slurm-{self.job}.out",
            *sorted((self.home / "results/runs/.sweeps").glob("*/worker-*.out")),
        ]
        return "".join(f"\n== {log.name}\n{log.read_text()[-3000:]}" for log in logs if log.exists())

    def wait(self, what: str, ready: Any, seconds: float = 300) -> Any:
        def check() -> bool:
            state = self.slurm.run("squeue", "-h", "--jobs", self.job, "-o", "%T").strip()
            assert state in ("PENDING", "CONFIGURING", "RUNNING"), self.said()
            return bool(ready())

        wait_for(what, check, seconds)

    def cancel_folds(self) -> None:
        """End what the search's job queued after it."""
        queued = self.slurm.run("squeue", "-h", "-o", "%F %j").splitlines()
        ids = {
            line.split()[0]
            for line in queued
            if line.split()[1] in ("smoke", "smoke-reduce", "leukotree-report")
        }
        if ids:
            self.slurm.run("scancel", *ids)


@pytest.fixture
def started(slurm: Slurm, smoke: Path) -> Iterator[Any]:
    begun: list[Search] = []

    def start(elastic: int, *overrides: str, **options: Any) -> Search:
        begun.append(Search(slurm, smoke, elastic, *overrides, **options))
        return begun[-1]

    yield start
    for search in begun:
        slurm.run("scancel", search.job)
        search.cancel_folds()


@pytest.mark.long("waits for the time limit of a worker; a search that loses its workers is tried below")
def test_workers_come_and_go_and_every_trial_completes_once(slurm: Slurm, started: Any) -> None:
    """It begins with one worker, gets a second later, loses the first to its time limit and the second to
    scancel, and ends."""
    slurm.run("scontrol", "update", "NodeName=n2", "State=DRAIN", "Reason=test")
    try:
        search = started(2, *LONG)
        search.wait("the first worker", search.workers)
        [first] = search.workers()
        search.wait("a trial on it", search.attempts)
        assert list(search.workers("PENDING").values()) == [""], "as many are queued as may be, and not more"
    finally:
        slurm.run("scontrol", "update", "NodeName=n2", "State=RESUME")
    search.wait("the second worker", lambda: len(search.workers()) == 2)
    [second] = set(search.workers()) - {first}
    search.wait("a trial on the second", lambda: {one["host"] for one in search.attempts()} == {"n1", "n2"})
    # Limits are minutes: the first gets one that is nearly over, and is told so two minutes ahead. SLURM
    # looks every 30 s.
    *_, minutes, seconds = map(int, slurm.run("squeue", "-h", "--jobs", first, "-o", "%M").split(":"))
    slurm.run("scontrol", "update", f"JobId={first}", f"TimeLimit={minutes + (1 if seconds < 45 else 2)}")
    search.wait("the first to leave", lambda: first not in search.workers("RUNNING,COMPLETING"))
    slurm.run("scancel", second)
    assert wait_for_jobs(slurm, search.job, seconds=400)[search.job] == "COMPLETED", search.said()
    search.cancel_folds()

    assert search.workers("PENDING,RUNNING,CONFIGURING,COMPLETING") == {}
    assert sorted(search.ended()) == [
        (variant, trial) for variant in ("flat", "multilabel") for trial in range(2)
    ]
    assert {line["state"] for line in search.lines("trials.jsonl") if "state" in line} <= {
        "completed",
        "stopped",
    }
    drawn = [(line["variant"], line["trial"]) for line in search.lines("trials.jsonl") if "chosen" in line]
    assert len(drawn) == len(set(drawn)), "none is drawn twice"
    assert all((search.folder / variant / "best.yaml").exists() for variant in ("flat", "multilabel"))
    assert ray_processes(slurm) == []
    assert not list((search.home / "results/runs/.sweeps").iterdir())


def test_with_one_worker_at_a_time_it_chooses_what_the_search_in_one_place_chooses(
    slurm: Slurm, started: Any, smoke: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also where that worker is lost: its trial goes on elsewhere with the same bits."""
    search = started(1, "variants=[flat]")
    search.wait("a trial", search.ended)
    slurm.run("scancel", *search.workers())
    alone = tmp_path_factory.mktemp("alone")
    words = [
        str(smoke / ".venv/bin/leukotree"),
        "sweep",
        str(smoke / "sweeps/smoke.yaml"),
        "variants=[flat]",
        "--concurrency",
        "1",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*words, "--threads", "1", "--workers", "0"],
        cwd=alone,
        env=environment,
        check=True,
        capture_output=True,
    )
    assert wait_for_jobs(slurm, search.job, seconds=400)[search.job] == "COMPLETED", search.said()
    search.cancel_folds()
    [ours] = search.folder.glob("flat/best.yaml")
    theirs = alone / ours.relative_to(smoke)
    best, other = (yaml.safe_load(path.read_text()) for path in (ours, theirs))
    for one in (best, other):
        for rerun in one.get("reruns", ()):
            rerun.pop("seconds")  # not decided by the study
    assert best == other
    assert search.workers("PENDING,RUNNING,CONFIGURING,COMPLETING") == {}


def test_a_search_whose_workers_cannot_begin_stops_and_names_the_nodes(
    slurm: Slurm, started: Any, smoke: Path
) -> None:
    """Each bad node is left out from then on; after two of them the search ends with a line."""
    scratch = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))  # short, for Ray's sockets
    (scratch / "1").mkdir()  # the head's job has one core, and a worker three
    search = started(2, site={"scratch": f"{scratch}/$SLURM_CPUS_ON_NODE"})
    assert wait_for_jobs(slurm, search.job, seconds=180)[search.job] == "FAILED", search.said()
    said = (smoke / f"slurm-{search.job}.out").read_text()
    assert "workers cannot start on" in said
    assert "Traceback" not in said
    assert search.workers("PENDING,RUNNING,CONFIGURING,COMPLETING") == {}
    assert ray_processes(slurm) == []
    shutil.rmtree(scratch)
