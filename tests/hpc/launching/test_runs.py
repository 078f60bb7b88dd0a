"""A run is the same run inline, under local ranks and in a job."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpc.launching import batch_script, devices, failures, job_notes, runs, submission
from hpc.launching import job as jobs
from hpc.launching.place import Place, layout
from hpc.slurm import scheduler
from hpc.slurm.site_model import Site
from leukotree.errors import Busy, InputError
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("trains in ranks and in jobs of this machine")

QUIET = Runtime(device="cpu", threads=1, quiet=True)


@pytest.fixture
def spec(shards: Path) -> RunSpec:
    return tiny_spec(shards, {"variant": "flat", "optim.batch_size": 14})


def _scores(root: Path, spec: RunSpec) -> pd.DataFrame:
    frame = pd.read_parquet(root / spec.run_name / "predictions.parquet").sort_values("key")
    return frame[[column for column in frame if column.startswith("logp:")]]


def test_inline_ranks_and_jobs_give_the_same_predictions(spec: RunSpec, tmp_path: Path) -> None:
    inline = runs.run_spec(spec, tmp_path / "inline", runtime=QUIET)
    ranks = runs.run_spec(spec, tmp_path / "ranks", Place(ranks=2), runtime=QUIET)
    job = runs.run_spec(spec, tmp_path / "job", Place("local", ranks=2), runtime=QUIET)
    assert inline.state == ranks.state == job.state == "done"
    assert ranks.folder == tmp_path / "ranks" / spec.run_name
    for other in ("ranks", "job"):
        np.testing.assert_allclose(
            _scores(tmp_path / other, spec), _scores(tmp_path / "inline", spec), atol=1e-3
        )


def test_input_that_ranks_cannot_take_is_refused_before_a_process_starts(
    spec: RunSpec, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="batch_size: 14 images do not divide over 4 ranks"):
        runs.run_spec(spec, tmp_path, Place(ranks=4), runtime=QUIET)
    assert not list(tmp_path.iterdir())


def test_an_error_inside_a_rank_arrives_as_one_line(
    spec: RunSpec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / spec.run_name
    folder.mkdir()
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another process that is at work on this run
        with pytest.raises(InputError, match="another process works on this run") as caught:
            runs.run_spec(spec, tmp_path, Place(ranks=2), runtime=QUIET)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


def test_ranks_end_with_a_launcher_that_is_killed(spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(spec.override({"optim.epochs": 10_000}).dump())
    command = [
        sys.executable,
        "-m",
        "hpc.cli",
        "train",
        "run.yaml",
        "--ranks",
        "2",
        "--threads",
        "1",
        "--device",
        "cpu",
    ]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True
    ) as launcher:
        while not list(tmp_path.glob("results/runs/single/*/metrics.jsonl")):
            assert launcher.poll() is None
            time.sleep(0.1)
        launcher.kill()
    while _living(session=launcher.pid):  # pytest's time limit is ours
        time.sleep(0.1)


def _living(session: int) -> list[str]:
    listed = subprocess.run(
        ["ps", "-eo", "sid,stat,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    rows = [line.split(None, 2) for line in listed]
    return [row[2] for row in rows if row[0] == str(session) and not row[1].startswith("Z")]


def test_a_job_that_fails_says_why(spec: RunSpec, tmp_path: Path) -> None:
    folder = tmp_path / spec.run_name
    folder.mkdir()
    (folder / "spec.yaml").write_text("variant: flat\n")  # of another version of the defaults
    with pytest.raises(RuntimeError, match="made by another version of the defaults"):
        runs.run_spec(spec, tmp_path, Place("local"), runtime=QUIET)


def test_a_job_pickles_and_asks_to_be_called_again_as_it_is(spec: RunSpec, tmp_path: Path) -> None:
    job = jobs.Job([spec], tmp_path, QUIET)
    assert pickle.loads(pickle.dumps(job)) == job
    again = job.checkpoint()
    assert again.function == job
    assert again.args == ()


def test_slurm_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="--on slurm: no SLURM commands here"):
        submission.executor(Place("slurm"), tmp_path)


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands of SLURM as scripts that record what they are told; jobs 77 live as long as the file
    `alive` says."""
    commands = tmp_path / "bin"
    commands.mkdir()
    scripts = {
        "sbatch": 'cp "$1" sbatch-$(ls | grep -c sbatch-).sh; env > env; echo Submitted batch job 77',
        "srun": "exit 1",
        "squeue": "cat alive",
        "scontrol": "echo ClusterName = here",
    }
    for name, script in scripts.items():
        path = commands / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return tmp_path


def test_slurm_gets_arrays_and_a_clean_environment(
    spec: RunSpec, fake_slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/our.conf")
    monkeypatch.setenv("SLURM_CPU_BIND", "quiet,mask_cpu:0x1")
    monkeypatch.setenv("WORLD_SIZE", "8")
    site = Site(
        partition="gpu", gpus_per_node=4, cpus_per_task=6, time=90, max_array_size=3, array_parallelism=2
    )
    specs = [spec.override({"seed": seed}) for seed in range(5)]
    root = fake_slurm / "study"
    ids = submission.submit(Place("slurm", ranks=2, site=site), root, [[one] for one in specs], runtime=QUIET)
    assert ids == ["77_0", "77_1", "77_2", "77_0", "77_1"]
    first, second = ((fake_slurm / f"sbatch-{index}.sh").read_text() for index in range(2))
    wanted = (
        "--array=0-2%2",
        "--ntasks-per-node=2",
        "--gpus-per-node=2",
        "--cpus-per-task=6",
        "--partition=gpu",
        "--time=90",
    )
    for option in (*wanted, "--job-name=study"):
        assert f"#SBATCH {option}\n" in first
    assert "#SBATCH --array=0-1%2\n" in second
    environment = (fake_slurm / "env").read_text().splitlines()
    assert "SLURM_CONF=/etc/slurm/our.conf" in environment
    assert not any(line.startswith(("SLURM_CPU_BIND", "WORLD_SIZE")) for line in environment)
    assert os.environ["WORLD_SIZE"] == "8"


def test_squeue_says_which_runs_are_taken(spec: RunSpec, fake_slurm: Path) -> None:
    root, specs = fake_slurm / "study", [spec.override({"seed": seed}) for seed in range(3)]
    submission.submit(Place("slurm", site=Site()), root, [[one] for one in specs], runtime=QUIET)
    (fake_slurm / "alive").write_text("77_0\n77_2\n5\n")
    assert job_notes.alive(root) == {specs[0].run_name: "77_0", specs[2].run_name: "77_2"}
    (fake_slurm / "bin" / "squeue").write_text("#!/bin/sh\necho slurm_load_jobs error >&2; exit 1\n")
    with pytest.raises(InputError, match="squeue: slurm_load_jobs error"):
        job_notes.alive(root)


@pytest.mark.parametrize(
    ("ranks", "nodes", "gpus", "expected"),
    [
        (1, None, 0, (1, 1)),
        (4, 2, 0, (2, 2)),
        (4, None, 4, (1, 4)),
        (8, None, 4, (2, 4)),
        (6, None, 4, (2, 3)),
        (4, 4, 4, (4, 1)),
    ],
)
def test_ranks_are_dealt_to_as_few_nodes_as_the_gpus_allow(
    ranks: int, nodes: int | None, gpus: int, expected: tuple[int, int]
) -> None:
    assert layout(ranks, nodes, Site(gpus_per_node=gpus)) == expected


def test_ranks_that_fit_no_nodes_are_refused() -> None:
    with pytest.raises(InputError, match="--ranks 5: do not divide over 2 nodes"):
        layout(5, None, Site(gpus_per_node=4))
    with pytest.raises(InputError, match="--nodes 2: 8 ranks on each, but the site has 4 GPUs per node"):
        layout(16, 2, Site(gpus_per_node=4))
    with pytest.raises(InputError, match="--nodes 2: several nodes need --on slurm"):
        Place("local", ranks=4, nodes=2).check()


def test_what_sbatch_took_is_noted_before_it_refuses_the_rest(spec: RunSpec, fake_slurm: Path) -> None:
    root, specs = fake_slurm / "study", [spec.override({"seed": seed}) for seed in range(4)]
    once = "[ -e once ] && { echo Invalid account >&2; exit 1; }; touch once; echo job 77"
    (fake_slurm / "bin" / "sbatch").write_text(f"#!/bin/sh\n{once}\n")
    with pytest.raises(
        InputError, match=r"sbatch refused the jobs: .*Invalid account.*see the site file"
    ) as refused:
        submission.submit(
            Place("slurm", site=Site(max_array_size=2)), root, [[one] for one in specs], runtime=QUIET
        )
    assert "\n" not in str(refused.value)
    (fake_slurm / "alive").write_text("77_0\n77_1\n")
    assert set(job_notes.alive(root)) == {specs[0].run_name, specs[1].run_name}


def test_a_finished_run_asks_for_no_job(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = runs.run_spec(spec, tmp_path, runtime=QUIET)
    monkeypatch.setattr(submission, "submit", None)
    assert runs.run_spec(spec, tmp_path, Place("local"), runtime=QUIET) == done


def test_on_gpu_nodes_a_job_insists_on_its_gpu(spec: RunSpec, fake_slurm: Path) -> None:
    """Else a node whose driver fails would train on the CPU, and go on with other bits."""
    for number, (gpus, device, found) in enumerate(
        ((4, "auto", "cuda"), (0, "auto", "auto"), (4, "cpu", "cpu"))
    ):
        root = fake_slurm / f"study{number}"
        submission.submit(
            Place("slurm", site=Site(gpus_per_node=gpus)), root, [[spec]], runtime=Runtime(device=device)
        )
        [pickled] = (root / "jobs").glob("*_0.pkl")
        with open(pickled, "rb") as file:
            assert pickle.load(file).function.runtime.device == found


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda runtime: 0 if runtime.device == "cpu" else 2)
    with pytest.raises(InputError, match="--ranks 7: there are 2 GPUs here, one per rank"):
        devices.check_gpus(7, Runtime(quiet=True))
    devices.check_gpus(2, Runtime())
    devices.check_gpus(7, QUIET)


@pytest.mark.parametrize(("named", "found"), [("", (0, 1)), ("2,3", (2, 3)), ("2, 3", (2, 3))])
def test_local_jobs_take_the_gpus_that_are_named(
    monkeypatch: pytest.MonkeyPatch, named: str, found: tuple[int, ...]
) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda runtime: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert devices.gpus_of_local_job(0, 2, Runtime()) == found


def test_gpus_that_are_not_named_by_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda runtime: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234")
    with pytest.raises(InputError, match="CUDA_VISIBLE_DEVICES MIG-1234: name GPUs by their numbers"):
        devices.gpus_of_local_job(0, 1, Runtime())


def test_a_folder_that_is_still_held_and_a_data_set_that_is_not_here_are_the_nodes_fault(
    spec: RunSpec,
) -> None:
    assert failures.kind_in_job(Busy("another process works on this run"), spec) == "node"
    assert failures.kind_in_job(InputError("loss.leader: there is no level 9"), spec) == "error"
    far = spec.override({"data.shards": "https://a.org/set"})
    assert failures.kind_in_job(InputError("the server has other bytes"), far) == "error"
    assert (
        failures.kind_in_job(InputError("no such folder"), spec.override({"data.shards": "nowhere"}))
        == "node"
    )


class TestTheEndOfABatchScript:
    """The shell that ends it, with stand-ins for squeue and scontrol."""

    @pytest.fixture
    def end(self, tmp_path: Path) -> Callable[..., tuple[int, bool]]:
        """(exit code, whether it was queued again) after a step that ended with a code."""
        commands = {"squeue": "echo RUNNING ${SLURM_RESTART_COUNT:-0}", "scontrol": 'echo "$@" >> requeued'}
        for name, script in commands.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)

        def run(code: int, *, python: str = "", **environment: str) -> tuple[int, bool]:
            (tmp_path / "requeued").unlink(missing_ok=True)
            lines = [*batch_script.at_the_start(tmp_path, "t"), f"(exit {code})"]
            script = "\n".join([*lines, *batch_script.at_the_end(python)])
            known = {"PYTHONPATH": os.pathsep.join(sys.path), "SLURM_JOB_ID": "9", **environment}
            known["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
            done = subprocess.run(["bash", "-c", script], env=known, cwd=tmp_path, check=False, timeout=60)
            return done.returncode, (tmp_path / "requeued").exists()

        return run

    @pytest.mark.parametrize("code", [75, 134, 137])
    def test_a_lost_rank_is_given_three_more_starts(
        self, end: Callable[..., tuple[int, bool]], code: int
    ) -> None:
        """However often time limits and preemptions had queued the job again before."""
        found = [end(code, SLURM_RESTART_COUNT=str(9 + times)) for times in range(4)]
        assert found == [(code, True)] * 3 + [(code, False)]

    def test_a_lost_rank_is_given_another_start_where_python_no_longer_starts(
        self, end: Callable[..., tuple[int, bool]]
    ) -> None:
        """The file system with Python may have gone with the node."""
        assert end(75, python="/nowhere/python") == (75, True)

    @pytest.mark.parametrize("state", ["COMPLETING 0", "RUNNING 1", "PENDING 1", ""])
    def test_a_job_that_slurm_ends_or_has_started_again_is_not_queued_again(
        self, end: Callable[..., tuple[int, bool]], tmp_path: Path, state: str
    ) -> None:
        """Not after scancel, and not twice."""
        (tmp_path / "squeue").write_text(f"#!/bin/sh\necho {state}\n")
        assert end(75) == (75, False)

    def test_variables_of_the_user_do_not_hide_the_job(
        self, end: Callable[..., tuple[int, bool]], tmp_path: Path
    ) -> None:
        (tmp_path / "squeue").write_text('#!/bin/sh\n[ -n "$SQUEUE_STATES" ] || echo RUNNING 0\n')
        assert end(75, SQUEUE_STATES="PENDING") == (75, True)

    @pytest.mark.parametrize("code", [0, 1, 2, 143])
    def test_other_ends_are_ends(self, end: Callable[..., tuple[int, bool]], code: int) -> None:
        assert end(code) == (code, False)

    def test_an_element_of_an_array_is_counted_and_queued_by_itself(
        self, end: Callable[..., tuple[int, bool]], tmp_path: Path
    ) -> None:
        assert end(75, SLURM_ARRAY_JOB_ID="8", SLURM_ARRAY_TASK_ID="3") == (75, True)
        assert (tmp_path / "requeued").read_text() == "requeue 8_3\n"
        assert (tmp_path / "8_3_lost").read_text() == "1\n"


def test_a_fold_takes_its_share_of_a_node(spec: RunSpec, fake_slurm: Path) -> None:
    submission.submit(
        Place("slurm", site=Site(gpus_per_node=4, mem_gb=480)), fake_slurm / "study", [[spec]], runtime=QUIET
    )
    text = (fake_slurm / "sbatch-0.sh").read_text()
    assert "#SBATCH --mem=120GB\n" in text
    assert "#SBATCH --gpus-per-node=1\n" in text


def test_a_command_that_waits_forgives_a_slurm_that_is_silent(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of its questions finds no answer."""
    (tmp_path / spec.run_name).mkdir()
    (tmp_path / spec.run_name / "status.json").write_text('{"state": "done"}')
    note = {
        "run_name": spec.run_name,
        "on": "slurm",
        "job": "77",
        "host": "n1",
        "time": time.time(),
        "cluster": None,
    }
    (tmp_path / job_notes.NOTES).write_text(json.dumps(note) + "\n")
    begins, at_work, to_submit, outcome = (
        ["77"],
        ["", "77", "", "none"],
        ["", "none", "", "none", "none"],
        ["", "none"],
    )
    answers = iter([*begins, *at_work, *to_submit, *outcome])

    def jobs_of_slurm() -> set[str]:
        if answer := next(answers):
            return {answer}
        raise scheduler.NoAnswer("squeue: no answer within a minute")

    monkeypatch.setattr(scheduler, "jobs", jobs_of_slurm)
    monkeypatch.setitem(runs.POLL, "slurm", 0.01)
    assert runs.run_many([spec], tmp_path, Place("slurm", site=Site()), runtime=QUIET).done == [spec.run_name]
    assert list(answers) == []


def test_what_is_submitted_meanwhile_is_forgiven_too_but_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(runs.POLL, "slurm", 0.01)
    errors = iter(
        [scheduler.NoAnswer("sbatch: timed out"), None, scheduler.Refused("sbatch: invalid account")]
    )

    def tick() -> None:
        if error := next(errors):
            raise error

    runs.wait(tmp_path, ["flat-0"], "slurm", tick)
    with pytest.raises(InputError, match="invalid account"):
        runs.wait(tmp_path, ["flat-0"], "slurm", tick)
