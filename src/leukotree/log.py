"""The log: one line for each thing that happened, with the time, the host, the rank and the run.

In a job the lines go to stderr. On a terminal, and wherever else no job runs, stderr gets warnings only. The
lines of a run also go to a file in its folder; the main rank alone writes it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import sys
from pathlib import Path

from leukotree import progress

JOB_VARIABLES = ("SLURM_JOB_ID", "SUBMITIT_LOCAL_JOB_ID")
"""A process with one of these in its environment is part of a job."""
FORMAT = "%(asctime)s %(host)s rank %(rank)s %(run)s %(levelname)s: %(text)s"
TIME = "%Y-%m-%d %H:%M:%S"
INFO_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+ rank \d+ \S+ INFO: ")
"""A line that says how far something is, and not what ended it."""


class _Formatter(logging.Formatter):
    """Adds to a record what FORMAT needs. A message is one line."""

    def __init__(self, run: str) -> None:
        super().__init__(FORMAT, TIME)
        self._run = run

    def format(self, record: logging.LogRecord) -> str:
        record.host, record.rank, record.run = socket.gethostname(), _rank(), self._run
        record.text = _one_line(record)
        return super().format(record)


class _Stderr(logging.Handler):
    """Writes to stderr, above the progress bars: everything in a job, unless `quiet`; elsewhere warnings
    only."""

    def __init__(self, quiet: bool) -> None:
        super().__init__()
        self._quiet = quiet

    def emit(self, record: logging.LogRecord) -> None:
        try:
            in_job = _in_job()
        except (AttributeError, ValueError):  # there is no stderr, or it is closed
            return
        if record.levelno < logging.WARNING and (self._quiet or not in_job):
            return
        progress.say(self.format(record) if in_job else f"leukotree: {_one_line(record)}")


class _File(logging.Handler):
    """Appends to a file. A line that cannot be written is lost: a log never ends a run."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        if _rank() != "0":
            return
        with contextlib.suppress(OSError), open(self._path, "a", encoding="utf-8", errors="replace") as file:
            file.write(f"{self.format(record)}\n")


def _one_line(record: logging.LogRecord) -> str:
    return " ".join(record.getMessage().splitlines())


def _in_job() -> bool:
    return not sys.stderr.isatty() and any(name in os.environ for name in JOB_VARIABLES)


def _rank() -> str:
    return os.environ.get("RANK", "0")


def _logger(run: str, quiet: bool, file: Path | None = None) -> logging.Logger:
    """A logger outside of the tree of `logging.getLogger`, since a process has a logger for each of its
    trials."""
    logger = logging.Logger("leukotree", logging.INFO)
    for handler in (_Stderr(quiet), *([_File(file)] if file else [])):
        handler.setFormatter(_Formatter(run))
        logger.addHandler(handler)
    return logger


def of_run(run: str, file: Path, *, quiet: bool = False) -> logging.Logger:
    """The logger of a run: to `file`, which is made with the first line, and to stderr. `quiet`: stderr gets
    warnings only, also in a job."""
    return _logger(run, quiet, file)


logger = _logger("-", quiet=False)
"""For what belongs to no run."""
