"""SLURM's commands called inside of a job as if from outside of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def outside_a_job() -> Iterator[None]:
    """Hide the variables of the job that this process may be in. Else SLURM would take options for a new job
    from them.

    Variables that the user exports for sbatch are hidden, too: they are part of the site (see
    `hpc.slurm.exported`). The environment changes for all threads of this process.
    """
    import submitit

    kept = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with submitit.helpers.clean_env():
        os.environ.update(kept)
        yield
