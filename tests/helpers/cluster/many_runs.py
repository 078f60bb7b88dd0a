"""Small runs on the test SLURM, a site for them, and scripts that replace SLURM's commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpc.launching import runs
from hpc.launching.place import Place
from hpc.launching.runs import Outcome
from hpc.slurm.site_model import Site
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from tests.helpers.cluster.slurm import Slurm
from tests.helpers.specs import tiny_spec

SITE = Site(partition="main", time=5, cpus_per_task=1, interface="eth0")
HELD = SITE.model_copy(update={"extra": {"hold": True}})
RUNTIME = Runtime(device="cpu", threads=1, quiet=True)


def specs(count: int, shards: Path) -> list[RunSpec]:
    """Runs of one epoch."""
    changes = {"variant": "flat", "optim.batch_size": 14}
    return [tiny_spec(shards, {**changes, "seed": seed}) for seed in range(count)]


def run(wanted: list[RunSpec], root: Path, site: Site = SITE, *, wait: bool = False) -> Outcome:
    return runs.run_many(wanted, root, Place("slurm", site=site), wait=wait, runtime=RUNTIME)


def talk_to(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SLURM's commands to this cluster."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)


def stand_in(command: str, shell: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace one of SLURM's commands by a shell script, which calls the command as $real. Returns the log of
    the script, a line for each call. `sbatch --test-only` queues nothing and is passed on."""
    real, log, script = shutil.which(command), folder / f"{command}-calls", folder / "bin" / command
    script.parent.mkdir(exist_ok=True)
    tests = f'[[ $1 != --test-only ]] || exec {real} "$@"'
    script.write_text(f'#!/bin/bash\nreal={real}\n{tests}\necho "$@" >>{log}\n{shell}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    return log


def ids_in_queue(slurm: Slurm) -> set[str]:
    """Ids of all jobs that have not ended. The task of an array is 12_3."""
    return set(slurm.run("squeue", "--noheader", "--array", "--format=%i").split())
