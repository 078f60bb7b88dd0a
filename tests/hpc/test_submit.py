"""`leukotree submit` with a stand-in for sbatch: what is refused before sbatch is asked, and how its answer
is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from tests.helpers.commandline import assert_refused, leukotree


@pytest.fixture
def root(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a study, and commands of SLURM that take everything."""
    base = {
        "data": {"shards": str(shards)},
        "backbone": {"name": "test_vit"},
        "optim": {"batch_size": 9, "epochs": 1},
    }
    search = {"trials": 2, "space": {"optim.lr": {"loguniform": [0.0001, 0.01]}}}
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump({"study": "demo", "base": base, "folds": {"outer": 4}, "search": search})
    )
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/sweep.sh").touch()
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun", "squeue", "scontrol", "sinfo", "sacctmgr"):
        stand_in(tmp_path, name, "exit 0")
    stand_in(tmp_path, "sbatch", "echo Submitted batch job 77")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("LEUKOTREE_HOME", str(tmp_path))
    monkeypatch.delenv("SITE", raising=False)
    return tmp_path


def stand_in(root: Path, name: str, script: str) -> None:
    (root / "bin" / name).write_text(f'#!/bin/sh\n[ "$1" != --test-only ] || exit 0\n{script}\n')
    (root / "bin" / name).chmod(0o755)


def test_it_names_the_study_that_it_has_queued(root: Path) -> None:
    done = leukotree("submit", "study.yaml", "study=short", cwd=root)
    assert done.stdout.splitlines()[-1] == "job 77; `leukotree status short` says how far it is", done.stderr


@pytest.mark.slow("runs whole commands")
def test_the_job_gets_the_code_of_its_submission(root: Path) -> None:
    stand_in(root, "sbatch", 'echo "$LEUKOTREE_CODE" >code; echo Submitted batch job 77')
    assert leukotree("submit", "study.yaml", "--dry-run", cwd=root).returncode == 0
    assert not (root / "results").exists()
    assert leukotree("submit", "study.yaml", cwd=root).returncode == 0
    copy = Path((root / "code").read_text().strip())
    assert copy.parent == root / "results" / "runs" / ".code"
    assert (copy / "hpc" / "submit.py").is_file()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--gpus-per-trail", "0.5"], ["unrecognized arguments: --gpus-per-trail"]),
        (["--gpus-per-trial", "2"], ["--gpus-per-trial", "a share of one GPU"]),
        (["--ranks-per-trial", "2"], ["optim.batch_size", "9", "2 ranks"]),
    ],
)
def test_what_follows_the_dashes_is_checked_before_anything_is_queued(
    root: Path, options: list[str], says: list[str]
) -> None:
    stand_in(root, "sbatch", "touch queued")
    assert_refused(leukotree("submit", "study.yaml", "--", *options, cwd=root), *says)
    assert not (root / "queued").exists()


def test_a_controller_that_did_not_answer_may_have_queued_the_job(root: Path) -> None:
    stand_in(root, "sbatch", "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1")
    done = leukotree("submit", "study.yaml", cwd=root)
    assert done.returncode == 2
    message = done.stderr.splitlines()[-1]
    assert (
        "Socket timed out on send/recv operation; the job may be queued all the same; see `squeue --me`"
        in message
    )
    assert "site file" not in message


def test_status_and_cancel_take_the_changes_that_name_another_study(root: Path) -> None:
    (root / "results/runs/short").mkdir(parents=True)
    for verb in ("status", "cancel"):
        done = leukotree(verb, "study.yaml", "study=short", cwd=root)
        assert done.returncode == 0, done.stderr
        assert "short" in done.stdout
        assert_refused(leukotree(verb, "study.yaml", cwd=root), "results/runs/demo")
        assert_refused(leukotree(verb, "short", "study=demo", cwd=root), "study=demo", "name")
