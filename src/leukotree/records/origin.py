"""The code of this process: the commit of its checkout, whether files differ from it, and a digest of the
files.

Jobs run a copy of the code, a snapshot, that has no git. A file in it has the origin of its checkout.
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
"""In a snapshot: the value of `here` there."""
KEYS = ("commit", "dirty", "version", "code")
DIGITS = 12
"""Hex digits of a digest."""
TIMEOUT = 10.0
"""Seconds to wait for git, which may be on a slow file system."""
CODE = ("src", "hpc", "slurm", ":(exclude)slurm/site")
"""Paths in which changes count. A site file describes a cluster, and is not code."""


def root() -> Path:
    """The folder with the package `hpc`: a checkout, a snapshot, or the folder of installed packages."""
    above = Path(__file__).resolve().parents[2]
    return above.parent if above.name == "src" and (above.parent / "hpc").is_dir() else above


def packages() -> dict[str, Path]:
    """Name -> folder of the packages of LeukoTree."""
    return {"leukotree": Path(__file__).resolve().parents[1], "hpc": (root() / "hpc").resolve()}


@functools.cache
def here() -> dict[str, Any]:
    """The code of this process: commit, dirty, version and code. It is determined once.

    commit: the commit of its git checkout, None without one. dirty: whether tracked files differ from the
    commit, or modules are in no commit; None if git does not answer. version: the version of the installed
    package. code: a digest of all files of the packages, None if one cannot be read.
    """
    with contextlib.suppress(OSError, ValueError):
        noted = json.loads((root() / FILE).read_text())
        if isinstance(noted, dict) and set(KEYS) <= noted.keys():
            return {key: noted[key] for key in KEYS}
    return _of_checkout()


def _of_checkout() -> dict[str, Any]:
    commit = _commit(root())
    version = None
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version("leukotree")
    code = None
    with contextlib.suppress(OSError):
        code = digest(packages())
    return {"commit": commit, "dirty": _dirty(root()) if commit else None, "version": version, "code": code}


def digest(folders: Mapping[str, Path], leave_out: str | None = None) -> str:
    """A digest of the names and bytes of all code files in folders (name -> folder). A copy of the folders
    has the same digest."""
    digest = hashlib.sha256()
    for name, folder in sorted(folders.items()):
        for path in code_files(folder, leave_out):
            content = os.readlink(path).encode() if is_link_within(path, folder) else path.read_bytes()
            digest.update(
                json.dumps([name, path.relative_to(folder).as_posix(), len(content)]).encode() + content
            )
    return digest.hexdigest()[:DIGITS]


def code_files(folder: Path, leave_out: str | None = None) -> list[Path]:
    """The code files of a package, sorted: modules and the files that they read, also in linked folders.
    Caches, hidden files, copies of an editor and folders with the name `leave_out` are not among them."""
    paths, entered = [], {folder.resolve()}
    for where, folders, names in os.walk(folder, followlinks=True):
        inner = {
            name: Path(where, name).resolve() for name in folders if _is_code(name) and name != leave_out
        }
        # A link may lead to a folder above.
        folders[:] = [name for name, real in inner.items() if real not in entered]
        entered.update(inner[name] for name in folders)
        paths += [Path(where, name) for name in names if _is_code(name)]
    return sorted(paths)


def is_link_within(path: Path, folder: Path) -> bool:
    """Whether a file is a link to a file of the same folder. A copy of the folder keeps such a link; of other
    links it has the content."""
    return path.is_symlink() and path.resolve().is_relative_to(folder.resolve())


def _is_code(name: str) -> bool:
    return (
        not name.startswith((".", "#"))
        and not name.endswith((".pyc", "~", ".egg-info"))
        and name != "__pycache__"
    )


def _commit(folder: Path) -> str | None:
    """The commit of a checkout; None if this code is not in it. An installed package may be in the checkout
    of another project."""
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
    """The output of a git command; None without git, without a checkout, or if it takes too long.

    A checkout may belong to another user, as in a container or a group's folder. Git would refuse it; here it
    is only read.
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
    """Code as people read it: its commit, whether files were changed, and the digest."""
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
    """The names of the code of a run's attempts, in their order, one for each change of the code. Attempts
    before one that began at 0 (its `at`) do not count."""
    since: list[Mapping[str, Any]] = []
    for attempt in attempts:
        since = [attempt] if attempt.get("at") == 0 else [*since, attempt]
    known = [attempt for attempt in since if attempt.get("code") or attempt.get("commit")]
    changes = [
        attempt for index, attempt in enumerate(known) if index == 0 or not _same(known[index - 1], attempt)
    ]
    return [name(attempt) for attempt in (changes if len(changes) > 1 else known[-1:])]


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    key = "code" if first.get("code") and second.get("code") else "commit"
    return first.get(key) is None or second.get(key) is None or first[key] == second[key]
