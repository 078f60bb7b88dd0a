"""`leukotree submit` on the real SLURM: it queues what the site says, or refuses in one line. The batch
script notes its call."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hpc.cli import main
from hpc.slurm import exported
from hpc.slurm.site_model import Site
from tests.helpers.cluster.jobs import wait_for_jobs
from tests.helpers.cluster.slurm import Slurm

NOTE = """#!/bin/bash
#SBATCH --output=slurm-%j.out
python3 - "$@" <<'END'
import json, os, sys
ours = ("SITE", "LEUKOTREE", "SLURM_", "SBATCH_", "SECRET")
named = {name: value for name, value in os.environ.items() if name.startswith(ours)}
print(json.dumps({"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": named}))
END
"""


@pytest.fixture
def root(slurm: Slurm, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a study, and a shell in it that speaks to the cluster."""
    base = {
        "data": {"shards": str(shards)},
        "backbone": {"name": "test_vit"},
        "engine": {"precision": "fp32"},
        "optim": {"batch_size": 8, "epochs": 1},
    }
    search = {"trials": 2, "space": {"optim.lr": {"loguniform": [0.0001, 0.01]}}}
    study = {"study": "demo", "base": base, "folds": {"outer": 4}, "search": search}
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/sweep.sh").write_text(NOTE)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    (tmp_path / "site.yaml").write_text("partition: main\ntime: 5\nnodes: 2\ncpus_per_task: 2\n")
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SITE", raising=False)
    monkeypatch.setenv("LEUKOTREE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noted(slurm: Slurm, root: Path, said: str) -> dict:
    """What the batch script of the job noted that a command says it queued."""
    job = said.split("job ")[1].split(";")[0].split()[0]
    assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}
    return json.loads((root / f"slurm-{job}.out").read_text())


def submit(*words: str) -> int:
    return main(["submit", *words])


def test_the_job_gets_the_options_of_the_site_and_all_arguments(
    slurm: Slurm, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        submit("study.yaml", "search.trials=3", "--site", "./site.yaml", "--", "--gpus-per-trial", "0.5") == 0
    )
    line, said = capsys.readouterr().out.splitlines()
    job = noted(slurm, root, said)
    assert job["arguments"] == ["study.yaml", "search.trials=3", "--gpus-per-trial", "0.5"]
    assert job["folder"] == str(root)
    assert job["environment"]["SITE"] == str(root / "site.yaml")
    assert (job["environment"]["SLURM_NNODES"], job["environment"]["SLURM_CPUS_PER_TASK"]) == ("2", "2")
    assert line.startswith(f"SITE={root}/site.yaml sbatch --partition=main --time=5 --nodes=2 ")


def test_a_dry_run_prints_a_line_to_paste_from_anywhere(
    slurm: Slurm,
    root: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = tmp_path_factory.mktemp("else where")
    monkeypatch.chdir(elsewhere)
    before = slurm.run("squeue", "-h")
    assert submit("study.yaml", "study=it's", "--site", str(root / "site.yaml"), "--dry-run") == 2, (
        "no name of a folder"
    )
    assert (
        submit(
            "study.yaml",
            "search.space.optim.lr={loguniform: [0.001, 0.01]}",
            "--site",
            str(root / "site.yaml"),
            "--dry-run",
        )
        == 0
    )
    line = capsys.readouterr().out
    assert slurm.run("squeue", "-h") == before
    pasted = subprocess.run(["bash", "-c", line], cwd=elsewhere, capture_output=True, text=True, check=True)
    job = noted(slurm, root, pasted.stdout)
    assert job["arguments"] == ["study.yaml", "search.space.optim.lr={loguniform: [0.001, 0.01]}"]


@pytest.mark.parametrize(
    ("site", "says"),
    [
        ("partion: main\n", "unknown key 'partion', did you mean 'partition'"),
        ("partition: gpu\n", "invalid partition specified: gpu"),
        (
            "nodes: 3\ncpus_per_task: 1\n",
            "jobs of sweeps: sbatch refuses: Requested node configuration is not available",
        ),
    ],
)
def test_a_site_that_is_wrong_queues_nothing(
    slurm: Slurm, root: Path, site: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "site.yaml").write_text(site)
    before = slurm.run("squeue", "-h")
    assert submit("study.yaml", "--site", "./site.yaml") == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert says in printed.err
    assert slurm.run("squeue", "-h") == before


def test_by_hand_a_site_that_is_wrong_is_refused_by_sbatch_itself(slurm: Slurm, root: Path) -> None:
    """The shell runs `sbatch` whatever became of the command in its arguments; on the defaults it would be
    another job."""
    line = f"sbatch $({sys.executable} -m hpc.slurm.site nope --sbatch) slurm/sweep.sh study.yaml"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "site 'nope': unknown" in done.stderr
    assert "unrecognized option" in done.stderr
    assert "Submitted" not in done.stdout


def test_an_unknown_study_or_option_queues_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit("nope.yaml") == 2
    assert "nope.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        submit("study.yaml", "--gpus-per-trial", "1")
    assert "--gpus-per-trial" in capsys.readouterr().err


def test_the_site_arrives_where_no_variable_is_exported(
    slurm: Slurm, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "9")
    monkeypatch.setenv("SECRET", "of my shell")
    assert submit("study.yaml", "--site", "./site.yaml") == 0
    job = noted(slurm, root, capsys.readouterr().out)
    assert job["environment"]["SITE"] == str(root / "site.yaml")
    assert exported.fill(Site(), job["environment"]).time == 9, "the folds are queued from that job"
    assert "SECRET" not in job["environment"]


def test_an_elastic_search_begins_with_a_small_job(
    slurm: Slurm, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit("study.yaml", "--site", "./site.yaml", "--elastic", "3") == 0
    job = noted(slurm, root, capsys.readouterr().out)
    assert job["environment"]["LEUKOTREE_ELASTIC"] == "3"
    assert job["environment"]["SLURM_CPUS_ON_NODE"] == "1"


def test_a_job_may_submit_and_hands_nothing_of_its_own_on(
    slurm: Slurm, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CPU_BIND", "none")
    assert submit("study.yaml", "--site", "./site.yaml") == 0
    assert "SLURM_CPU_BIND" not in noted(slurm, root, capsys.readouterr().out)["environment"]
