"""What a job of the real SLURM finds and leaves on its node."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.launching import submission
from hpc.launching.place import Place
from hpc.slurm import scratch
from hpc.slurm.site_model import Site
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from tests.helpers.cluster.jobs import wait_for_jobs
from tests.helpers.cluster.slurm import Slurm
from tests.helpers.specs import tiny_spec

ON_N1 = {"no-requeue": True, "nodelist": "n1"}


@pytest.fixture
def place(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    slurm.run(
        "srun",
        "--quiet",
        "-w",
        "n1",
        "sh",
        "-c",
        f"! mountpoint -q {tmp_path}/full || umount {tmp_path}/full",
    )


@pytest.fixture
def spec(shards: Path) -> RunSpec:
    return tiny_spec(shards, {"variant": "flat", "optim.batch_size": 14})


def ended(slurm: Slurm, root: Path, spec: RunSpec, **site: object) -> tuple[str, dict[str, object]]:
    """(SLURM's state of the job, the run's status) of a run on n1."""
    where = Site.model_validate({"partition": "main", "time": 5, "cpus_per_task": 1, "extra": ON_N1, **site})
    [job] = submission.submit(
        Place("slurm", site=where), root, [[spec]], runtime=Runtime(device="cpu", threads=1, quiet=True)
    )
    [state] = wait_for_jobs(slurm, job).values()
    return state, json.loads((root / spec.run_name / "status.json").read_text())


def test_a_job_trains_nothing_on_a_node_that_is_not_fit_and_names_it(
    slurm: Slurm, place: Path, spec: RunSpec
) -> None:
    full = place / "full"
    setup = [f"mkdir {full} && mount -t tmpfs -o size=1m none {full}", f"export TMPDIR={full}"]
    state, status = ended(slurm, place / "study", spec, setup=setup)
    assert (state, status["state"], status["kind"]) == ("FAILED", "preempted", "node")
    assert str(status["message"]).startswith("n1: temporary folder: ")
    assert str(status["message"]).endswith(f" MiB free in {full}")
    assert not (place / "study" / spec.run_name / "metrics.jsonl").exists()


def test_a_job_removes_what_a_killed_one_left_and_leaves_nothing(
    slurm: Slurm, place: Path, spec: RunSpec
) -> None:
    node = place / "scratch"
    for name, host in (("lt.999998.dead", "n1"), ("lt.999999.other", "n2")):
        (node / name).mkdir(parents=True)
        job, user = name.split(".")[1], pwd.getpwuid(os.geteuid()).pw_name
        marker = f"cluster={slurm.cluster}\njob={job}\nhost={host}\nuser={user}\n"
        (node / name / scratch.MARKER).write_text(marker)
    state, status = ended(slurm, place / "study", spec, scratch=str(node))
    assert (state, status["state"]) == ("COMPLETED", "done")
    assert [path.name for path in node.iterdir()] == ["lt.999999.other"], "that of another host stays"
