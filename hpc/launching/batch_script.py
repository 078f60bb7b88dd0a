"""The lines that every batch script of a job begins and ends with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from hpc.launching import caps

HERE = Path(__file__).parent


def at_the_start(folder: Path, token: str) -> list[str]:
    """Lines of bash for the start. `folder` takes the logs; `token` names this submission."""
    return [
        *_assigned({"jobs": str(folder), "token": token}),
        *(HERE / "batch_start.sh").read_text().splitlines(),
    ]


def at_the_end(python: str = "") -> list[str]:
    """Lines of bash for the end of a job that does runs; they need those of its start. `python`: the command
    that starts Python in a job, as a shell reads it; "" is the Python of this process."""
    known = {"most_losses": str(caps.RUN_ENDS["node"])}
    run_python = f'run_python() {{ {python or shlex.quote(sys.executable)} "$@"; }}'
    return ["code=$?", *_assigned(known), run_python, *(HERE / "batch_end.sh").read_text().splitlines()]


def _assigned(values: Mapping[str, str]) -> list[str]:
    return [f"{name}={shlex.quote(value)}" for name, value in values.items()]
