"""The test SLURM is a SLURM: two hosts, accounting, requeue; and it is polite to the machine that it runs
on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.checkouts import REPOSITORY
from tests.helpers.cluster.jobs import wait_for_jobs
from tests.helpers.cluster.slurm import ClusterError, Slurm


def submit(slurm: Slurm, folder: Path, shell: str, *options: str) -> tuple[str, Path]:
    """(job id, output file) of a one-line job."""
    output = folder / "job.out"
    words = ("sbatch", "--parsable", "--output", str(output), "--open-mode=append", *options, "--wrap", shell)
    return slurm.run(*words, cwd=folder).strip(), output


def test_a_job_spans_both_hosts(slurm: Slurm, tmp_path: Path) -> None:
    job, output = submit(slurm, tmp_path, "srun hostname", "-N2")
    assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}
    assert sorted(output.read_text().split()) == ["n1", "n2"]


def test_hosts_reach_each_other_by_name_and_themselves_by_loopback(slurm: Slurm, tmp_path: Path) -> None:
    listen = "import socket; s = socket.create_server(('', 17999)); s.settimeout(30)"
    serve = f"{listen}; s.accept(); s.accept(); print('served')"
    knock = "for i in $(seq 100); do (exec 3<>/dev/tcp/$1/17999) 2>/dev/null && break; sleep 0.2; done"
    (tmp_path / "knock.sh").write_text(knock)
    shell = f"""srun -N1 -n1 -w n1 --overlap python3 -c "{serve}" &
        srun -N1 -n1 -w n1 --overlap bash knock.sh 127.0.0.1
        srun -N1 -n1 -w n2 --overlap bash knock.sh n1
        wait %1"""
    job, output = submit(slurm, tmp_path, shell, "-N2")
    assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}
    assert output.read_text().split() == ["served"]


def test_hosts_have_processes_of_their_own(slurm: Slurm, tmp_path: Path) -> None:
    """What one host starts the other cannot see, so that `ray stop` there does not end it."""
    shell = "srun bash -c 'exec -a only-$(hostname) sleep 2 & sleep 1; ps -eo args | grep ^only-'"
    job, output = submit(slurm, tmp_path, shell, "-N2")
    assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}
    assert sorted(output.read_text().splitlines()) == ["only-n1 2", "only-n2 2"]


def test_a_failed_job_is_recorded_as_failed(slurm: Slurm, tmp_path: Path) -> None:
    job, _ = submit(slurm, tmp_path, "exit 3")
    assert wait_for_jobs(slurm, job) == {job: "FAILED"}


def test_a_requeued_job_runs_again_under_its_id(slurm: Slurm, tmp_path: Path) -> None:
    again = "{ scontrol requeue $SLURM_JOB_ID; sleep 60; }"
    shell = f'echo attempt ${{SLURM_RESTART_COUNT:=0}}; [ "$SLURM_RESTART_COUNT" -gt 0 ] || {again}'
    job, output = submit(slurm, tmp_path, shell, "--requeue")
    assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}
    assert [line for line in output.read_text().splitlines() if line.startswith("attempt")] == [
        "attempt 0",
        "attempt 1",
    ]


def test_a_job_can_submit_a_job(slurm: Slurm, tmp_path: Path) -> None:
    job, output = submit(slurm, tmp_path, "sbatch --parsable --output=/dev/null --wrap 'srun true'")
    assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}
    child = output.read_text().strip()
    assert wait_for_jobs(slurm, child) == {child: "COMPLETED"}


def test_up_again_changes_nothing_and_prints_the_line_to_use(slurm: Slurm) -> None:
    before = (slurm.folder / "processes").read_text()
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.cluster.slurm", "up"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"export SLURM_CONF={slurm.conf}\n"
    assert (slurm.folder / "processes").read_text() == before


def test_without_root_it_says_so_in_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match=r"^the test SLURM needs root$"):
        Slurm(tmp_path / "cluster").up()
    assert not (tmp_path / "cluster").exists()


def test_a_cluster_in_another_folder_is_refused_and_left_alone(slurm: Slurm, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="a test SLURM is up in another folder"):
        Slurm(tmp_path / "cluster").up()
    assert slurm.is_up()
