"""Whether SLURM has a partition, an account, time and hardware for the jobs of a site file."""

from __future__ import annotations

import getpass
import re
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from hpc.doctor import sbatch
from hpc.doctor.hardware import nodes_for
from hpc.finding import Finding, State
from hpc.launching.results_folder import clock
from hpc.slurm import exported, scheduler
from hpc.slurm.scheduler import NoAnswer, SlurmError, ask_once
from hpc.slurm.site_model import Site
from leukotree.errors import one_line

COMMANDS = ("squeue", "scontrol", "sinfo")
"""Commands that the checks use beside sbatch and srun."""


def check(
    site: Site, needed: bool, *, ranks: int = 1, nodes: int | None = None, sweep: bool = False
) -> Iterator[Finding]:
    """Check everything about SLURM that can be seen without a job: for runs of so many ranks, and with
    `sweep` for the search, too. `needed`: whether jobs will run there.

    What is compared with the site here may be hidden, or be changed by a plugin of the cluster, so it gives
    warnings; only sbatch refuses.
    """
    state: State = "FAIL" if needed else "warn"
    if not shutil.which("sbatch") or not shutil.which("srun"):
        yield Finding(
            state, "slurm", "no command sbatch or srun here", "run this on a login node, or use --on local"
        )
        return
    missing = [name for name in COMMANDS if not shutil.which(name)]
    if missing:
        yield Finding(
            "warn", "slurm", f"no command {', '.join(missing)} here", "put SLURM's commands on PATH"
        )
    try:
        pinged = _ping() if "scontrol" not in missing else ""
    except (SlurmError, OSError) as error:  # OSError: the command cannot be started
        fix = "see SLURM_CONF, or ask the cluster's operators"
        yield Finding(state, "slurm", f"does not answer: {error}", fix, certain=False)
        return
    guesses = list(_guesses(site, pinged))
    yield from guesses
    yield from sbatch.judge(site, guesses, _lacking, ranks, nodes, sweep)


def _lacking(site: Site) -> bool:
    """Whether it is certain that the site's partitions have too few nodes with what it asks for."""
    try:
        partitions = _partitions()
        nodes = nodes_for(site, [name for name in _named(site, partitions) if name in partitions])
    except SlurmError:
        return False
    return nodes.state != "ok" and nodes.certain


def _guesses(site: Site, pinged: str) -> Iterator[Finding]:
    config: dict[str, str] = {}
    partitions: dict[str, dict[str, str]] = {}

    def about_partitions() -> Iterator[Finding]:
        partitions.update(_partitions())
        yield from _partition(site, partitions)
        if seen := [name for name in _named(site, partitions) if name in partitions]:
            yield _time(site, [partitions[name] for name in seen])
            yield nodes_for(site, seen)

    def about_the_cluster() -> Iterator[Finding]:
        config.update(_pairs(ask_once("scontrol", "show", "config"), r"^(\S+)\s*=[ \t]*(.*?)\s*$"))
        yield Finding("ok", "slurm", f"{pinged}, version {config.get('SLURM_VERSION', 'unknown')}")
        yield _clock()

    parts: dict[str, Callable[[], Iterator[Finding]]] = {
        "slurm": about_the_cluster,
        "partition": about_partitions,
        "array size": lambda: _array(site, config),
        "account": lambda: _accounts(site, config),
        "environment": _environment,
    }
    for what, part in parts.items():
        try:
            yield from part()
        except SlurmError as error:
            yield Finding("warn", what, f"not looked at: {error}")


def _ping() -> str:
    """The state of SLURM's controller, in SLURM's words. Raises NoAnswer unless it is up."""
    message = scheduler.ask("scontrol", "ping", pauses=scheduler.QUICK_PAUSES, limit=scheduler.QUICK)
    if " UP" not in message:
        raise NoAnswer(one_line(message))
    return one_line(message)


def _pairs(text: str, pattern: str) -> dict[str, str]:
    return dict(re.findall(pattern, text, re.MULTILINE))


def _partitions() -> dict[str, dict[str, str]]:
    """Partition -> its fields, as SLURM lists them."""
    lines = ask_once("scontrol", "--all", "show", "partition", "--oneliner").splitlines()
    parsed = [_pairs(line, r"(\S+?)=(\S*)") for line in lines]
    return {pairs["PartitionName"]: pairs for pairs in parsed if "PartitionName" in pairs}


def _named(site: Site, partitions: dict[str, dict[str, str]]) -> list[str]:
    """The partitions that a job of the site may use: those that the site names, else the cluster's
    default."""
    if site.partition:
        return site.partition.split(",")
    return [name for name, pairs in partitions.items() if pairs.get("Default") == "YES"]


def _partition(site: Site, partitions: dict[str, dict[str, str]]) -> Iterator[Finding]:
    named = _named(site, partitions)
    fix = f"set `partition` in the site file to one of {', '.join(partitions) or 'none'}"
    if not named:
        yield Finding("warn", "partition", "the cluster has no default", fix)
    for name in named:
        state = partitions.get(name, {}).get("State")
        if state is None:
            yield Finding("warn", "partition", f"none is named {name!r}, as far as one can see", fix)
        elif state != "UP":
            yield Finding("warn", "partition", f"{name} is {state}", "wait for it, or name another")
        else:
            yield Finding("ok", "partition", f"{name} is up")


def minutes(text: str) -> float:
    """Minutes of a time limit of SLURM, `[days-]hours:minutes:seconds`; infinite for UNLIMITED."""
    if not (parts := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)):
        return float("inf")
    days, hours, mins, seconds = (int(part or 0) for part in parts.groups())
    return 1440 * days + 60 * hours + mins + seconds / 60


def _time(site: Site, partitions: list[dict[str, str]]) -> Finding:
    limits = {pairs["PartitionName"]: minutes(pairs.get("MaxTime", "")) for pairs in partitions}
    shown = ", ".join(
        f"{name} {limit:g} min" if limit < float("inf") else f"{name} any" for name, limit in limits.items()
    )
    short = [name for name, limit in limits.items() if limit < site.time]
    if not short:
        return Finding("ok", "time limit", f"jobs ask for {site.time} min; most: {shown}")
    fix = f"set `time` in the site file to {min(limits.values()):g} or less, or jobs may never start"
    return Finding("warn", "time limit", f"jobs ask for {site.time} min, most: {shown}", fix)


def _array(site: Site, config: dict[str, str]) -> Iterator[Finding]:
    if not config:
        return
    most = max(1, int(config.get("MaxArraySize", "1001")))  # they are numbered from 0 to one less; 0 for none
    if site.max_array_size and site.max_array_size > most:
        fix = f"set `max_array_size` in the site file to {most}, or leave it out"
        yield Finding(
            "FAIL", "array size", f"the site says {site.max_array_size}, SLURM takes {most} jobs", fix
        )
    else:
        yield Finding("ok", "array size", f"arrays of up to {min(most, site.max_array_size or most)} jobs")


def _accounts(site: Site, config: dict[str, str]) -> Iterator[Finding]:
    """Whether the user may use the account and the QOS. SLURM stores both in lower case."""
    if not config:
        return
    if not config.get("AccountingStorageType", "").endswith("slurmdbd"):
        yield Finding("ok", "accounting", "none here; the states of runs are read from their folders")
        return
    user = getpass.getuser()
    listed = ask_once("sacctmgr", "-nP", "show", "assoc", f"user={user}", "format=account,qos").casefold()
    rows = [line.split("|") for line in listed.splitlines()]
    account, qos = (name and name.casefold() for name in (site.account, site.qos))
    accounts = sorted({name for name, _ in rows})
    if account and account not in accounts:
        fix = f"set `account` in the site file to one of {', '.join(accounts) or 'none'}"
        yield Finding("warn", "account", f"{site.account!r} is none of {user}'s, as far as one can see", fix)
    else:
        yield Finding("ok", "account", site.account or f"SLURM's default for {user}")
    if not qos:
        return
    known = sorted({name for owner, names in rows if account in (None, owner) for name in names.split(",")})
    if qos in known:
        yield Finding("ok", "qos", qos)
    else:
        fix = f"set `qos` in the site file to one of {', '.join(known) or 'none'}"
        yield Finding("warn", "qos", f"{site.qos!r} is not open to {user}, as far as one can see", fix)


def _environment() -> Iterator[Finding]:
    """Environment variables of sbatch that no job gets."""
    if names := exported.ignored():
        yield Finding(
            "warn", "environment", f"no job gets {', '.join(names)}", "say it in `extra` of the site file"
        )


def _clock() -> Finding:
    """Whether this machine's clock agrees with the controller's, which answers in whole seconds."""
    began = time.time()
    stated = re.search(r"as of (\S+)", ask_once("scontrol", "show", "config"))
    try:
        controller = datetime.fromisoformat(stated[1] if stated else "").timestamp()
    except ValueError:
        return Finding("ok", "clock", "SLURM's controller does not tell its time")
    ahead = max(controller - time.time(), began - 1 - controller, 0.0)
    return clock("SLURM's controller", ahead)
