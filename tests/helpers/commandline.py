"""The command line, called in this process."""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hpc import cli


def leukotree(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The result of a command. It runs in this process: a new one would import torch for seconds."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:  # of argparse
            code = int(end.code or 0)
    return subprocess.CompletedProcess(
        ["leukotree", *map(str, arguments)], code, out.getvalue(), err.getvalue()
    )


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2 and one line on stderr that names what is wrong. Lines of progress may stand before it."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.endswith(" ...")]
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), done.stderr
    assert "Traceback" not in done.stderr


def parses(words: Sequence[str]) -> bool:
    """Whether the words behind `leukotree` are a command."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            return bool(cli._parse(list(words)))
        except SystemExit as end:
            return end.code == 0  # --help
