"""How the jobs of a site enter its container. The shell that does it is slurm/container/enter.sh."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from hpc.slurm.site_model import Site
from leukotree.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
ENTER = "slurm/container/enter.sh"
PYTHON = '"${inside[@]}" python'
"""The command for Python between the options of srun and its arguments, in a script that has
`setup_lines`."""
PYTHON_HERE = '"${here[@]}" python'
"""The same without srun."""

INSIDE = "LEUKOTREE_INSIDE"
"""Set in a container, which need not see the file that it came from."""


def check(site: Site) -> None:
    """Raises InputError for an image that is not there, where that can be known: pyxis may look for it on the
    nodes alone."""
    image = site.container
    if not image or INSIDE in os.environ or "#" in image or "://" in image or image.endswith(".sqsh"):
        return
    if not os.path.exists(os.path.expandvars(image)):
        raise InputError(f"container {image}: no such image; slurm/container/README.md says how to build one")


def setup_lines(site: Site) -> list[str]:
    """Lines of bash at the start of a job that define `inside`; none without a container."""
    if not site.container:
        return []
    # The code that is used inside is that beside the program which enters.
    code = f"LEUKOTREE_CODE=${{LEUKOTREE_CODE:-{shlex.quote(str(ROOT))}}}"
    return [
        code,
        f'source "$LEUKOTREE_CODE/{ENTER}"',
        f'enter {shlex.quote(site.container_runtime or "")} "{site.container}"',
    ]
