"""Jobs in the queue run the code that they were submitted with, whatever became of the checkout since, also
when queued again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.checkouts import make_checkout, python_path
from tests.helpers.cluster.jobs import wait_for_jobs
from tests.helpers.cluster.many_runs import specs
from tests.helpers.cluster.processes import wait_for
from tests.helpers.cluster.slurm import Slurm
from tests.helpers.cluster.sweep_jobs import calls, report_job, sbatch, stand_in

BROKEN = "raise ImportError('the code of today')\n"
QUEUE = """
import sys
from pathlib import Path
from tests.helpers.cluster.many_runs import SITE, run, specs
site = SITE.model_copy(update={"extra": {"hold": True}, "time": 30})
[spec] = specs(1, Path(sys.argv[1]))
outcome = run([spec.override({"optim.epochs": 20})], Path("results/runs/study"), site)
print(outcome.submitted[0], outcome.reducer)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "checkout")


def attempts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]


def test_a_run_whose_checkout_is_edited_while_its_job_waits(
    slurm: Slurm, checkout: Path, shards: Path
) -> None:
    """The job is queued again in the midst of it, too, and the job that looks after it runs."""
    environment = slurm.environment | {"PYTHONPATH": python_path(checkout, *map(Path, sys.path))}
    words = [sys.executable, "-c", QUEUE, str(shards)]
    done = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    job, reducer = done.stdout.split()
    [copy] = (checkout / "results" / "runs" / ".code").iterdir()
    for module in (
        "src/leukotree/training/run.py",
        "src/leukotree/__init__.py",
        "hpc/launching/job.py",
        "hpc/launching/follow_up.py",
        "hpc/__init__.py",
    ):
        (checkout / module).write_text(BROKEN)

    slurm.run("scontrol", "release", job)
    [spec] = specs(1, shards)
    root = checkout / "results" / "runs" / "study"
    folder = root / spec.override({"optim.epochs": 20}).run_name
    record, logs = folder / "metrics.jsonl", root / "jobs"
    try:
        wait_for("training", lambda: record.exists() and record.read_text().count("\n") > 9, 180)
        slurm.run("scancel", "--signal=USR2", job)
        assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}
    finally:
        said = "".join(log.read_text() for log in logs.glob("*_log.*"))
        print(said)
    assert [attempt["code"] for attempt in attempts(folder)] == [
        json.loads((copy / "origin.json").read_text())["code"]
    ] * 2
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "done"
    assert "codes" not in status
    slurm.run("scontrol", "release", reducer)
    assert wait_for_jobs(slurm, reducer) == {reducer: "COMPLETED"}
    assert json.loads((root / "reduced.json").read_text())["done"] == 1


def test_a_search_that_is_queued_again_goes_on_with_its_code(slurm: Slurm, tmp_path: Path) -> None:
    """So do the folds and the report after it."""
    make_checkout(tmp_path)
    (tmp_path / "sweeps").mkdir()
    environment = stand_in(
        tmp_path,
        f"""
        import hpc, leukotree
        with open("code", "a") as file:
            file.write(json.dumps([sys.argv[1], hpc.__file__, leukotree.__file__]) + "\\n")
        if sys.argv[1] == "folds":
            command = ["sbatch", "--parsable", "--output=/dev/null", "--wrap", "true"]
            job = subprocess.run(command, capture_output=True, text=True).stdout.strip()
            print(json.dumps({{"waiting": {{"a": job}}}}))
        if sys.argv[1] == "sweep" and not os.path.exists("edited"):
            open("edited", "w")
            packages = ("hpc/__init__.py", "src/leukotree/__init__.py")
            for module in (*packages, "hpc/slurm/site.py", "slurm/node.sh"):
                open(module, "w").write({BROKEN!r})
            sys.exit(75)
        """,
    )
    environment |= {"PYTHONPATH": python_path(tmp_path)}
    job = sbatch(slurm, tmp_path, environment, nodes=1)
    assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}, (tmp_path / f"slurm-{job}.out").read_text()
    wait_for_jobs(slurm, report_job(tmp_path, job))
    assert [call["argv"][0] for call in calls(tmp_path)] == ["sweep", "sweep", "folds", "report"]
    [copy] = (tmp_path / "results" / "runs" / ".code").iterdir()
    rows = [json.loads(line) for line in (tmp_path / "code").read_text().splitlines()]
    assert rows == [
        [verb, f"{copy}/hpc/__init__.py", f"{copy}/leukotree/__init__.py"]
        for verb in ("sweep", "sweep", "folds", "report")
    ]
