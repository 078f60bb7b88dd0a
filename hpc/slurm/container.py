"""How the jobs of a site run in its container. The shell code is slurm/container/enter.sh."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from hpc.slurm.site_model import Site
from leukotree.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
ENTER = "slurm/container/enter.sh"
PYTHON = '"${inside[@]}" python'
"""What starts Python as a step of srun, in a script that has the `setup_lines`."""
PYTHON_HERE = '"${here[@]}" python'
"""What starts Python without srun, in such a script."""

INSIDE = "LEUKOTREE_INSIDE"
"""This variable is set inside a container, where the image's file may not be visible."""


def check(site: Site) -> None:
    """Raises InputError for an image that does not exist, where that is known here. An image of pyxis may
    exist only on the nodes."""
    image = site.container
    if not image or INSIDE in os.environ or "#" in image or "://" in image or image.endswith(".sqsh"):
        return
    if not os.path.exists(os.path.expandvars(image)):
        raise InputError(f"container {image}: no such image; slurm/container/README.md says how to build one")


def setup_lines(site: Site) -> list[str]:
    """Lines of bash for the start of a job, which define the arrays `inside` and `here`; none without a
    container."""
    if not site.container:
        return []
    # Inside, the code is the one beside enter.sh.
    code = f"LEUKOTREE_CODE=${{LEUKOTREE_CODE:-{shlex.quote(str(ROOT))}}}"
    return [
        code,
        f'source "$LEUKOTREE_CODE/{ENTER}"',
        f'enter {shlex.quote(site.container_runtime or "")} "{site.container}"',
    ]
