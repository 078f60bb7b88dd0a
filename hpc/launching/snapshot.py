"""The code of jobs: a copy beside the runs, so that a job that waits, or is queued again, runs what it was
submitted with.

The copy's name is a digest of its files: the same code has the same folder, and is copied once. Nothing here
removes one.

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

from leukotree import files
from leukotree.errors import InputError, one_line
from leukotree.records import origin

FOLDER = ".code"
"""In the folder of all studies' runs."""
PROGRAMS = "slurm"
"""The shell programs of jobs, with the sites. An installed package has none; they are those of the checkout
that is worked in."""
VERSIONS = "constraints.txt"
"""What a look at a node compares with."""
BUILD = "image"
"""Of slurm/container: what builds an image, perhaps with a password for an index of packages. No job needs
it."""
VARIABLE = "LEUKOTREE_CODE"
"""In a job: the folder of its code."""


def take(runs: Path) -> Path:
    """The absolute folder with the code of this process, below `runs`, the folder of all studies' runs. Made
    once for a process: what a command submits later is the same code. In a job it is the job's own. Raises
    InputError where it cannot be written."""
    place = runs.absolute() / FOLDER
    found = _taken(place)
    if not (found / origin.FILE).is_file():  # removed since
        _taken.cache_clear()
        found = _taken(place)
    return found


@functools.cache
def _taken(place: Path) -> Path:
    here = origin.root()
    if (here / origin.FILE).is_file():
        return here
    try:
        found = place / _digest(_sources(here))
        if not _is_whole(found):
            found = _copy(here, place)
        _describe(found, origin.here())
    except (OSError, shutil.Error) as error:
        raise InputError(
            f"{place}: the code for the jobs cannot be copied there: {one_line(error)}"
        ) from error
    return found


def _sources(here: Path) -> dict[str, Path]:
    """Name in the copy -> folder that it is copied from."""
    found = origin.packages()
    # Those beside the slurm/sweep.sh that runs come first: the package may be installed from elsewhere.
    for checkout in (Path(os.environ.get("LEUKOTREE_HOME") or "."), Path(), here):
        if (checkout / PROGRAMS / "node.sh").is_file():
            return found | {PROGRAMS: (checkout / PROGRAMS).resolve()}
    return found


def _digest(folders: dict[str, Path]) -> str:
    """The folder's name. An image's recipe is no part of it."""
    return origin.digest(folders, leave_out=BUILD)


def _is_whole(copy: Path) -> bool:
    """Whether a copy is what its name says; somebody may have removed a part of it, or changed it."""
    return (copy / origin.FILE).is_file() and _digest(
        {name: copy / name for name in _names(copy)}
    ) == copy.name


def _names(copy: Path) -> list[str]:
    return [name for name in (*origin.packages(), PROGRAMS) if (copy / name).is_dir()]


def _copy(here: Path, place: Path) -> Path:
    """Copy the code under a name of our own, and give it the name of what was copied."""
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
        found = place / _digest({name: temporary / name for name in _names(temporary)})
        _rename(temporary, found)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return found


def _rename(temporary: Path, found: Path) -> None:
    """Give a copy its name. Another process may have made the same one since; one that is damaged is
    replaced."""
    try:
        temporary.rename(found)
    except OSError:
        if _is_whole(found):
            return
        damaged = temporary.with_suffix(".old")
        with contextlib.suppress(FileNotFoundError):
            found.rename(damaged)
        temporary.rename(found)
        shutil.rmtree(damaged, ignore_errors=True)


def _describe(copy: Path, code: dict[str, Any]) -> None:
    """Write what the checkout was. Code that was committed since is no longer a change of its commit."""
    path = copy / origin.FILE
    before = json.loads(path.read_text()) if path.is_file() else {}
    if not before or (before.get("dirty") is not False and code["dirty"] is False):
        files.write_atomic(path, json.dumps(code, indent=1))


def at_the_start(runs: Path) -> list[str]:
    """Lines of bash for the start of a batch script: where the job's code is. They say so where that was
    removed."""
    code, instead = (shlex.quote(str(folder)) for folder in (take(runs), origin.root()))
    said = '"leukotree: $LEUKOTREE_CODE: the code that this job was submitted with was removed; it runs the code of today"'
    return [
        f"export {VARIABLE}={code}",
        f"[[ -d $LEUKOTREE_CODE/hpc ]] || {{ echo {said} >&2; export {VARIABLE}={instead}; }}",
    ]


IMPORT = (
    'export PYTHONPATH="$LEUKOTREE_CODE:$LEUKOTREE_CODE/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1'
    "  # without the latter, `python -m` looks in the current folder first"
)
"""A line of bash that lets Python take that code; after those of a site, which may set the path."""


def main() -> int:
    """See above."""
    from hpc.studies import study

    try:
        print(take(study.RUNS))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def environment(code: Path) -> dict[str, str]:
    """Variables that let a process of Python take the code in a folder."""
    return {
        "PYTHONPATH": os.pathsep.join([str(code), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONSAFEPATH": "1",
    }


if __name__ == "__main__":
    sys.exit(main())
