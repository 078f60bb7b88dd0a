"""What a run or a search was made from (its data, its label tree, its pretrained weights), compared with what
is there today.

A finished run stays on the disk when its data set is packed anew. Its numbers are then not those of today's
data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from leukotree import files, yamlfile
from leukotree.data import fingerprint
from leukotree.errors import InputError, one_line
from leukotree.records import runfolder, searchfolder
from leukotree.spec import DataSpec, RunSpec

DATA = "dataset"
"""Key of env.json for the fingerprint of the data set."""
WEIGHTS = "weights"
"""Key of env.json for the sha256 of the file of pretrained weights."""
_AGAIN = "move the folder away to run it again"
_SHARDS = re.compile(r"^  shards:.*(?:\n    .*)*", re.MULTILINE)
_WEIGHTS = re.compile(r"^  weights:.*(?:\n    .*)*", re.MULTILINE)


class Inputs(NamedTuple):
    """Where the data and the weights of a run lie."""

    shards: str
    weights: str | None
    """Path of a file; None without one, also for the weights that timm knows."""

    @classmethod
    def of(cls, spec: RunSpec) -> Inputs:
        return cls(spec.data.shards, _file(spec.backbone.weights))

    @classmethod
    def read(cls, folder: Path) -> Inputs | None:
        """From the spec.yaml of a run folder; None where there is none. Only two of its lines are parsed:
        `status` asks for thousands of runs."""
        try:
            text = (folder / runfolder.SPEC).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        found = _SHARDS.search(text), _WEIGHTS.search(text)
        values = [_value(match[0]) if match else None for match in found]
        return cls(str(values[0]), _file(values[1])) if values[0] else None

    def absent(self) -> list[str]:
        """What is not here, so that nothing can be compared with it: "the data (data/my)"."""
        lacking = ["data", self.shards] if fingerprint.packed(self.shards) is None else None
        without = [WEIGHTS, self.weights] if self.weights and not Path(self.weights).is_file() else None
        return [f"the {what} ({where} is not here)" for what, where in filter(None, (lacking, without))]


class Change(NamedTuple):
    """Why the numbers of a folder do not belong to what is there today."""

    reason: str
    """As the end of a line that begins with the folder."""
    fix: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.fix}"


def changed(folder: Path, inputs: Inputs, *, partly: bool = False) -> Change | None:
    """What of a run's data, tree or weights is not what it is today; None where all is the same, or not here
    to be compared with.
    `partly` passes over what the folder does not record. Raises InputError for a file that is damaged."""
    today, weights = fingerprint.packed(inputs.shards), _digest(inputs.weights)
    if today is None and weights is None:
        return None
    environment = runfolder.read_environment(folder)
    for what, now, where in ((DATA, today, inputs.shards), (WEIGHTS, weights, inputs.weights)):
        if now is not None and what not in environment and not partly:
            return Change(
                f"its env.json does not name its {what}, so that it cannot be compared with {where}", _AGAIN
            )
    if (
        today is not None
        and DATA in environment
        and (change := _changed_data(folder, environment[DATA], inputs.shards, today))
    ):
        return change
    if weights is not None and environment.get(WEIGHTS, weights) != weights:
        return Change(
            f"made from other weights than {inputs.weights} holds now",
            f"{_AGAIN}, or put the old weights back",
        )
    return None


def changed_search(folder: Path, shards: str | None = None) -> Change | None:
    """What of the data or weights of a search (its folder) is not what it is today, as `changed`: by its
    search.yaml, and by the runs of the trial that it chose (of its first one before) and of its re-runs.
    `shards`: None for where search.yaml says."""
    settings = _mapping(folder / searchfolder.SETTINGS)
    shards = shards or str(
        ((settings.get("base") or {}).get("data") or {}).get("shards") or DataSpec().shards
    )
    today = fingerprint.packed(shards)
    if today is not None and settings.get(searchfolder.DATASET, today.fingerprint) != today.fingerprint:
        return Change(
            f"searched on other data than {shards} holds now", f"{_AGAIN}, or pack the old data again"
        )
    trial = _mapping(folder / searchfolder.BEST).get("trial", 0)
    for run in [*searchfolder.runs_of_trial(folder, trial), *searchfolder.rerun_runs(folder)]:
        inputs = Inputs.read(run)
        if inputs and (change := changed(run, inputs._replace(shards=shards), partly=True)):
            return Change(f"its run {run.relative_to(folder)} was {change.reason}", change.fix)
    return None


def refuse(changes: Sequence[tuple[Path, Change]], shards: str) -> None:
    """Raises InputError naming the first of these run folders, what changed, and how many more there are;
    nothing where there are none."""
    if not changes:
        return
    from leukotree.records import tested

    folder, change = changes[0]
    told = tested.since(folder, shards)
    more = f" (and {len(changes) - 1} more in {folder.parent})" if len(changes) > 1 else ""
    raise InputError(f"{folder}{more}: {change.reason}{f' ({told})' if told else ''}; {change.fix}")


def _changed_data(folder: Path, recorded: Any, shards: str, today: fingerprint.Packed) -> Change | None:
    fix = f"{_AGAIN}, or pack the old data again"
    if not _same_tree(folder, today.tree):
        if recorded != today.fingerprint:
            return Change(f"made on another label tree, and from other data, than {shards} holds now", fix)
        return Change(f"its taxonomy.json is not the label tree of {shards}, from which it was made", _AGAIN)
    if recorded != today.fingerprint:
        return Change(f"made from other data than {shards} holds now", fix)
    return None


def _same_tree(folder: Path, today: str) -> bool:
    """Whether a run's tree is that of the data, in the same order; also where the folder lacks it, as its
    reader says."""
    try:
        text = (folder / runfolder.TAXONOMY).read_text(encoding="utf-8")
        return text == today or json.dumps(json.loads(text)) == today
    except FileNotFoundError:
        return True
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder / 'taxonomy.json'}: cannot be read as JSON: {one_line(error)[:200]}; {_AGAIN}"
        ) from error


def _mapping(path: Path) -> dict[str, Any]:
    """A YAML file of a search; {} where it is not there, or holds something else, of which others speak."""
    found = yamlfile.load(path) if path.exists() else {}
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=256)  # the runs of a study have the same lines
def _value(line: str) -> Any:
    (value,) = yamlfile.parse(line, runfolder.SPEC).values()
    return value


def _file(weights: Any) -> str | None:
    return None if weights in (None, "hub") else str(weights)


def _digest(path: str | None) -> str | None:
    """sha256 of a file; None where there is none."""
    try:
        found = Path(path).stat() if path else None
    except OSError:
        return None
    return _sha256(str(path), found.st_ino, found.st_size, found.st_mtime_ns) if found else None


@lru_cache(maxsize=64)  # a study names the same file in all its runs
def _sha256(path: str, inode: int, size: int, changed_ns: int) -> str | None:
    try:
        return files.sha256(path)
    except OSError:
        return None
