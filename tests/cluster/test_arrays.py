"""Many runs on the real SLURM: as few calls of sbatch as its MaxArraySize allows, nothing queued twice, and a
word at the end."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.launching import job_notes, missing_list, runs
from hpc.slurm.site_model import Site
from tests.helpers.cluster.jobs import wait_for_jobs
from tests.helpers.cluster.many_runs import run, specs
from tests.helpers.cluster.slurm import Slurm

ARRAY = 101
"""MaxArraySize of the test SLURM."""
HELD = Site(partition="main", time=5, cpus_per_task=1, interface="eth0", extra={"hold": True})


@pytest.fixture
def commands(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A log of the calls of the real sbatch that queue something: its arguments, a line for each."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    real, log, folder = (
        shutil.which("sbatch", path=slurm.environment["PATH"]),
        tmp_path / "calls",
        tmp_path / "bin",
    )
    folder.mkdir()
    script = folder / "sbatch"
    script.write_text(f'#!/bin/sh\n[ "$1" = --test-only ] || echo "$@" >>{log}\nexec {real} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{slurm.environment['PATH']}")
    monkeypatch.chdir(tmp_path)
    log.touch()
    yield log
    ours = {script.name.partition("_")[0] for script in tmp_path.glob("*/jobs/*_submission.sh")}
    if ours:
        slurm.run("scancel", *ours)


def test_arrays_as_large_as_slurm_takes_and_only_what_is_missing(
    slurm: Slurm, commands: Path, shards: Path, tmp_path: Path
) -> None:
    wanted, root = specs(2 * ARRAY + 3, shards), tmp_path / "study"
    first = run(wanted, root, HELD)
    assert (len(first.submitted), len(first.waiting)) == (len(wanted), len(wanted))
    assert first.reducer is not None
    assert len(commands.read_text().splitlines()) == 3 + 1, (
        "ceil(205 / 101) arrays, and the job that says what is missing"
    )

    again = run(wanted, root, HELD)
    assert (again.submitted, len(again.waiting)) == ([], len(wanted))
    assert len(commands.read_text().splitlines()) == 4

    gone = job_notes.notes(root)[wanted[0].run_name]["job"].partition("_")[0]
    slurm.run("scancel", gone, first.reducer)
    assert len(runs.missing(wanted, root)) == ARRAY
    third = run(wanted, root, HELD)
    assert (len(third.submitted), len(third.waiting)) == (ARRAY, len(wanted))
    assert len(commands.read_text().splitlines()) == 6


def test_the_last_job_says_what_is_missing(
    slurm: Slurm, commands: Path, shards: Path, tmp_path: Path
) -> None:
    good, bad = specs(2, shards)
    root = tmp_path / "study"
    (root / bad.run_name).mkdir(parents=True)
    (root / bad.run_name / "spec.yaml").write_text("variant: flat\n")  # of another version of the defaults
    site = Site(partition="main", time=5, cpus_per_task=1, interface="eth0")
    outcome = run([good, bad], root, site)
    assert outcome.reducer is not None
    found = wait_for_jobs(slurm, outcome.reducer, seconds=240)
    assert found == {outcome.reducer: "FAILED"}, "exit code 1 where something is missing"
    answer = json.loads((root / missing_list.FILE).read_text())
    assert (answer["asked"], answer["done"], list(answer["missing"])) == (2, 1, [bad.run_name])
    assert answer["missing"][bad.run_name]["kind"] == "error"
    assert "made by another version of the defaults" in answer["missing"][bad.run_name]["message"]
    said = (root / "jobs" / f"{outcome.reducer}_0_log.out").read_text()
    assert "1 of 2 runs are done" in said
    assert f"missing: {bad.run_name}: " in said
