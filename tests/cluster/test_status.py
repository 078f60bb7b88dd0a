"""What `leukotree status` says of jobs of the real SLURM: where they are, what they wait for, how long they
have."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.launching import job_notes, run_states, study_jobs, submission
from hpc.launching.place import Place
from hpc.slurm import queue
from hpc.slurm.site_model import Site
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from tests.helpers.cluster.processes import wait_for
from tests.helpers.cluster.slurm import ClusterError, Settings, Slurm
from tests.helpers.specs import tiny_spec

PARTITION = {"partition": "main", "time": 5, "cpus_per_task": 1, "interface": "eth0"}


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Slurm]:
    """A cluster that lets each user run one job."""
    cluster = Slurm(tmp_path / "slurm", 40, Settings(more="AccountingStorageEnforce=associations,limits,qos"))
    try:
        cluster.up()
    except (ClusterError, OSError) as error:
        pytest.skip(f"no test SLURM here: {error}")
    try:
        for words in (
            "add account lab",
            "add user root account=lab",
            "modify qos normal set MaxJobsPerUser=1",
        ):
            cluster.run("sacctmgr", "-i", *words.split())
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def root(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a study whose jobs are cancelled in the end."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "runs" / "demo"
    yield folder
    if ours := {job.partition("_")[0] for job in study_jobs.of_study(folder, queue.look())}:
        slurm.run("scancel", *ours)


def specs(count: int, shards: Path) -> list[RunSpec]:
    changes = {"variant": "flat", "optim.batch_size": 14, "optim.epochs": 2000}
    return [tiny_spec(shards, {**changes, "seed": seed}) for seed in range(count)]


def submit(root: Path, wanted: list[RunSpec], **extra: str | bool) -> list[str]:
    site = Site(**PARTITION, extra=extra)
    return submission.submit(
        Place("slurm", site=site),
        root,
        [[spec] for spec in wanted],
        runtime=Runtime(device="cpu", threads=1, quiet=True),
    )


def status(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hpc.cli", "status", *words], capture_output=True, text=True, check=True
    )
    return done.stdout


def reason(root: Path, job: str) -> str:
    found = {run.job.id: run.job.reason for run in run_states.scan(root) if run.job}
    return found.get(job, "none")


def test_runs_that_wait_for_the_same_are_one_line(root: Path, shards: Path) -> None:
    wanted = specs(90, shards)
    held = submit(root, wanted, hold=True)
    lines = status("demo").splitlines()
    [line] = [line for line in lines if "pending" in line]
    first = min(wanted, key=lambda spec: spec.run_name).run_name
    job = job_notes.notes(root)[first]["job"]
    assert line == f"demo: 90 runs pending: JobHeldUser; first {first}, job {job}"
    assert len(lines) < 10
    found = json.loads(status("demo", "--json"))
    assert {run["job"]["id"] for run in found} == set(held)
    log = root / "jobs" / f"{job}_0_log.err"
    one = next(run["job"] for run in found if run["run_name"] == first)
    expected = {"on": "slurm", "state": "PENDING", "reason": "JobHeldUser", "nodes": "", "left": "5:00"}
    assert one == expected | {"id": job, "log": str(log.relative_to(Path.cwd()))}


def test_a_drained_node_a_dependency_and_a_start_to_come_are_told_in_slurms_words(
    slurm: Slurm, root: Path, shards: Path
) -> None:
    drained, dependent, later = specs(3, shards)
    slurm.run("scontrol", "update", "NodeName=n2", "State=DRAIN", "Reason=a broken disk")
    try:
        [held] = submit(root, specs(4, shards)[3:], hold=True)
        [on_drained] = submit(root, [drained], nodelist="n2")
        [after] = submit(root, [dependent], hold=True)
        slurm.run("scontrol", "update", f"JobId={after}", f"Dependency=afterok:{held}")
        slurm.run("scontrol", "release", after)
        [to_come] = submit(root, [later], begin="now+1hour")
        wait_for("a reason", lambda: "n2" in reason(root, on_drained), 30)
        assert "UnavailableNodes:n2" in reason(root, on_drained)
        wait_for("the next look of the scheduler", lambda: reason(root, after) == "Dependency", 30)
        assert reason(root, to_come) == "BeginTime"
        assert (
            f"demo: 1 run pending: {reason(root, on_drained)}; {drained.run_name}, job {on_drained}"
            in status("demo")
        )
    finally:
        slurm.run("scontrol", "update", "NodeName=n2", "State=RESUME")


def test_a_limit_of_the_qos_is_told_in_slurms_words(
    strict: Slurm, root: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other:
        other.setenv("SLURM_CONF", str(strict.conf))
        [wanted] = specs(1, shards)
        strict.run("sbatch", "--output=/dev/null", "--wrap", "sleep 600")
        [job] = submit(root, [wanted])
        wait_for("a reason", lambda: reason(root, job).startswith("QOS"), 30)
        assert f"demo: 1 run pending: QOSMaxJobsPerUserLimit; {wanted.run_name}, job {job}" in status("demo")


def test_a_run_at_work_has_a_node_and_time_left(root: Path, shards: Path) -> None:
    [wanted] = specs(1, shards)
    [job] = submit(root, [wanted], nodelist="n2")
    wait_for("the run", lambda: [run.state for run in run_states.scan(root)] == ["running"], 120)
    [row] = [line for line in status("demo").splitlines() if job in line and wanted.run_name in line]
    words = row.split()
    assert words[:3] == ["demo", wanted.run_name, "running"]
    assert words[-3:-1] == [job, "n2"]
    assert re.fullmatch(r"\d:\d\d", words[-1])


def test_the_sweep_and_the_report_of_a_study_are_its_jobs(slurm: Slurm, root: Path, home: Path) -> None:
    (home / "sweeps" / "own.yaml").write_text("study: other\n")
    own, other, report = (
        slurm.run("sbatch", "--parsable", "--hold", "--output=/dev/null", *words, cwd=home).strip()
        for words in (
            ["slurm/sweep.sh", "sweeps/own.yaml", "study=demo"],
            ["slurm/sweep.sh", "sweeps/own.yaml"],
            ["--wrap", "true"],
        )
    )
    words = [
        sys.executable,
        "-m",
        "hpc.launching.study_jobs",
        "report",
        report,
        "sweeps/own.yaml",
        "study=demo",
    ]
    try:
        subprocess.run(words, cwd=home, check=True)
        kinds = {one.kind: one.job for one in run_states.look(root).jobs}
        assert set(kinds) == {"sweep", "report"}
        assert (kinds["sweep"].id, kinds["report"].id) == (own, report)
        assert kinds["sweep"].reason == "JobHeldUser"
        assert f"demo   report  {report}" in status("demo")
        assert sorted(one.kind for one in run_states.look(root.parent).jobs if one.study == "demo") == [
            "report",
            "sweep",
        ]
    finally:
        slurm.run("scancel", own, other, report)


def test_an_id_that_slurm_gave_to_another_job_is_not_the_studys(slurm: Slurm, root: Path, home: Path) -> None:
    job = slurm.run(
        "sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap", "true", cwd=home
    ).strip()
    try:
        study_jobs.note(root, "report", job)
        assert study_jobs.of_study(root, queue.look()) == {job: "report"}
        line = json.loads((root / study_jobs.NOTES).read_text())
        (root / study_jobs.NOTES).write_text(json.dumps(line | {"name": "leukotree-report"}))
        assert study_jobs.of_study(root, queue.look()) == {}
    finally:
        slurm.run("scancel", job)


def test_a_job_that_slurm_does_not_know_is_refused_in_one_line(root: Path, home: Path) -> None:
    (home / "sweeps" / "own.yaml").write_text("study: demo\n")
    words = [sys.executable, "-m", "hpc.launching.study_jobs", "report", "999999", "sweeps/own.yaml"]
    done = subprocess.run(words, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: job 999999: not noted: scontrol: slurm_load_jobs error: Invalid job id specified\n"
    )
