"""Runtime: what its import costs."""

from __future__ import annotations

import subprocess
import sys


def test_importing_it_loads_no_heavy_library() -> None:
    heavy = ("torch", "ray", "pandas", "numpy", "pydantic")
    program = f"import sys, leukotree.runtime; print(*({{*{heavy}}} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
