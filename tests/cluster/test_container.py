"""A site's container: the image that the recipe builds, and the study's way through it with nothing of ours
on the hosts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.cluster import image
from tests.helpers.cluster.debian import SYSTEM_PATH
from tests.helpers.cluster.jobs import wait_for_jobs
from tests.helpers.cluster.processes import wait_for
from tests.helpers.cluster.slurm import ClusterError, Slurm
from tests.helpers.cluster.sweep_jobs import ray_processes, report_job

REPOSITORY = Path(__file__).parents[2]
BIN = REPOSITORY / "slurm" / "container" / "bin"
SITE = "partition: main\ntime: 30\ncpus_per_task: 1\ninterface: eth0\nwarn: 60\n"
RUN = """\
variant: flat
data: {{shards: {shards}}}
backbone: {{name: test_vit}}
optim: {{epochs: 20, batch_size: 16, lr: 1.0e-3}}
engine: {{precision: fp32}}
"""


@pytest.fixture(scope="module")
def folder() -> Path:
    """The image, as a folder for Charliecloud."""
    try:
        return image.built()
    except (ClusterError, OSError) as error:
        pytest.skip(f"no image here: {error}")


@pytest.fixture
def bare(slurm: Slurm, home: Path) -> dict[str, str]:
    """The environment of a user of hosts that have neither our packages nor a Python of ours."""
    kept = {
        name: value
        for name, value in slurm.environment.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV", "LEUKOTREE"))
    }
    return kept | {"PATH": SYSTEM_PATH, "LEUKOTREE_HOME": str(home), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def relay(slurm: Slurm, bare: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of a program beside a relay, whose SLURM commands are those of bin/."""
    script = f'source "{REPOSITORY}/slurm/container/enter.sh"; start_relay; echo "$LEUKOTREE_RELAY"; read -r'
    with subprocess.Popen(
        ["bash", "-c", script], env=bare, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout
        place = Path(shell.stdout.readline().strip())
        assert place.stat().st_mode & 0o777 == 0o700
        yield bare | {"PATH": f"{BIN}:{SYSTEM_PATH}", "LEUKOTREE_RELAY": str(place)}
        shell.communicate("\n")
    assert not place.exists()


class TestRelay:
    def test_a_command_answers_as_on_the_host(self, slurm: Slurm, relay: dict[str, str]) -> None:
        words = ["sinfo", "--noheader", "--format=%N %D"]
        asked = subprocess.run(words, env=relay, capture_output=True, text=True, check=True)
        assert asked.stdout == slurm.run(*words) != ""
        refused = subprocess.run(
            ["squeue", "--jobs", "no job"], env=relay, capture_output=True, text=True, check=False
        )
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "Invalid job id" in refused.stderr
        assert os.listdir(relay["LEUKOTREE_RELAY"]) == ["requests"]

    def test_words_reach_it_as_they_are(self, slurm: Slurm, relay: dict[str, str], tmp_path: Path) -> None:
        words = [
            "srun",
            "--nodes=1",
            "--ntasks=1",
            "printf",
            "%s|",
            "a b",
            "",
            "$HOME; `id`",
            "two\nlines",
            "*",
        ]
        asked = subprocess.run(words, env=relay, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert asked.stdout == "a b||$HOME; `id`|two\nlines|*|"

    def test_a_job_gets_the_hosts_environment_and_what_we_say_to_our_scripts(
        self, relay: dict[str, str], tmp_path: Path
    ) -> None:
        inside = relay | {
            "SITE": "mine",
            "LEUKOTREE_ELASTIC": "2",
            "SLURM_CPU_BIND": "quiet",
            "LEUKOTREE_INSIDE": "yes",
        }
        subprocess.run(
            ["sbatch", "--wait", "--output=seen", "--wrap=env"],
            env=inside,
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        seen = dict(
            line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines() if "=" in line
        )
        assert (seen["SITE"], seen["LEUKOTREE_ELASTIC"], seen["PATH"], seen["PWD"]) == (
            "mine",
            "2",
            SYSTEM_PATH,
            str(tmp_path),
        )
        assert not {"LEUKOTREE_RELAY", "SLURM_CPU_BIND", "LEUKOTREE_INSIDE"} & set(seen)

    def test_a_script_may_come_by_standard_input(self, relay: dict[str, str], tmp_path: Path) -> None:
        words = ["sbatch", "--wait", "--output=seen"]
        subprocess.run(
            words,
            input="#!/bin/sh\necho ran\n",
            text=True,
            env=relay,
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        assert (tmp_path / "seen").read_text() == "ran\n"

    def test_an_input_that_never_ends_holds_nobody_up(self, relay: dict[str, str]) -> None:
        with subprocess.Popen(
            ["sinfo"], env=relay, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as asked:
            assert asked.wait(60) == 0

    def test_several_ask_at_once(self, relay: dict[str, str]) -> None:
        many = [
            subprocess.Popen(["squeue", "--noheader", "--jobs", ""], env=relay, stdout=subprocess.DEVNULL)
            for _ in range(12)
        ]
        assert [one.wait(60) for one in many] == [0] * 12

    def test_without_a_relay_it_says_so(self, relay: dict[str, str]) -> None:
        alone = relay | {"LEUKOTREE_RELAY": ""}
        asked = subprocess.run(["squeue"], env=alone, capture_output=True, text=True, check=False)
        assert (asked.returncode, asked.stderr) == (
            127,
            "squeue: only the first node of a job can ask for SLURM's commands\n",
        )


def relays() -> set[Path]:
    """Folders of relays, of whichever job or test of this machine."""
    return set(Path("/tmp").glob("lt-relay.*"))


def run_inside(site: Path, home: Path, environment: dict[str, str], command: str) -> str:
    """Standard output of a command in the site's container, from the checkout."""
    words = f"bash slurm/container/run.sh {site} {command}"
    done = subprocess.run(
        words, shell=True, cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.long("builds the image; tests/cluster/test_sweep_script.py runs the study outside of it")
def test_the_real_study_runs_in_the_container_from_submit_to_report(
    slurm: Slurm, home: Path, bare: dict[str, str], folder: Path
) -> None:
    """sweeps/smoke.yaml: all that is ours is in the image; the hosts have bash, Charliecloud and SLURM."""
    before = relays()
    assert not shutil.which("leukotree", path=SYSTEM_PATH)
    study = (REPOSITORY / "sweeps" / "smoke.yaml").read_text()
    study = study.replace("variants: [flat, base, multilabel]", "variants: [flat, multilabel]")
    (home / "sweeps" / "smoke.yaml").write_text(study)
    site = home / "site.yaml"
    site.write_text(
        f"{(REPOSITORY / 'slurm/site/test.yaml').read_text()}container: {folder}   # as the recipe built it\n"
    )
    for command in re.findall(r"leukotree p\w+ .*", study):
        run_inside(site, home, bare, command)

    job = re.findall(
        r"^job (\d+)", run_inside(site, home, bare, f"leukotree submit sweeps/smoke.yaml --site {site}"), re.M
    )[0]
    output = home / f"slurm-{job}.out"
    assert wait_for_jobs(slurm, job, seconds=600) == {job: "COMPLETED"}, output.read_text()
    report = report_job(home, job)
    # The folds' array, what looks for missing runs, the report.
    jobs = [str(number) for number in range(int(job) + 1, int(report) + 1)]
    found = wait_for_jobs(slurm, *jobs, count=2 * 2 + 2, seconds=600)
    assert set(found.values()) == {"COMPLETED"}
    runs = home / "results" / "runs" / "smoke"
    assert json.loads((runs / "reduced.json").read_text())["missing"] == {}
    python = run_inside(
        site, home, bare, "python -c 'import platform; print(platform.python_version())'"
    ).strip()
    notes = [json.loads(path.read_text()) for path in runs.glob("*/env.json")]
    assert {note["python"] for note in notes} == {python}
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    ).stdout
    assert {note["commit"] for note in notes} == {commit.strip() or None}
    text = (home / "results/smoke/report.md").read_text()
    assert all(variant in text for variant in ("flat", "multilabel"))
    assert ray_processes(slurm) == []
    wait_for("the end of its relays", lambda: relays() <= before, 30)


@pytest.mark.long("builds the image; tests/cluster/test_preempt.py has such a run outside of it")
def test_a_run_in_the_container_that_is_asked_to_stop_goes_on(
    slurm: Slurm, home: Path, bare: dict[str, str], folder: Path, shards: Path
) -> None:
    """Two ranks on two hosts. Its end and its way back are SLURM's commands, asked for from inside."""
    (home / "run.yaml").write_text(RUN.format(shards=shards))
    (home / "site.yaml").write_text(f"{SITE}container: {folder}\n")
    command = (
        "leukotree train run.yaml --on slurm --nodes 2 --ranks 2 --site ./site.yaml --threads 1 --device cpu"
    )
    words = ["bash", "slurm/container/run.sh", "./site.yaml", *command.split()]
    with subprocess.Popen(
        words, cwd=home, env=bare, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        runs = home / "results" / "runs" / "single"

        def trained() -> bool:
            assert process.poll() is None, process.communicate()[0]
            return any(path.read_text().count("\n") > 20 for path in runs.glob("*/metrics.jsonl"))

        wait_for("the run", trained, 120)
        job = json.loads((runs / "submitted.jsonl").read_text())["job"]
        slurm.run("scancel", "--signal=USR2", job)
        said = process.communicate(timeout=300)[0]
        logs = "".join(log.read_text() for log in (runs / "jobs").glob("*_log.*"))
        assert process.returncode == 0, said + logs
    attempts = next(runs.glob("*/attempts.jsonl")).read_text().splitlines()
    assert len(attempts) == 2, said + logs
    assert len((runs / "submitted.jsonl").read_text().splitlines()) == 1, (
        "it was queued again by itself, and not submitted again"
    )
