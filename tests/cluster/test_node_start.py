"""What happens on a node on which a search cannot begin: a line, nothing left, and nobody else is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.cluster.jobs import wait_for_jobs
from tests.helpers.cluster.processes import process_start, wait_for
from tests.helpers.cluster.slurm import Slurm
from tests.helpers.cluster.sweep_jobs import calls, processes, ray_processes, sbatch, stand_in

NEIGHBOUR = "exec 3</etc/hosts; exec -a {name} sleep 600"
"""Another job of the same user, with a file open by an absolute path, as any process has."""


@dataclass(frozen=True)
class Neighbour:
    job: str
    pid: int
    start: int | None

    def lives(self) -> bool:
        return self.start is not None and process_start(self.pid) == self.start


@pytest.fixture
def neighbour(slurm: Slurm, tmp_path: Path) -> Iterator[Neighbour]:
    """A job on n1, where the heads of these searches are, and one that must survive them."""
    name = f"neighbour-{os.getpid()}-{tmp_path.name}"  # other test clusters of this machine may have one, too
    wrap = f"--wrap=bash -c '{NEIGHBOUR.format(name=name)}'"
    words = ("sbatch", "--parsable", "--nodelist=n1", "--ntasks=1", "--output=/dev/null", wrap)
    job = slurm.run(*words, cwd=tmp_path).strip()
    wait_for("the neighbour", lambda: any(args.startswith(name) for _, args in processes(name)), 60)
    [pid] = [pid for pid, args in processes(name) if args.startswith(name)]
    yield Neighbour(job, pid, process_start(pid))
    slurm.run("scancel", job)


@pytest.fixture
def disks(slurm: Slurm, home: Path) -> Iterator[Path]:
    """On each host: a folder `full` without room, and a folder `readonly`. Other hosts, and this machine, do
    not see them."""
    for name in ("full", "readonly"):
        (home / name).mkdir()
    mounts = (
        f"mount -t tmpfs -o size=4k,nr_inodes=8 none {home}/full && head -c 4096 /dev/zero >{home}/full/x; \
        mount -t tmpfs -o ro none {home}/readonly"
    )
    inside = [
        ["nsenter", f"--target={pid}", "--mount"]
        for pid, args in processes("slurmd -D -N")
        if args.startswith("slurmd")
    ]
    for enter in inside:
        subprocess.run([*enter, "bash", "-c", mounts], check=False)
    yield home
    for enter in inside:
        subprocess.run([*enter, "umount", str(home / "full"), str(home / "readonly")], check=False)


def said(home: Path, job: str) -> list[str]:
    """What the job said, without what SLURM's own programs add, and without lines of progress."""
    lines = (home / f"slurm-{job}.out").read_text().splitlines()
    return [
        line for line in lines if not line.startswith(("srun:", "slurmstepd")) and not line.endswith(" ...")
    ]


def nothing_left(slurm: Slurm, home: Path, job: str) -> None:
    assert ray_processes(slurm) == []
    markers = [path for folder in (Path("/tmp"), home) for path in folder.glob("lt.*/.leukotree-job")]
    assert [path for path in markers if f"job={job}\n" in path.read_text()] == []


def program(home: Path, name: str, shell: str) -> None:
    """A program of this name before all others."""
    path = home / "bin" / name
    path.write_text(f"#!/bin/sh\n{shell}\n")
    path.chmod(0o755)


def without_ray(home: Path) -> None:
    """No program `ray` beside the others."""
    program(home, "python", f'exec {sys.executable} "$@"')


def broken_ray(home: Path) -> None:
    program(home, "ray", "echo a line of its log; echo ray: cannot find the moon >&2; exit 1")


def python_without_ports(home: Path) -> None:
    """Stands in for a host whose ports are all taken."""
    program(home, "python", f'case "$*" in *socket*) exit 1;; esac; exec {sys.executable} "$@"')


@pytest.mark.parametrize(
    ("variables", "prepare", "says"),
    [
        (
            {"LEUKOTREE_SCRATCH": "{home}/absent"},
            None,
            "n1: cannot make a folder in {home}/absent (site key `scratch`): No such file",
        ),
        ({"LEUKOTREE_SCRATCH": "{home}"}, None, "{home} (site key `scratch`) is too long for Ray's sockets"),
        (
            {"LEUKOTREE_SCRATCH": "{home}/full"},
            None,
            "n1: no room in {home}/full (site key `scratch`): No space left on device",
        ),
        (
            {"LEUKOTREE_SCRATCH": "{home}/readonly"},
            None,
            "n1: cannot make a folder in {home}/readonly (site key `scratch`): Read-only",
        ),
        (
            {"SITE": "{home}/site.yaml"},
            None,
            "n1: no interface ib7 with an IPv4 address; set `interface` in the site file",
        ),
        ({}, python_without_ports, "n1: no free port"),
        ({"PATH": "{home}/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, without_ray, "n1: command ray not found"),
        ({}, broken_ray, "n1: Ray did not start: ray: cannot find the moon"),
    ],
    ids=[
        "no scratch",
        "a long path",
        "full scratch",
        "read-only scratch",
        "no address",
        "no port",
        "no ray",
        "a broken ray",
    ],
)
def test_one_line_nothing_left_and_the_neighbour_lives(
    slurm: Slurm, disks: Path, neighbour: Neighbour, variables: dict[str, str], prepare, says: str
) -> None:
    home = disks
    environment = stand_in(home, "print(json.dumps({'waiting': {}}))")
    (home / "site.yaml").write_text("interface: ib7\n")
    if prepare:
        prepare(home)
    environment |= {name: value.format(home=home) for name, value in variables.items()}
    job = sbatch(
        slurm, home, environment, "--site", environment.get("SITE", "test"), nodes=1, more=["--nodelist=n1"]
    )
    assert wait_for_jobs(slurm, job)[job] == "FAILED"
    lines = said(home, job)
    assert says.format(home=home) in lines[0]
    if prepare is broken_ray:  # the port may have been taken in between: twice more
        assert len(lines) == 4, lines
    else:
        assert len(lines) == 1, lines
    assert calls(home) == [], "nothing was searched"
    assert neighbour.lives()
    assert slurm.run("squeue", "-h", "--jobs", neighbour.job, "-o", "%T").strip() == "RUNNING"
    nothing_left(slurm, home, job)


def test_a_search_that_runs_and_ends_touches_no_neighbour(
    slurm: Slurm, home: Path, neighbour: Neighbour
) -> None:
    environment = stand_in(home, "print(json.dumps({'waiting': {}}))")
    job = sbatch(slurm, home, environment, nodes=1, more=["--nodelist=n1"])
    assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}
    assert neighbour.lives()
    nothing_left(slurm, home, job)


def test_where_a_site_exports_nothing_the_search_runs_all_the_same(slurm: Slurm, home: Path) -> None:
    """SBATCH_EXPORT=NONE, as some sites set it: a step has a PATH only if srun is told so."""
    environment = stand_in(home, "print(json.dumps({'waiting': {}}))") | {"SBATCH_EXPORT": "NONE"}
    for name in ("python", "ray"):
        program(home, name, f'exec {Path(sys.executable).with_name(name)} "$@"')
    (home / ".venv").mkdir()
    (home / ".venv" / "bin").symlink_to(home / "bin")
    job = sbatch(slurm, home, environment, nodes=1)
    assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}, said(home, job)
    assert [call["argv"][0] for call in calls(home)] == ["sweep", "folds", "report"]
    assert not any("no --site" in line for line in said(home, job)), "SITE reaches the job all the same"


def test_without_a_site_the_job_says_what_it_takes(slurm: Slurm, home: Path) -> None:
    environment = stand_in(home, "print(json.dumps({'waiting': {}}))") | {"SITE": ""}
    job = sbatch(slurm, home, environment, nodes=1)
    assert wait_for_jobs(slurm, job) == {job: "COMPLETED"}
    assert "no --site (or SITE): runs train on CPUs" in said(home, job)[0]


@pytest.fixture
def scratch(home: Path) -> Iterator[Path]:
    """Hosts whose scratch is the folder of their name in it, if that is there. With a short path, for Ray's
    sockets."""
    real, ours = (home / "slurm").resolve(), home / "slurm"
    ours.unlink()
    ours.mkdir()
    for path in real.iterdir():
        (ours / path.name).symlink_to(path)
    folder = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    (ours / "node.sh").unlink()
    (ours / "node.sh").write_text(f"LEUKOTREE_SCRATCH={folder}/$(hostname)\n{(real / 'node.sh').read_text()}")
    yield folder
    shutil.rmtree(folder)


def test_nobody_waits_for_a_node_that_cannot_begin(slurm: Slurm, home: Path, scratch: Path) -> None:
    environment = stand_in(home, "print(json.dumps({'waiting': {}}))")
    (scratch / "n1").mkdir()
    job = sbatch(slurm, home, environment, nodes=2)
    assert wait_for_jobs(slurm, job)[job] == "FAILED"
    [first, last] = [line for line in said(home, job) if line.startswith("sweep.sh")]
    assert "n2: cannot make a folder in" in first
    assert "n2 cannot begin, see above, and there are not enough others" in last
    nothing_left(slurm, home, job)


def test_a_job_that_has_worked_elsewhere_leaves_a_bad_node_out(
    slurm: Slurm, home: Path, scratch: Path
) -> None:
    environment = stand_in(
        home,
        """
        if sys.argv[1] == "sweep" and "SLURM_RESTART_COUNT" not in os.environ:
            time.sleep(600)
        print(json.dumps({"waiting": {}}))
        """,
    )
    for host in ("n1", "n2"):
        (scratch / host).mkdir()
    job = sbatch(slurm, home, environment, nodes=1)
    wait_for("the search", lambda: bool(calls(home)), 90)
    node = slurm.run("squeue", "-h", "--jobs", job, "-o", "%N").strip()
    (scratch / node).rename(home / "lost")  # its disk is gone
    slurm.run("scontrol", "requeue", job)
    slurm.run("scontrol", "update", f"JobId={job}", f"ReqNodeList={node}")  # so that it begins there again
    wait_for(
        "the bad node",
        lambda: any(f"{node} cannot begin and is left out" in line for line in said(home, job)),
        120,
    )
    slurm.run("scontrol", "update", f"JobId={job}", "ReqNodeList=")
    assert wait_for_jobs(slurm, job, seconds=240) == {job: "COMPLETED"}, said(home, job)
    assert [call["argv"][0] for call in calls(home)] == ["sweep", "sweep", "folds", "report"]


def test_inside_srun_it_runs_and_more_than_one_of_it_is_refused(slurm: Slurm, home: Path) -> None:
    """As in `srun --pty bash`, whose step holds the CPUs."""
    environment = (
        slurm.environment
        | stand_in(home, "print(json.dumps({'waiting': {}}))")
        | {"SLURM_CONF": str(slurm.conf)}
    )
    words = [
        "srun",
        "--nodes=1",
        "--cpus-per-task=2",
        "--ntasks={tasks}",
        "bash",
        "slurm/sweep.sh",
        "--site",
        "test",
    ]
    inside = [word.format(tasks=1) for word in words]
    done = subprocess.run(
        inside, cwd=home, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [call["argv"][0] for call in calls(home)] == ["sweep", "folds", "report"]
    twice = [word.format(tasks=2) for word in words]
    done = subprocess.run(
        twice, cwd=home, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert "task 1: only one is needed" in done.stderr
    assert done.returncode == 2
