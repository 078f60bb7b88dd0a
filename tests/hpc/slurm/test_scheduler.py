"""SLURM's commands where they do not answer, or say no, with stand-ins on PATH."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc import status
from hpc.doctor import hardware
from hpc.doctor import slurm as slurm_checks
from hpc.launching import arrays, job_notes, run_states
from hpc.slurm import scheduler
from hpc.slurm.site_model import Site
from leukotree import signals

Says = Callable[[str, str], None]
SILENCE = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Says]:
    """Let a command of SLURM be this shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)
    monkeypatch.setattr(scheduler, "PAUSES", (0.01, 0.01))
    scheduler._config.cache_clear()

    def say(command: str, shell: str) -> None:
        (folder / command).write_text(f"#!/bin/sh\n{shell}\n")
        (folder / command).chmod(0o755)

    yield say
    scheduler._config.cache_clear()


def test_a_controller_that_was_silent_is_asked_for_its_settings_again(says: Says) -> None:
    says("scontrol", SILENCE)
    with pytest.raises(scheduler.NoAnswer):
        scheduler.cluster()
    says("scontrol", "echo ClusterName = here")
    assert scheduler.cluster() == "here"


def test_a_command_does_not_read_the_input_of_this_process(says: Says) -> None:
    """As in `while read study; do leukotree doctor $study; done < list`, in a container."""
    says("scontrol", "cat")
    script = (
        "import sys; from hpc.slurm import scheduler; print([scheduler.ask('scontrol'), sys.stdin.read()])"
    )
    known = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=known, input="list", capture_output=True, text=True, check=True
    )
    assert done.stdout == "['', 'list']\n"


@pytest.mark.parametrize(("size", "largest"), [("0", 1), ("1", 1), ("101", 101), ("n/a", None)])
def test_a_slurm_without_arrays_takes_one_job_at_a_time(says: Says, size: str, largest: int | None) -> None:
    says("scontrol", f"echo MaxArraySize = {size}")
    assert scheduler.largest_array() == largest
    assert arrays.largest_array() == (largest or arrays.ARRAY)


@pytest.mark.parametrize(
    "limit",
    [
        "AssocMaxSubmitJobLimit",
        "QOSMaxSubmitJobPerUserLimit",
        "AssocGrpSubmitJobsLimit",
        "QOSGrpSubmitJobsLimit",
    ],
)
def test_a_limit_on_the_number_of_jobs_is_waited_for(says: Says, limit: str) -> None:
    violation = "sbatch: error: Job violates accounting/QOS policy (job submit limit, ...)"
    says("sbatch", f"echo 'sbatch: error: {limit}\n{violation}' >&2; exit 1")
    with pytest.raises(scheduler.QueueFull, match=limit):
        scheduler.ask("sbatch")


def test_a_limit_on_something_else_is_not(says: Says) -> None:
    says(
        "sbatch",
        "echo 'sbatch: error: QOSMaxCpuPerJobLimit: violates policy (job submit limit, ...)' >&2; exit 1",
    )
    with pytest.raises(scheduler.Refused) as refused:
        scheduler.ask("sbatch")
    assert not isinstance(refused.value, scheduler.QueueFull)


def test_a_request_to_stop_ends_the_wait_for_an_answer(says: Says) -> None:
    says("squeue", SILENCE)
    with signals.watched():
        timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        with pytest.raises(scheduler.NoAnswer):
            scheduler.ask("squeue", pauses=(3600.0,))
        timer.join()


def test_a_job_that_was_asked_to_stop_asks_as_patiently_as_ever(says: Says, tmp_path: Path) -> None:
    says("squeue", f"[ -e {tmp_path}/asked ] && exit 0; touch {tmp_path}/asked; {SILENCE}")
    with signals.watched():
        os.kill(os.getpid(), signal.SIGTERM)
        assert scheduler.ask("squeue", pauses=(0.01,)) == ""


def test_an_intent_of_a_cluster_without_a_name_is_ours(says: Says, tmp_path: Path) -> None:
    says("scontrol", "exit 0")
    says("squeue", f"echo '77|{tmp_path}/jobs/t.sh'")
    (tmp_path / "jobs").mkdir()
    (tmp_path / f"jobs/t{arrays.INTENT}").write_text(
        json.dumps({"cluster": "here", "runs": [["flat-00000000000a"]]})
    )
    arrays.adopt(tmp_path)
    assert job_notes.notes(tmp_path)["flat-00000000000a"]["job"] == "77"


def test_one_note_of_another_cluster_hides_no_silence(says: Says, tmp_path: Path) -> None:
    says("squeue", SILENCE)
    says("scontrol", "echo ClusterName = here")
    names = iter(f"flat-{number:012x}" for number in range(2))
    job_notes.record(tmp_path, {"12": [next(names)]}, "slurm")
    note = json.loads((tmp_path / job_notes.NOTES).read_text())
    with open(tmp_path / job_notes.NOTES, "a") as file:
        file.write(json.dumps(note | {"run_name": next(names), "cluster": "there"}) + "\n")
    assert "jobs of SLURM are not known here: squeue: slurm_load_jobs error" in status.table(
        tmp_path, run_states.look(tmp_path)
    )


def test_doctor_names_a_controller_that_is_down(says: Says) -> None:
    for command in ("sbatch", "srun", "squeue", "sinfo"):
        says(command, "exit 1")
    says("scontrol", "echo 'Slurmctld(primary) at c1 is DOWN'; exit 1")  # on stdout, as SLURM does
    [problem] = slurm_checks.check(Site(), needed=True)
    assert problem.state == "FAIL"
    assert "Slurmctld(primary) at c1 is DOWN" in problem.measured


def test_doctor_finds_a_command_of_slurm_that_cannot_be_started(
    says: Says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for command in ("sbatch", "srun", "squeue", "sinfo", "scontrol"):
        says(command, "exit 0")
    (tmp_path / "bin" / "scontrol").write_text("#!/no/such/shell\n")
    [problem] = slurm_checks.check(Site(), needed=True)
    assert (problem.state, problem.what) == ("FAIL", "slurm")


def test_a_line_of_sinfo_that_says_too_little_is_no_answer(says: Says) -> None:
    says("sinfo", "echo 'n1|4|'")
    with pytest.raises(scheduler.NoAnswer, match=r"sinfo: 'n1\|4\|' instead of the six fields"):
        hardware.nodes_for(Site(), ["main"])
