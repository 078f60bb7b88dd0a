"""SLURM against a site file: is there a partition, an account, time and hardware for the jobs that the site asks for."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from hpc.checks import Finding, State
from hpc.site import Site
from leukotree.errors import one_line

COMMANDS = ("sbatch", "squeue", "scontrol", "sinfo")
PATIENCE = 15.0
"""Seconds that a command may take; a controller that is busy answers later."""
SKEW = 2.0
"""Seconds by which clocks may differ."""
GONE = re.compile(r"down|drain|fail|maint|inval|unk|power", re.IGNORECASE)
"""States of nodes that take no job now."""


class Silent(Exception):
    """A command of SLURM did not answer; the message says what it said."""


def check(site: Site, needed: bool) -> Iterator[Finding]:
    """Everything about SLURM that can be seen without a job. `needed`: jobs are to run there."""
    state: State = "FAIL" if needed else "warn"
    if missing := [name for name in COMMANDS if not shutil.which(name)]:
        yield Finding(state, "slurm", f"no command {', '.join(missing)} here", "run this on a login node, or use --on local")
        return
    try:
        answer = _ask("scontrol", "ping")
        if " UP" not in answer:
            raise Silent(one_line(answer))
        config = _pairs(_ask("scontrol", "show", "config"), r"^(\S+)\s*=[ \t]*(.*?)\s*$")
        yield Finding("ok", "slurm", f"{one_line(answer)}, version {config.get('SLURM_VERSION', 'unknown')}")
        yield _clock()
        partitions = _partitions()
        found = list(_partition(site, partitions))
        yield from found
        if not any(finding.state == "FAIL" for finding in found):
            named = _named(site, partitions)
            yield _time(site, [partitions[name] for name in named])
            yield _nodes(site, named)
        yield _array(site, config)
        yield from _accounts(site, config)
    except Silent as error:
        yield Finding(state, "slurm", f"does not answer: {error}", "see SLURM_CONF, or ask the cluster's operators")


def _ask(*words: str) -> str:
    """Standard output of a command. Raises Silent."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Silent(f"{words[0]}: {one_line(error)[:200]}") from error
    if done.returncode:
        raise Silent(f"{words[0]}: {one_line(done.stderr or done.stdout)[:200]}")
    return done.stdout


def _pairs(text: str, pattern: str) -> dict[str, str]:
    return dict(re.findall(pattern, text, re.MULTILINE))


def _partitions() -> dict[str, dict[str, str]]:
    """Name -> what SLURM says of it."""
    lines = _ask("scontrol", "show", "partition", "--oneliner").splitlines()
    parsed = [_pairs(line, r"(\S+?)=(\S*)") for line in lines]
    return {pairs["PartitionName"]: pairs for pairs in parsed if "PartitionName" in pairs}


def _named(site: Site, partitions: dict[str, dict[str, str]]) -> list[str]:
    """The partitions that a job of the site may use: those it names, else the cluster's default."""
    if site.partition:
        return site.partition.split(",")
    return [name for name, pairs in partitions.items() if pairs.get("Default") == "YES"]


def _partition(site: Site, partitions: dict[str, dict[str, str]]) -> Iterator[Finding]:
    named = _named(site, partitions)
    mend = f"set `partition` in the site file to one of {', '.join(partitions) or 'none'}"
    if not named:
        yield Finding("FAIL", "partition", "the cluster has no default", mend)
    for name in named:
        found = partitions.get(name, {}).get("State")
        if found is None:
            yield Finding("FAIL", "partition", f"none is named {name!r}", mend)
        elif found != "UP":
            others = any(partitions.get(other, {}).get("State") == "UP" for other in named)
            yield Finding("warn" if others else "FAIL", "partition", f"{name} is {found}", "wait for it, or name another")
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
    shown = ", ".join(f"{name} {limit:g} min" if limit < float("inf") else f"{name} any" for name, limit in limits.items())
    short = [name for name, limit in limits.items() if limit < site.time]
    if not short:
        return Finding("ok", "time limit", f"jobs ask for {site.time} min; most: {shown}")
    state: State = "FAIL" if len(short) == len(limits) else "warn"
    mend = f"set `time` in the site file to {min(limits.values()):g} or less; runs continue in the next job"
    return Finding(state, "time limit", f"jobs ask for {site.time} min, most: {shown}", mend)


@dataclass(frozen=True)
class Node:
    name: str
    cpus: int
    memory_mb: int
    gpus: int
    features: frozenset[str]
    state: str


def _read_nodes(partitions: list[str]) -> list[Node]:
    """The nodes of partitions, each once."""
    nodes = {}
    for line in _ask("sinfo", "-h", "-N", "-p", ",".join(partitions), "-o", "%N|%c|%m|%G|%f|%T").splitlines():
        name, cpus, memory, gres, features, state = line.strip().split("|", 5)
        gpus = sum(int(count) for count in re.findall(r"(?:^|,)gpu(?::[^:,(]+)?:(\d+)", gres))
        cores, megabytes = (int(re.sub(r"\D", "", text) or 0) for text in (cpus, memory))
        nodes[name] = Node(name, cores, megabytes, gpus, frozenset(features.split(",")), state)
    return list(nodes.values())


def _nodes(site: Site, partitions: list[str]) -> Finding:
    """Whether enough nodes have what a job asks of one."""
    nodes = _read_nodes(partitions)
    cpus, memory = site.cpus_per_task * max(1, site.gpus_per_node), (site.mem_gb or 0) * 1024
    wanted = {
        f"{cpus} cores (cpus_per_task)": lambda node: node.cpus >= cpus,
        f"{site.mem_gb} GB (mem_gb)": lambda node: node.memory_mb >= memory,
        f"{site.gpus_per_node} GPUs (gpus_per_node)": lambda node: node.gpus >= site.gpus_per_node,
    }
    if site.constraint and re.fullmatch(r"[\w.&-]+", site.constraint):  # other operators only SLURM can weigh
        features = set(site.constraint.split("&"))
        wanted[f"{site.constraint} (constraint)"] = lambda node: features <= node.features
    fit = nodes
    for what, has in wanted.items():
        left = [node for node in fit if has(node)]
        if len(left) < site.nodes:
            most = f"the largest has {max((n.cpus for n in nodes), default=0)} cores, "
            most += f"{max((n.memory_mb for n in nodes), default=0) // 1024} GB, {max((n.gpus for n in nodes), default=0)} GPUs"
            measured = f"{len(left)} of {len(nodes)} nodes have {what}, the site asks for {site.nodes}"
            return Finding("FAIL", "nodes", f"{measured} ({most})", "ask for less in the site file")
        fit = left
    up = [node for node in fit if not GONE.search(node.state)]
    measured = f"{len(fit)} of {len(nodes)} nodes have what a job asks for, {len(up)} of them are up"
    if len(up) < site.nodes:
        return Finding("warn", "nodes", measured, f"jobs wait until {site.nodes} are: see `sinfo -R`")
    return Finding("ok", "nodes", measured)


def _array(site: Site, config: dict[str, str]) -> Finding:
    most = int(config.get("MaxArraySize", "1001"))  # they are numbered from 0 to one less
    if site.max_array_size and site.max_array_size > most:
        mend = f"set `max_array_size` in the site file to {most}, or leave it out"
        return Finding("FAIL", "array size", f"the site says {site.max_array_size}, SLURM takes {most} jobs", mend)
    return Finding("ok", "array size", f"arrays of up to {min(most, site.max_array_size or most)} jobs")


def _accounts(site: Site, config: dict[str, str]) -> Iterator[Finding]:
    """Whether the account and the QOS are the user's. Only a cluster that enforces them refuses others."""
    if not config.get("AccountingStorageType", "").endswith("slurmdbd"):
        yield Finding("ok", "accounting", "none here; the states of runs are read from their folders")
        return
    enforced = re.search(r"associations|limits|qos|safe", config.get("AccountingStorageEnforce", "none").lower())
    state: State = "FAIL" if enforced else "warn"
    user = getpass.getuser()
    rows = [
        line.split("|") for line in _ask("sacctmgr", "-nP", "show", "assoc", f"user={user}", "format=account,qos").splitlines()
    ]
    accounts = sorted({account for account, _ in rows})
    if site.account and site.account not in accounts:
        mend = f"set `account` in the site file to one of {', '.join(accounts) or 'none'}"
        yield Finding(state, "account", f"{site.account!r} is none of {user}'s", mend)
    elif enforced and not accounts:
        yield Finding("FAIL", "account", f"{user} has none", "ask the cluster's operators for one")
    else:
        yield Finding("ok", "account", site.account or f"SLURM's default for {user}")
    if site.qos:
        known = sorted({qos for account, listed in rows if site.account in (None, account) for qos in listed.split(",")})
        if site.qos in known:
            yield Finding("ok", "qos", site.qos)
        else:
            mend = f"set `qos` in the site file to one of {', '.join(known) or 'none'}"
            yield Finding(state, "qos", f"{site.qos!r} is not open to {user}", mend)


def _clock() -> Finding:
    """Whether this machine's clock agrees with the controller's, which answers in whole seconds."""
    began = time.time()
    said = re.search(r"as of (\S+)", _ask("scontrol", "show", "config"))
    try:
        theirs = datetime.fromisoformat(said[1] if said else "").timestamp()
    except ValueError:
        return Finding("ok", "clock", "SLURM's controller does not tell its time")
    ahead = max(theirs - time.time(), began - 1 - theirs, 0.0)
    return clock("SLURM's controller", ahead)


def clock(whose: str, difference: float) -> Finding:
    """A finding about a clock that differs by so many seconds at least."""
    measured = f"within {SKEW:g} s of {whose}" if difference <= SKEW else f"{difference:.0f} s away from {whose}"
    mend = "" if difference <= SKEW else "ask for time synchronisation (chrony): heartbeats and time limits depend on it"
    return Finding("ok" if difference <= SKEW else "warn", "clock", measured, mend)
