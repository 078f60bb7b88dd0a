"""The shell programs, read by shellcheck."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    [
        *ROOT.glob("slurm/**/*.sh"),
        *ROOT.glob("hpc/**/*.sh"),
        ROOT / ".ci" / "run",
        ROOT / "slurm/container/bin/ask",
    ]
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shellcheck_finds_nothing(script: Path) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck here (Debian: apt-get install shellcheck)")
    done = subprocess.run(
        ["shellcheck", "--external-sources", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
