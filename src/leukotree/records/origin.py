"""Which code runs: the commit of its checkout, whether files differ from that, and a digest of the files
themselves.

A copy of the code that jobs run (a snapshot, see `hpc.launching.snapshot`) has no git; a file in it says what
its checkout was.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

FILE = "origin.json"
"""In a snapshot: what `here` says there."""
KEYS = ("commit", "dirty", "version", "code")
DIGITS = 12
"""Hex digits of a digest that are kept."""
TIMEOUT = 10.0
"""Seconds that git may take, as on a slow file system."""
CODE = ("src", "hpc", "slurm", ":(exclude)slurm/site")
"""Where git looks for changes. A site file says how a cluster is asked for jobs, and is no code."""


def root() -> Path:
    """The folder with the package `hpc`: a checkout, a snapshot, or where packages are installed."""
    above = Path(__file__).resolve().parents[2]
    return above.parent if above.name == "src" and (above.parent / "hpc").is_dir() else above


def packages() -> dict[str, Path]:
    """Name -> folder of the packages that are our code."""
    return {"leukotree": Path(__file__).resolve().parents[1], "hpc": (root() / "hpc").resolve()}


@functools.cache
def here() -> dict[str, Any]:
    """The code of this process; looked at once, since it is loaded by then.

    commit: of its git checkout, None without one. dirty: whether tracked files differ from the commit, or
    modules are in no commit yet; None where git does not say. version: of the installed package. code: digest
    of all files of the packages, None where one cannot be read.
    """
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((root() / FILE).read_text())
        if isinstance(found, dict) and set(KEYS) <= found.keys():
            return {key: found[key] for key in KEYS}
    return _looked_at()


def _looked_at() -> dict[str, Any]:
    commit = _commit(root())
    version = None
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version("leukotree")
    code = None
    with contextlib.suppress(OSError):
        code = digest(packages())
    return {"commit": commit, "dirty": _dirty(root()) if commit else None, "version": version, "code": code}


def digest(folders: Mapping[str, Path], leave_out: str | None = None) -> str:
    """Of the names and bytes of all code files in folders: name -> folder. The same for a copy of them."""
    found = hashlib.sha256()
    for name, folder in sorted(folders.items()):
        for path in code_files(folder, leave_out):
            content = os.readlink(path).encode() if is_link_within(path, folder) else path.read_bytes()
            found.update(
                json.dumps([name, path.relative_to(folder).as_posix(), len(content)]).encode() + content
            )
    return found.hexdigest()[:DIGITS]


def code_files(folder: Path, leave_out: str | None = None) -> list[Path]:
    """The files of a package, sorted: modules and what they read, also in linked folders (sites may lie
    elsewhere), without caches, hidden files, an editor's copies, and folders of the name `leave_out`."""
    found, entered = [], {folder.resolve()}
    for where, folders, names in os.walk(folder, followlinks=True):
        inner = {
            name: Path(where, name).resolve() for name in folders if _is_code(name) and name != leave_out
        }
        folders[:] = [
            name for name, real in inner.items() if real not in entered
        ]  # a link may lead in a circle
        entered.update(inner[name] for name in folders)
        found += [Path(where, name) for name in names if _is_code(name)]
    return sorted(found)


def is_link_within(path: Path, folder: Path) -> bool:
    """Whether a file is a link to one of the same package, which a copy keeps. Of another link it has the
    content."""
    return path.is_symlink() and path.resolve().is_relative_to(folder.resolve())


def _is_code(name: str) -> bool:
    return (
        not name.startswith((".", "#"))
        and not name.endswith((".pyc", "~", ".egg-info"))
        and name != "__pycache__"
    )


def _commit(folder: Path) -> str | None:
    """None where git does not know our code: an installed package may lie in the checkout of something
    else."""
    if _git(folder, "ls-files", "--error-unmatch", "src/leukotree/__init__.py") is None:
        return None
    return (_git(folder, "rev-parse", "--verify", "HEAD") or "").strip() or None


def _dirty(folder: Path) -> bool | None:
    changed = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", *CODE)
    if changed is None:
        return None
    lines = [line.rstrip('"') for line in changed.splitlines()]
    return any(not line.startswith("??") or line.endswith(".py") for line in lines)


def _git(folder: Path, *words: str) -> str | None:
    """What a command of git prints; None where there is no git, no checkout, or no answer in time.

    A checkout may belong to somebody else, as in a container or a group's folder: it is read only, and its
    code runs anyway.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    settings = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
    try:
        done = subprocess.run(
            ["git", *settings, *words],
            cwd=folder,
            env=environment | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def name(code: Mapping[str, Any]) -> str:
    """Code as people read it: its commit, whether that was changed, and the digest."""
    commit, digits = code.get("commit"), code.get("code")
    known = (
        f"commit {commit[:DIGITS]}"
        if commit
        else f"version {code['version']}"
        if code.get("version")
        else "unknown"
    )
    changed = " with changes" if code.get("dirty") else ""
    return f"{known}{changed} (code {digits})" if digits and (changed or not commit) else known + changed


def sequence(attempts: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of the code that attempts of one piece of work ran one after another, a name per change. What
    was before an attempt that began with nothing (its `at` is 0) does not count."""
    since: list[Mapping[str, Any]] = []
    for attempt in attempts:
        since = [attempt] if attempt.get("at") == 0 else [*since, attempt]
    known = [attempt for attempt in since if attempt.get("code") or attempt.get("commit")]
    changes = [one for index, one in enumerate(known) if index == 0 or not _same(known[index - 1], one)]
    return [name(one) for one in changes] if len(changes) > 1 else [name(one) for one in known[-1:]]


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    key = "code" if one.get("code") and other.get("code") else "commit"
    return one.get(key) is None or other.get(key) is None or one[key] == other[key]
