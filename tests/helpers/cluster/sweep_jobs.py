"""slurm/sweep.sh as a job of the test SLURM, with a script for `leukotree` that notes its calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.cluster.slurm import Slurm

STAND_IN = """\
#!{python}
import json, os, subprocess, sys, time
if sys.argv[1] == "doctor":  # the check before each search
    sys.exit()
hidden = ("PATH", "SLURM_CONF")
seen = {{name: value for name, value in os.environ.items() if name.startswith(("SLURM", "RAY_AUTH"))}}
note = {{"argv": sys.argv[1:], "environment": seen, "cwd": os.getcwd()}}
note["job"] = os.environ.get("SLURM_JOB_ID")
if sys.argv[1] == "sweep" and "--ray-address" in sys.argv:
    import ray
    ray.init(address=sys.argv[sys.argv.index("--ray-address") + 1])
    while len(ray.nodes()) < int(sys.argv[sys.argv.index("--ray-nodes") + 1]):
        time.sleep(0.5)
    note["hosts"] = sorted(node["NodeManagerHostname"] for node in ray.nodes())
with open("calls", "a") as file:
    file.write(json.dumps(note) + "\\n")
{behaviour}
"""


def calls(home: Path) -> list[dict]:
    """The calls that the script noted, in order."""
    path = home / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def stand_in(home: Path, behaviour: str) -> dict[str, str]:
    """An environment in which `leukotree` is a script that notes its call and then runs `behaviour`."""
    program = home / "bin" / "leukotree"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable, behaviour=textwrap.dedent(behaviour)))
    program.chmod(0o755)
    (home / "sweeps" / "phantom.yaml").write_text("study: phantom\n")
    path = f"{program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {name: value for name, value in os.environ.items() if not name.startswith("SLURM")} | {
        "PATH": path
    }


def sbatch(
    slurm: Slurm,
    home: Path,
    environment: dict[str, str],
    *arguments: str,
    nodes: int = 2,
    more: Sequence[str] = (),
) -> str:
    """Submit slurm/sweep.sh with the options of the site `test` and `more`. Returns the job id."""
    options = " ".join([f"--nodes={nodes}", *more])
    environment = slurm.environment | {"SITE": "test"} | environment | {"SLURM_CONF": str(slurm.conf)}
    of_site = f'$("{sys.executable}" -m hpc.slurm.site test --sbatch)'
    shell = f'sbatch --parsable {of_site} {options} slurm/sweep.sh "$@"'
    return slurm.run("bash", "-c", shell, "submit", *arguments, cwd=home, env=environment).strip()


def report_job(home: Path, job: str) -> str:
    """Id of the report job that the sweep's job submitted."""
    return (home / f"slurm-{job}.out").read_text().split("the report follows them as ")[1].split()[0]


def processes(word: str) -> list[tuple[int, str]]:
    """(pid, command line) of the processes of both hosts whose command line has a word. Other processes of
    this machine are left out."""
    cluster = Slurm()
    networks = {os.stat(f"/run/netns/{cluster.space(host)}").st_ino for host in cluster.hosts}
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    rows = [line.split(None, 1) for line in listed]
    matching = [(int(row[0]), row[1]) for row in rows if len(row) == 2 and word in row[1]]
    return [(pid, args) for pid, args in matching if _network(pid) in networks]


def _network(pid: int) -> int | None:
    """The inode of a process's network; None if the process has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def ray_processes(slurm: Slurm) -> list[str]:
    """The command lines of Ray's processes on both hosts."""
    listing = slurm.run("srun", "--quiet", "-N2", "ps", "-eo", "args")
    return [
        line
        for line in listing.splitlines()
        if any(name in line for name in ("raylet", "gcs_server", "ray start", "ray::"))
    ]
