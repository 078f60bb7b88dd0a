"""`leukotree submit`: one command that queues slurm/sweep.sh with the options of a site, or refuses in one
line."""

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
from hpc.launching import job, snapshot
from hpc.search import sweep
from hpc.slurm import exported, scheduler
from hpc.slurm import site as sites
from hpc.studies import study
from leukotree.errors import InputError, one_line

SCRIPT = "slurm/sweep.sh"


@dataclass(frozen=True)
class Command:
    """A call of sbatch."""

    study: str
    """Its name."""
    root: Path
    """The repository, where the job works."""
    variables: Mapping[str, str]
    """What slurm/sweep.sh reads of its environment."""
    options: Sequence[str]
    arguments: Sequence[str]
    """Of slurm/sweep.sh."""

    def shell(self) -> str:
        """The line to paste into a shell."""
        there = "" if self.root == Path.cwd() else f"cd {shlex.quote(str(self.root))} && "
        named = "".join(f"{name}={shlex.quote(value)} " for name, value in self.variables.items())
        return there + named + shlex.join(self._words)

    @property
    def _words(self) -> list[str]:
        return ["sbatch", *self.options, SCRIPT, *self.arguments]

    def run(self) -> str:
        """Queue it, with a copy of the code as it is now. Returns the job's id. Raises InputError with what
        sbatch says; Silent where it may be queued."""
        code = snapshot.take(self.root / study.RUNS)
        with job.outside_a_job():
            variables = os.environ | self.variables | {snapshot.VARIABLE: str(code)}
            done = subprocess.run(
                self._words, cwd=self.root, env=variables, capture_output=True, text=True, check=False
            )
        found = re.search(r"job (\d+)", done.stdout)
        if done.returncode or not found:
            said = one_line(done.stderr or done.stdout)[-300:]
            if scheduler.SILENT.search(said):
                raise scheduler.Silent(
                    f"{said}; the job may be queued all the same; see `squeue --me` before you try again"
                )
            raise InputError(f"sbatch refused the sweep's job: {said}; mend the site file")
        return found[1]


def command(
    path: str, overrides: Sequence[str], options: Sequence[str], site_name: str | None, elastic: int | None
) -> Command:
    """The call that queues the search, the folds and the report of a study, once all that is known here
    speaks for it.

    Args:
        options: of `leukotree sweep`.
        site_name: as for `hpc.slurm.site.load` (None: the variable SITE).
        elastic: most worker jobs at a time (None: what the site says).

    Raises InputError for a bad study or site, and for jobs that sbatch would refuse; SystemExit for a bad
    option.
    """
    from hpc import cli

    given = cli.parser().parse_args(["sweep", path, *overrides, *options])
    root = Path(os.environ.get("LEUKOTREE_HOME") or Path(__file__).resolve().parents[1]).absolute()
    if not (root / SCRIPT).is_file():
        raise InputError(f"{root}: has no {SCRIPT}; set LEUKOTREE_HOME to the repository's root")
    here = Path(path).absolute() if Path(path).exists() else root / path
    name = site_name or os.environ.get("SITE") or sites.DEFAULT
    site = sites.load(name)
    elastic = elastic or site.elastic
    if "/" in name or name.endswith((".yaml", ".yml")):
        name = str(Path(name).absolute())
    with contextlib.chdir(root):  # where the job will look for data and results
        plan = study.load(here, given.overrides)
        plan.require_search()
        precheck.check_search(plan, given.ranks_per_trial)
        sweep.prepare(plan, address="auto", ranks=given.ranks_per_trial)
        doctor.require(plan, site, sweep=elastic is None)
    variables = (
        {"SITE": name} | ({"LEUKOTREE_ELASTIC": str(elastic)} if elastic else {}) | exported.handed_on()
    )
    asked = exported.through(
        sites.sbatch_options(site, small=elastic is not None), [*variables, snapshot.VARIABLE]
    )
    shown = here.relative_to(root) if here.is_relative_to(root) else here
    return Command(plan.study, root, variables, asked, [str(shown), *overrides, *options])
