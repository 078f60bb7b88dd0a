"""`leukotree submit`: queues slurm/sweep.sh with the options of a site, or refuses in one line."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.doctor import doctor, precheck
from hpc.launching import snapshot
from hpc.search import sweep
from hpc.search.trial_place import TrialPlace
from hpc.slurm import exported, scheduler
from hpc.slurm import site as sites
from hpc.slurm.outside import outside_a_job
from hpc.studies import study
from leukotree.errors import InputError, one_line

SCRIPT = "slurm/sweep.sh"


@dataclass(frozen=True)
class Command:
    """A call of sbatch."""

    study: str
    """The study's name."""
    root: Path
    """The repository. The job works there."""
    variables: Mapping[str, str]
    """Environment variables that slurm/sweep.sh reads."""
    options: Sequence[str]
    """Options of sbatch."""
    arguments: Sequence[str]
    """Arguments of slurm/sweep.sh."""

    def shell(self) -> str:
        """The line to paste into a shell."""
        there = "" if self.root == Path.cwd() else f"cd {shlex.quote(str(self.root))} && "
        named = "".join(f"{name}={shlex.quote(value)} " for name, value in self.variables.items())
        return there + named + shlex.join(self._words)

    @property
    def _words(self) -> list[str]:
        return ["sbatch", *self.options, SCRIPT, *self.arguments]

    def run(self) -> str:
        """Queue the job, with a copy of the code as it is now. Returns the job's id. Raises InputError with
        the message of sbatch, and NoAnswer where the job may be queued all the same."""
        code = snapshot.take(self.root / study.RUNS)
        with outside_a_job():
            variables = os.environ | self.variables | {snapshot.VARIABLE: str(code)}
            done = subprocess.run(
                self._words, cwd=self.root, env=variables, capture_output=True, text=True, check=False
            )
        number = re.search(r"job (\d+)", done.stdout)
        if done.returncode or not number:
            message = one_line(done.stderr or done.stdout)[-300:]
            if scheduler.NO_ANSWER.search(message):
                raise scheduler.NoAnswer(
                    f"{message}; the job may be queued all the same; see `squeue --me` before you try again"
                )
            raise InputError(f"sbatch refused the sweep's job: {message}; fix the site file")
        return number[1]


def command(
    path: str,
    words: Sequence[str],
    *,
    overrides: Sequence[str],
    ranks: int,
    site_name: str | None,
    elastic: int | None,
) -> Command:
    """The call that queues the search, the folds and the report of a study. Everything that can be known here
    is checked first.

    Args:
        words: what follows the study's file: changes to it, and options of `leukotree sweep`.
        overrides: the changes among them.
        ranks: processes of a trial.
        site_name: as for `hpc.slurm.site.load` (None: the variable SITE).
        elastic: worker jobs at the same time, at most (None: what the site says).

    Raises InputError for a bad study or site, and for jobs that sbatch would refuse.
    """
    root = Path(os.environ.get("LEUKOTREE_HOME") or Path(__file__).resolve().parents[1]).absolute()
    if not (root / SCRIPT).is_file():
        raise InputError(f"{root}: has no {SCRIPT}; set LEUKOTREE_HOME to the repository's root")
    file = Path(path).absolute() if Path(path).exists() else root / path
    name = site_name or os.environ.get("SITE") or sites.DEFAULT
    site = sites.load(name)
    elastic = elastic or site.elastic
    if "/" in name or name.endswith((".yaml", ".yml")):
        name = str(Path(name).absolute())
    with contextlib.chdir(root):  # where the job will look for data and results
        plan = study.load(file, overrides)
        plan.require_search()
        precheck.check_search(plan, ranks)
        sweep.prepare(plan, TrialPlace(address="auto", ranks=ranks))
        doctor.require(plan, site, sweep=elastic is None)
    variables = (
        {"SITE": name} | ({"LEUKOTREE_ELASTIC": str(elastic)} if elastic else {}) | exported.handed_on()
    )
    options = exported.through(
        sites.sbatch_options(site, small=elastic is not None), [*variables, snapshot.VARIABLE]
    )
    shown = file.relative_to(root) if file.is_relative_to(root) else file
    return Command(plan.study, root, variables, options, [str(shown), *words])
