"""slurm/sweep.sh: with a stand-in for `leukotree` that notes its calls, and once with the real one, end to
end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.cluster.jobs import states, wait_for_jobs
from tests.helpers.cluster.slurm import Slurm
from tests.helpers.cluster.sweep_jobs import calls, processes, ray_processes, report_job, sbatch, stand_in


class TestOnOneMachine:
    def test_it_searches_runs_the_folds_and_reports(self, home: Path) -> None:
        environment = stand_in(home, "") | {"SITE": "test"}
        words = ["bash", "slurm/sweep.sh", "sweeps/phantom.yaml", "search.trials=2"]
        subprocess.run(words, cwd=home, env=environment, check=True)
        assert [call["argv"] for call in calls(home)] == [
            ["sweep", "sweeps/phantom.yaml", "search.trials=2"],
            ["folds", "sweeps/phantom.yaml", "search.trials=2", "--on", "local", "--site", "test"],
            ["report", "sweeps/phantom.yaml", "search.trials=2", "--table"],
        ]

    def test_it_can_be_called_from_anywhere(
        self, home: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        environment = stand_in(home, "") | {"LEUKOTREE_HOME": str(home)}
        subprocess.run(["bash", str(home / "slurm/sweep.sh")], cwd=elsewhere, env=environment, check=True)
        assert {call["cwd"] for call in calls(home)} == {str(home)}

    @pytest.mark.parametrize(("code", "verbs"), [(1, ["sweep", "folds", "report"]), (2, ["sweep", "folds"])])
    def test_failed_folds_are_reported_but_bad_input_ends_it(
        self, home: Path, code: int, verbs: list[str]
    ) -> None:
        environment = stand_in(home, f"sys.exit({code} if sys.argv[1] == 'folds' else 0)")
        done = subprocess.run(["bash", "slurm/sweep.sh"], cwd=home, env=environment, check=False)
        assert done.returncode == code
        assert [call["argv"][0] for call in calls(home)] == verbs

    def test_an_unknown_study_is_one_line(self, home: Path) -> None:
        words = ["bash", "slurm/sweep.sh", "sweeps/nope.yaml"]
        done = subprocess.run(
            words, cwd=home, env=stand_in(home, ""), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (
            2,
            "sweep.sh: sweeps/nope.yaml: no such study file; sweeps/ has some\n",
        )


class TestOnSlurm:
    def test_one_ray_over_the_nodes_then_fold_jobs_then_the_report(self, slurm: Slurm, home: Path) -> None:
        environment = stand_in(
            home,
            """
            if sys.argv[1] == "folds":
                fold = "sleep 2; touch fold-$SLURM_ARRAY_TASK_ID"
                command = ["sbatch", "--parsable", "--output=/dev/null", "--array=0-1", "--wrap", fold]
                job = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
                print(json.dumps({"waiting": {"a": f"{job}_0", "b": f"{job}_1"}}))
            if sys.argv[1] == "report":
                folds = [os.path.exists("fold-0"), os.path.exists("fold-1")]
                assert all(folds), "the report came before the folds"
            """,
        )
        job = sbatch(slurm, home, environment, "sweeps/phantom.yaml", "search.trials=2")
        assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}, (home / f"slurm-{job}.out").read_text()
        fold, report = str(int(job) + 1), report_job(home, job)
        found = wait_for_jobs(slurm, fold, report, count=3)
        assert found == {f"{fold}_0": "COMPLETED", f"{fold}_1": "COMPLETED", report: "COMPLETED"}

        sweep, folds, reported = calls(home)
        *words, address, option, nodes = sweep["argv"]
        assert words == ["sweep", "sweeps/phantom.yaml", "search.trials=2", "--ray-address"]
        assert address.startswith(f"{slurm.hosts['n1']}:")
        assert (option, nodes) == ("--ray-nodes", "2")
        assert sweep["hosts"] == ["n1", "n2"]
        assert sweep["environment"]["RAY_AUTH_MODE"] == "token"
        assert folds["argv"] == [
            "folds",
            "sweeps/phantom.yaml",
            "search.trials=2",
            "--on",
            "slurm",
            "--no-wait",
            "--json",
            "--site",
            "test",
        ]
        assert set(folds["environment"]) == {"SLURM_CONF"}, (
            "fold jobs would inherit what belongs to the sweep's job"
        )
        assert reported["argv"] == ["report", "sweeps/phantom.yaml", "search.trials=2"]
        assert reported["job"] == report
        assert ray_processes(slurm) == []

    def test_without_missing_folds_the_report_is_written_at_once(self, slurm: Slurm, home: Path) -> None:
        environment = stand_in(home, "print(json.dumps({'waiting': {}}))")
        job = sbatch(slurm, home, environment, nodes=1)
        assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}
        assert [(call["argv"][0], call["job"]) for call in calls(home)] == [
            ("sweep", job),
            ("folds", None),
            ("report", job),
        ]

    def test_a_search_that_fails_ends_the_job_with_its_exit_code(self, slurm: Slurm, home: Path) -> None:
        job = sbatch(slurm, home, stand_in(home, "sys.exit(2)"), nodes=1)
        assert wait_for_jobs(slurm, job) == {job: "FAILED"}
        assert (
            "sweep.sh: the search of sweeps/phantom.yaml ended with exit code 2"
            in (home / f"slurm-{job}.out").read_text()
        )
        assert slurm.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "exitcode").strip() == "2:0"
        assert [call["argv"][0] for call in calls(home)] == ["sweep"]

    @pytest.mark.parametrize(
        "told",
        [
            ("--batch", "--signal=USR1", "{job}"),  # what --signal=B:USR1@120 does two minutes before the end
            ("--signal=TERM", "{job}.0"),  # what a preemption with some time of grace does
        ],
        ids=["time limit", "preemption"],
    )
    def test_asked_to_leave_it_requeues_itself_and_leaves_no_ray(
        self, slurm: Slurm, home: Path, told: tuple[str, ...]
    ) -> None:
        environment = stand_in(
            home,
            """
            if sys.argv[1] == "sweep" and "SLURM_RESTART_COUNT" not in os.environ:
                import signal
                signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
                time.sleep(600)
            print(json.dumps({"waiting": {}}))
            """,
        )
        job = sbatch(slurm, home, environment, nodes=1)
        end = time.monotonic() + 60
        while not calls(home) and time.monotonic() < end:
            time.sleep(0.5)
        slurm.run("scancel", *(word.format(job=job) for word in told))
        while states(slurm, job) != {job: "PENDING"} and time.monotonic() < end + 60:
            time.sleep(0.2)
        assert ray_processes(slurm) == []
        assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}
        assert [call["argv"][0] for call in calls(home)] == ["sweep", "sweep", "folds", "report"]
        assert "asked to stop, requeued" in (home / f"slurm-{job}.out").read_text()

    def test_a_search_whose_ray_is_lost_gets_another_in_the_same_job(self, slurm: Slurm, home: Path) -> None:
        environment = stand_in(
            home,
            """
            if sys.argv[1] == "sweep" and not os.path.exists("again"):
                open("again", "w").close()
                time.sleep(600)
            print(json.dumps({"waiting": {}}))
            """,
        )
        job = sbatch(slurm, home, environment, nodes=1)
        end = time.monotonic() + 60
        while not (home / "again").exists() and time.monotonic() < end:
            time.sleep(0.5)
        ray = [*processes("gcs_server"), *processes("/raylet ")]
        assert len(ray) == 2
        for pid, _ in ray:
            os.kill(pid, signal.SIGKILL)
        assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}, (home / f"slurm-{job}.out").read_text()
        assert "without a request" in (home / f"slurm-{job}.out").read_text()
        assert [call["argv"][0] for call in calls(home)] == ["sweep", "sweep", "folds", "report"]
        assert ray_processes(slurm) == []


def test_the_real_study_from_sbatch_to_report(slurm: Slurm, home: Path, venv: Path) -> None:
    """sweeps/smoke.yaml on phantom images: the sweep job, fold jobs that submitit submitted from inside it,
    the report job."""
    study = Path(__file__).parents[2] / "sweeps" / "smoke.yaml"
    (home / "sweeps" / "smoke.yaml").write_text(study.read_text())
    environment = slurm.environment | {"OMP_NUM_THREADS": "1", "PATH": f"{venv}/bin:{os.environ['PATH']}"}
    for command in [
        line.removeprefix("#").strip() for line in study.read_text().splitlines() if "leukotree p" in line
    ]:
        command = command.removeprefix("Needs:").strip()
        subprocess.run(command, shell=True, cwd=home, env=environment, check=True)

    job = sbatch(slurm, home, environment, "sweeps/smoke.yaml")
    output = home / f"slurm-{job}.out"
    assert wait_for_jobs(slurm, job, seconds=600) == {job: "COMPLETED"}, output.read_text()
    notes = (home / "results/runs/smoke/submitted.jsonl").read_text().splitlines()
    folds = {json.loads(note)["job"].split("_")[0] for note in notes}
    # Three variants, two outer folds, and the report.
    found = wait_for_jobs(slurm, *folds, report_job(home, job), count=3 * 2 + 1, seconds=600)
    assert set(found.values()) == {"COMPLETED"}
    text = (home / "results/smoke/report.md").read_text()
    assert all(variant in text for variant in ("flat", "base", "multilabel"))
    assert ray_processes(slurm) == []
