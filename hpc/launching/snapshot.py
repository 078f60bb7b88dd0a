"""The code of jobs: a copy beside the runs. A job that waits, or is queued again, runs the code that it was
submitted with.

The copy's name is a digest of its files, so the same code has the same folder and is copied once. Copies are
never removed here.

`python -m hpc.launching.snapshot` makes the copy for the runs of the current folder, and prints where it is.
Used by slurm/sweep.sh.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from hpc.studies import study
from leukotree import files
from leukotree.errors import InputError, one_line
from leukotree.records import origin

FOLDER = ".code"
"""In the folder of all studies' runs."""
PROGRAMS = "slurm"
"""The folder of the shell programs of jobs and of the sites. An installed package has none: then they are
taken from the checkout of the current folder."""
VERSIONS = "constraints.txt"
"""The versions that the check of a node compares with."""
BUILD = "image"
"""A folder of slurm/container: it builds an image, perhaps with a password for an index of packages. No job
needs it."""
VARIABLE = "LEUKOTREE_CODE"
"""The variable with the folder of a job's code."""


def take(runs: Path) -> Path:
    """The absolute folder with the code of this process, below `runs`, the folder of all studies' runs.

    It is made once for a process, so a command submits all of its jobs with the same code. In a job it is the
    job's own code. Raises InputError if it cannot be written.
    """
    place = runs.absolute() / FOLDER
    copy = _taken(place)
    if not (copy / origin.FILE).is_file():  # removed since
        _taken.cache_clear()
        copy = _taken(place)
    return copy


@functools.cache
def _taken(place: Path) -> Path:
    here = origin.root()
    if (here / origin.FILE).is_file():
        return here
    try:
        copy = place / _digest(_sources(here))
        if not _is_whole(copy):
            copy = _copy(here, place)
        _describe(copy, origin.here())
    except (OSError, shutil.Error) as error:
        raise InputError(
            f"{place}: the code for the jobs cannot be copied there: {one_line(error)}"
        ) from error
    return copy


def _sources(here: Path) -> dict[str, Path]:
    """Name in the copy -> folder that it is copied from."""
    folders = origin.packages()
    # The programs beside the running slurm/sweep.sh come first: the package may be installed elsewhere.
    for checkout in (Path(os.environ.get("LEUKOTREE_HOME") or "."), Path(), here):
        if (checkout / PROGRAMS / "node.sh").is_file():
            return folders | {PROGRAMS: (checkout / PROGRAMS).resolve()}
    return folders


def _digest(folders: dict[str, Path]) -> str:
    """The name of a copy. It does not depend on the files that build an image."""
    return origin.digest(folders, leave_out=BUILD)


def _is_whole(copy: Path) -> bool:
    """Whether a copy's files have the digest in its name. Somebody may have removed or changed some."""
    return (copy / origin.FILE).is_file() and _digest(
        {name: copy / name for name in _names(copy)}
    ) == copy.name


def _names(copy: Path) -> list[str]:
    return [name for name in (*origin.packages(), PROGRAMS) if (copy / name).is_dir()]


def _copy(here: Path, place: Path) -> Path:
    """Copy the code under a temporary name, then rename the copy to its digest."""
    temporary = place / f".{uuid.uuid4().hex}.tmp"
    temporary.mkdir(parents=True)
    try:
        for name, folder in _sources(here).items():
            for path in origin.code_files(folder, leave_out=BUILD):
                target = temporary / name / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target, follow_symlinks=not origin.is_link_within(path, folder))
        if (here / VERSIONS).is_file():
            shutil.copy2(here / VERSIONS, temporary / VERSIONS)
        _describe(temporary, origin.here())
        copy = place / _digest({name: temporary / name for name in _names(temporary)})
        _rename(temporary, copy)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return copy


def _rename(temporary: Path, copy: Path) -> None:
    """Give a copy its name. Another process may have made the same copy meanwhile; a damaged one is
    replaced."""
    try:
        temporary.rename(copy)
    except OSError:
        if _is_whole(copy):
            return
        damaged = temporary.with_suffix(".old")
        with contextlib.suppress(FileNotFoundError):
            copy.rename(damaged)
        temporary.rename(copy)
        shutil.rmtree(damaged, ignore_errors=True)


def _describe(copy: Path, code: dict[str, Any]) -> None:
    """Write which checkout the code is from. Code that was committed since is no longer noted as changed."""
    path = copy / origin.FILE
    before = json.loads(path.read_text()) if path.is_file() else {}
    if not before or (before.get("dirty") is not False and code["dirty"] is False):
        files.write_atomic(path, json.dumps(code, indent=1))


def at_the_start(runs: Path) -> list[str]:
    """Lines of bash for the start of a batch script, which set the folder of the job's code. If that was
    removed they print a warning."""
    code, instead = (shlex.quote(str(folder)) for folder in (take(runs), origin.root()))
    removed = "the code that this job was submitted with was removed; it runs the code of today"
    warning = f'"leukotree: $LEUKOTREE_CODE: {removed}"'
    return [
        f"export {VARIABLE}={code}",
        f"[[ -d $LEUKOTREE_CODE/hpc ]] || {{ echo {warning} >&2; export {VARIABLE}={instead}; }}",
    ]


IMPORT = (
    'export PYTHONPATH="$LEUKOTREE_CODE:$LEUKOTREE_CODE/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1'
    "  # without the latter, `python -m` looks in the current folder first"
)
"""A line of bash that lets Python take that code. It comes after the lines of a site, which may set the
path."""


def main() -> int:
    """Make the copy and print its folder. Returns 2 after one line on stderr if it cannot be made."""
    try:
        print(take(study.RUNS))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def environment(code: Path) -> dict[str, str]:
    """Environment variables that let a process of Python take the code in a folder."""
    return {
        "PYTHONPATH": os.pathsep.join([str(code), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONSAFEPATH": "1",
    }


if __name__ == "__main__":
    sys.exit(main())
