"""What a study of N runs costs its launcher and its file system. Prints a table; asserts nothing.

    python tests/scale/measure.py [N ...]        (default: 100 1000 10000)

In a temporary folder: a grid of N cells is planned, its run folders are written as runs leave them, and then
compared and listed. System calls are counted by strace, where it is installed; SLURM's commands by scripts
that count their calls.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpc.launching import run_states, submission
from hpc.launching import runs as launch
from hpc.launching.place import Place
from hpc.studies import cells
from hpc.studies.study import Study
from leukotree.config import parse
from leukotree.records.runfolder import RunFolder
from leukotree.runtime import Runtime
from leukotree.taxonomy import Taxonomy

SEEDS = 10
METADATA = "open,openat,stat,lstat,newfstatat,statx,getdents64,rename,mkdir,unlink,readlink,access,faccessat2"
CHECKPOINT = ("state.pt", "marker.json")


def plan(runs: int) -> Study:
    """A grid of `runs` runs: one variant, 5 folds, 2 seeds."""
    axis = [round(5 * index / runs, 9) for index in range(runs // SEEDS)]
    fields = {
        "study": f"grid-{runs}",
        "variants": ["flat"],
        "folds": {"outer": 5},
        "seeds": [0, 1],
        "grid": {"loss.gamma": axis},
    }
    return parse(Study, fields, "scale")


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def make(study: Study, grid: list[cells.Cell]) -> None:
    """Run folders as a finished run leaves them, with empty files for its arrays."""
    taxonomy = Taxonomy.paper()
    for cell in grid:
        folder = RunFolder(study.root, cell.spec)
        with folder.opened(taxonomy, {"dataset": "0"}, 1):
            folder.append_metrics([{"kind": "epoch", "epoch": 0, "loss": 1.0, "macro_f1": 0.5}])
            (folder.path / "predictions.parquet").touch()
            (folder.checkpoints / "00000001").mkdir(parents=True)
            for name in CHECKPOINT:
                (folder.checkpoints / "00000001" / name).touch()
            folder.status(state="done", epoch=1, epochs=1, macro_f1=0.5, accuracy=0.5)


def calls(study: str, *words: str) -> str:
    """Metadata operations of a command of leukotree, its imports subtracted."""
    if not shutil.which("strace"):
        return "?"
    command = [sys.executable, "-m", "hpc.cli", *words]
    counts = [
        _strace([*command, study]),
        _strace(
            [sys.executable, "-c", "import hpc.cli, hpc.verbs, hpc.launching.run_states, hpc.studies.study"]
        ),
    ]
    return f"{counts[0] - counts[1]:,}"


def _strace(command: list[str]) -> int:
    done = subprocess.run(
        ["strace", "-f", "-c", "-e", f"trace={METADATA}", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    totals = re.findall(r"^100\.00\s+\S+\s+\S+\s+(\d+)", done.stderr, re.MULTILINE)
    return int(totals[-1]) if totals else 0


def fake_slurm(folder: Path) -> Path:
    """Commands of SLURM that count their calls: what is measured is how often they are asked."""
    folder.mkdir()
    scripts = {
        "sbatch": 'echo x >>"$0.calls"; echo Submitted batch job $(wc -l <"$0.calls")',
        "srun": "exit 1",
        "squeue": 'echo x >>"$0.calls"',
        "scontrol": 'echo x >>"$0.calls"; echo "MaxArraySize = 1001"',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod((folder / name).stat().st_mode | stat.S_IXUSR)
    return folder


def submit(study: Study, grid: list[cells.Cell], commands: Path) -> tuple[float, int]:
    """(seconds, calls of SLURM's commands) to queue every run."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{commands}:{before}"
    try:
        seconds, _ = timed(
            lambda: submission.submit(
                Place("slurm"),
                Path("queued") / study.study,
                [[cell.spec] for cell in grid],
                runtime=Runtime(),
            )
        )
    finally:
        os.environ["PATH"] = before
    counts = [len(path.read_text().splitlines()) for path in commands.glob("*.calls")]
    for path in commands.glob("*.calls"):
        path.unlink()
    return seconds, sum(counts)


def measure(runs: int, commands: Path) -> list[str]:
    study = plan(runs)
    planned, grid = timed(lambda: cells.expand(study))
    specs = [cell.spec for cell in grid]
    compared, missing = timed(lambda: launch.missing(specs, study.root))
    assert len(missing) == runs
    make(study, grid)
    again, missing = timed(lambda: launch.missing(specs, study.root))
    assert not missing
    listed, states = timed(lambda: run_states.scan(study.root))
    assert len(states) == runs
    inodes = [path for path in study.root.rglob("*")]
    files = sum(path.is_file() for path in inodes)
    queue_seconds, scheduler = submit(study, grid, commands)
    logs = sum(1 for path in (Path("queued") / study.study).rglob("*"))
    return [
        f"{runs:,}",
        f"{planned:.2f}",
        f"{planned + compared:.2f}",
        f"{planned + again:.2f}",
        f"{listed:.2f}",
        f"{files:,}",
        f"{len(inodes):,}",
        calls(study.study, "status"),
        f"{scheduler}",
        f"{queue_seconds:.1f}",
        f"{logs:,}",
    ]


HEADS = [
    "runs",
    "expand, s",
    "plan (none there), s",
    "plan (all done), s",
    "status, s",
    "files",
    "inodes",
    "metadata operations of status",
    "scheduler calls to queue",
    "queue, s",
    "inodes of the queue",
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=int, nargs="*", default=[100, 1000, 10_000], metavar="N")
    sizes = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as home:
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        os.chdir(home)
        commands = fake_slurm(Path(home, "commands"))
        print("| " + " | ".join(HEADS) + " |\n" + "| ---: " * len(HEADS) + "|")
        for runs in sizes:
            print("| " + " | ".join(measure(runs, commands)) + " |", flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
