"""Runtime: what its import costs."""

from __future__ import annotations

import subprocess
import sys


def test_importing_it_loads_no_heavy_library() -> None:
    program = "import sys, leukotree.runtime; print(*{'torch', 'ray', 'pandas', 'numpy', 'pydantic'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
