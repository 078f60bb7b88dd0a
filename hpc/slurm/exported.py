"""Variables that a user exports for sbatch, such as SBATCH_ACCOUNT, as part of a site.

sbatch itself must not see these variables: it prefers them to the options of a batch script, and SLURM sets
some of them in a job. So a site takes over those whose keys it leaves out, and all are hidden when a job is
submitted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence

from hpc.slurm.site_model import Site
from leukotree.config import parse
from leukotree.errors import InputError

KEYS = {
    "SBATCH_PARTITION": "partition",
    "SBATCH_ACCOUNT": "account",
    "SBATCH_QOS": "qos",
    "SBATCH_WCKEY": "wckey",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_TIMELIMIT": "time",
}
"""Variable -> key of a site."""
EVERYWHERE = {"SBATCH_RESERVATION": "reservation", "SBATCH_EXPORT": "export"}
"""Variable -> option of sbatch without a key, for all jobs."""
LARGE = {
    "SBATCH_EXCLUSIVE": "exclusive",
    "SBATCH_HINT": "hint",
    "SBATCH_NETWORK": "network",
    "SBATCH_MEM_PER_CPU": "mem-per-cpu",
}
"""Variable -> option of sbatch without a key, for all but small jobs."""
TAKEN_OVER = (*KEYS, *EVERYWHERE, *LARGE)
PREFIX = "LEUKOTREE_"
"""Before the name of a variable that is handed on to a job."""
OF_THE_JOB = ("SBATCH_CPU_BIND", "SBATCH_MEM_BIND")
"""Beginnings of the variables that SLURM sets in a job."""


def fill(site: Site, variables: Mapping[str, str] = os.environ) -> Site:
    """The site, with the keys that it leaves out taken from variables. Raises InputError for a bad value."""
    given = _given(variables)
    if not given:
        return site
    tree = site.model_dump(exclude_unset=True, exclude_none=True)
    small = tree.setdefault("small", {})
    extra, small_extra = tree.setdefault("extra", {}), small.setdefault("extra", {})
    for variable, value in given.items():
        if key := KEYS.get(variable):
            tree.setdefault(key, _minutes(variable, value) if key == "time" else value)
            if key == "constraint":
                small.setdefault(key, value)
        elif option := EVERYWHERE.get(variable):
            extra.setdefault(option, value)
            small_extra.setdefault(option, value)
        elif not (variable == "SBATCH_MEM_PER_CPU" and site.mem_gb):
            extra.setdefault(LARGE[variable], value or True)
    return parse(Site, tree, "SBATCH_* in the environment")


def handed_on(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables under names that sbatch does not know, for a job that submits others."""
    return {PREFIX + name: value for name, value in _given(variables).items()}


def named(variables: Mapping[str, str] = os.environ) -> list[str]:
    """Names of the variables that are set and that a site may take over."""
    return [name for name in TAKEN_OVER if name in variables]


def _given(variables: Mapping[str, str]) -> dict[str, str]:
    values = {name: variables.get(name, variables.get(PREFIX + name)) for name in TAKEN_OVER}
    return {
        name: value for name, value in values.items() if value or (value == "" and name == "SBATCH_EXCLUSIVE")
    }


def through(options: Sequence[str], names: Iterable[str]) -> list[str]:
    """Options of sbatch. If an `--export` among them keeps variables back, it lets those of these `names`,
    and all LEUKOTREE_*, through."""
    wanted = list(dict.fromkeys([*names, *sorted(name for name in os.environ if name.startswith(PREFIX))]))
    adapted = []
    for option in options:
        key, _, value = option.partition("=")
        if key != "--export" or value == "ALL" or value.startswith("ALL,"):
            adapted.append(option)
        elif value in ("NONE", "NIL"):  # unlike NONE, a list does not set the variables of a login
            adapted += [f"--export={','.join(wanted)}", *(["--get-user-env"] if value == "NONE" else [])]
        else:
            adapted.append(",".join([option, *wanted]))
    return adapted


def ignored(variables: Mapping[str, str] = os.environ) -> list[str]:
    """Variables for sbatch that no job gets: the launcher sets these options itself."""
    return sorted(
        name
        for name in variables
        if name.startswith("SBATCH_") and name not in TAKEN_OVER and not name.startswith(OF_THE_JOB)
    )


def _minutes(variable: str, text: str) -> int:
    """Minutes of a time limit as SLURM reads it: `90`, `90:00`, `1:30:00`, `1-12`, `1-12:00` or
    `1-12:00:00`."""
    days, dash, rest = text.rpartition("-")
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", text):
        fix = "give minutes, or hours:minutes:seconds, or set `time` in the site file"
        raise InputError(f"{variable}={text}: no time limit; {fix}")
    parts = [int(part) for part in rest.split(":")]
    if dash or len(parts) == 3:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    total = 1440 * int(days or 0) + 60 * hours + minutes + -(-seconds // 60)
    return max(1, total)
