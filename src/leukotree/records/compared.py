"""The inputs of a run or a search (its data, label tree and pretrained weights), compared with today's, and
what its spec means today.

A finished run stays on the disk when its data set is packed again. Its numbers are then not numbers of
today's data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from leukotree import files, tree_choice, yamlfile
from leukotree.data import fingerprint, trees
from leukotree.errors import InputError, one_line
from leukotree.records import runfolder, searchfolder
from leukotree.spec import DataSpec, RunSpec
from leukotree.taxonomy import Taxonomy

if TYPE_CHECKING:
    from leukotree.data.dataset import Dataset

DATA = "dataset"
"""Key of env.json: the fingerprint of the data set."""
WEIGHTS = "weights"
"""Key of env.json: the sha256 of the file of pretrained weights."""
TREE = "tree"
"""Key of env.json: the sha256 of a tree that is not that of the data set."""
_AGAIN = "move the folder away to run it again"
_SHARDS = re.compile(r"^  shards:.*(?:\n    .*)*", re.MULTILINE)
_REPEAT = re.compile(r"^  repeat:.*", re.MULTILINE)
_TREE = re.compile(r"^tree:.*(?:\n  .*)*", re.MULTILINE)
_WEIGHTS = re.compile(r"^  weights:.*(?:\n    .*)*", re.MULTILINE)


class Inputs(NamedTuple):
    """Paths of the data and of the pretrained weights of a run, and its label tree."""

    shards: str
    weights: str | None
    """Path of a file; None without one, also for the weights of timm."""
    repeat: int = 0
    """The deal of the data to folds."""
    tree: str | None = None
    """The key `tree` of the spec; None for the tree of the data."""

    @classmethod
    def of(cls, spec: RunSpec) -> Inputs:
        """The inputs that a spec names."""
        return cls(spec.data.shards, _file(spec.backbone.weights), spec.data.repeat, spec.tree)

    @classmethod
    def read(cls, folder: Path) -> Inputs | None:
        """The inputs that the spec.yaml of a run folder names; None without one. Only four of its lines are
        parsed, since `status` reads thousands of them."""
        try:
            text = (folder / runfolder.SPEC).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        lines = _SHARDS.search(text), _WEIGHTS.search(text), _REPEAT.search(text), _TREE.search(text)
        shards, weights, repeat, tree = (_value(line[0]) if line else None for line in lines)
        if not shards:
            return None
        return cls(str(shards), _file(weights), repeat or 0, None if tree is None else str(tree))

    def absent(self) -> list[str]:
        """The inputs that are not here, so that nothing can be compared with them: ["the data (data/my is not
        here)"]."""
        data = ["data", self.shards] if fingerprint.packed(self.shards) is None else None
        weights = [WEIGHTS, self.weights] if self.weights and not Path(self.weights).is_file() else None
        path = tree_choice.file(self.tree)
        tree = [TREE, path] if path and not Path(path).is_file() else None
        return [f"the {what} ({where} is not here)" for what, where in filter(None, (data, weights, tree))]


class Change(NamedTuple):
    """Why the numbers of a folder do not belong to today's inputs."""

    reason: str
    """Follows the folder in a message: "made from other data than data/my has now"."""
    fix: str
    of_data: bool = True
    """Whether its test images may be others."""

    def __str__(self) -> str:
        return f"{self.reason}; {self.fix}"


_OUTDATED = Change(
    "trained by an earlier version, in which the loss of this name had other weights", _AGAIN, of_data=False
)


def changed(folder: Path, inputs: Inputs, *, partly: bool = False) -> Change | None:
    """The first of a run's meaning, data, tree and weights that differs from today's; None if all are the
    same, or not here. `partly`: ignore what the folder does not record. Raises InputError for a damaged
    file."""
    if runfolder.outdated(folder):
        return _OUTDATED
    today, weights = fingerprint.packed(inputs.shards, inputs.repeat), _digest(inputs.weights)
    if today is None and weights is None:
        return None
    environment = runfolder.read_environment(folder)
    for what, now, where in ((DATA, today, inputs.shards), (WEIGHTS, weights, inputs.weights)):
        if now is not None and what not in environment and not partly:
            return Change(
                f"its env.json does not have its {what}, so it cannot be compared with {where}", _AGAIN
            )
    if (
        today is not None
        and DATA in environment
        and (change := _changed_data(folder, environment[DATA], inputs, today))
    ):
        return change
    if weights is not None and environment.get(WEIGHTS, weights) != weights:
        return Change(
            f"made from other weights than {inputs.weights} has now",
            f"{_AGAIN}, or put the old weights back",
        )
    return None


def changed_search(folder: Path, shards: str | None = None) -> Change | None:
    """As `changed`, for the folder of a search: by its search.yaml, the runs of the chosen trial (before the
    choice, of the first trial) and the re-runs. `shards`: None for those of search.yaml."""
    settings = _mapping(folder / searchfolder.SETTINGS)
    shards = shards or str(
        ((settings.get("base") or {}).get("data") or {}).get("shards") or DataSpec().shards
    )
    today = fingerprint.packed(shards, settings.get(searchfolder.REPEAT, 0))
    if today is not None and settings.get(searchfolder.DATASET, today.fingerprint) != today.fingerprint:
        return Change(
            f"searched on other data than {shards} has now", f"{_AGAIN}, or pack the old data again"
        )
    trial = _mapping(folder / searchfolder.BEST).get("trial", 0)
    for run in [*searchfolder.runs_of_trial(folder, trial), *searchfolder.rerun_runs(folder)]:
        inputs = Inputs.read(run)
        if inputs and (change := changed(run, inputs._replace(shards=shards), partly=True)):
            return Change(f"its run {run.relative_to(folder)} was {change.reason}", change.fix)
    # Where a search compared losses, each of its trials counts.
    if {"loss.kind", "loss.weighting"} & set((settings.get("search") or {}).get("space") or {}):
        for run in filter(runfolder.outdated, searchfolder.begun_runs(folder)):
            return Change(f"its run {run.relative_to(folder)} was {_OUTDATED.reason}", _AGAIN)
    return None


def refuse(changes: Sequence[tuple[Path, Change]], shards: str) -> None:
    """Raises InputError if there are changes. It names the first run folder, its change, and the number of
    others."""
    if not changes:
        return
    from leukotree.records import tested  # loads pandas

    folder, change = changes[0]
    images = tested.since(folder, shards) if change.of_data else ""
    more = f" (and {len(changes) - 1} more in {folder.parent})" if len(changes) > 1 else ""
    raise InputError(f"{folder}{more}: {change.reason}{f' ({images})' if images else ''}; {change.fix}")


def _changed_data(folder: Path, recorded: Any, inputs: Inputs, today: fingerprint.Packed) -> Change | None:
    shards, path = inputs.shards, tree_choice.file(inputs.tree)
    fix = f"{_AGAIN}, or pack the old data again"
    if path and not Path(path).is_file():  # nothing to compare its tree with
        pass
    elif not _same_tree(folder, _tree_today(inputs, today)):
        if path and recorded == today.fingerprint:
            return Change(
                f"made on another label tree than {path} has now", f"{_AGAIN}, or put the old tree back"
            )
        if recorded != today.fingerprint:
            return Change(f"made on another label tree, and from other data, than {shards} has now", fix)
        tree = f"the label tree of {shards}" if inputs.tree is None else f"the tree {inputs.tree} of {shards}"
        return Change(f"its taxonomy.json is not {tree}, although the data are the same", _AGAIN)
    if recorded != today.fingerprint:
        return Change(f"made from other data than {shards} has now", fix)
    return None


def _tree_today(inputs: Inputs, today: fingerprint.Packed) -> str:
    """The tree that a run would have today, as JSON. Raises InputError as `trees.resolve`."""
    if inputs.tree is None:
        return today.tree
    return json.dumps(trees.resolve_nested(inputs.tree, today.tree, inputs.shards).nested())


def fingerprints(spec: RunSpec, dataset: Dataset) -> dict[str, str]:
    """sha256 hex of the data, of the weights' file, and of a tree that is not that of the data. `dataset` is
    on the tree of the run."""
    weights = spec.backbone.weights
    return (
        {DATA: dataset.fingerprint}
        | ({} if weights in (None, "hub") else {WEIGHTS: files.sha256(Path(str(weights)))})
        | ({} if spec.tree is None else {TREE: tree_digest(dataset.taxonomy)})
    )


def check_folder(spec: RunSpec, root: Path, dataset: Dataset) -> None:
    """Raises InputError if the run's folder was made with other fields, data, tree or weights. Writes
    nothing. `dataset` is on the tree of the run."""
    runfolder.RunFolder(root, spec).check(fingerprints(spec, dataset))


def tree_digest(taxonomy: Taxonomy) -> str:
    """sha256 hex of a tree and the order of its nodes. Comments and the layout of a file do not count."""
    return hashlib.sha256(json.dumps(taxonomy.nested()).encode()).hexdigest()


def _same_tree(folder: Path, today: str) -> bool:
    """Whether a run's tree is that of `today`, in the same order. True if the run has no file of it."""
    try:
        text = (folder / runfolder.TAXONOMY).read_text(encoding="utf-8")
        return text == today or json.dumps(json.loads(text)) == today
    except FileNotFoundError:
        return True
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder / runfolder.TAXONOMY}: cannot be read as JSON: {one_line(error)[:200]}; {_AGAIN}"
        ) from error


def _mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file of a search; {} without one."""
    tree = yamlfile.load(path) if path.exists() else {}
    return tree if isinstance(tree, dict) else {}


@lru_cache(maxsize=256)  # the runs of a study have the same lines
def _value(line: str) -> Any:
    (value,) = yamlfile.parse(line, runfolder.SPEC).values()
    return value


def _file(weights: Any) -> str | None:
    return None if weights in (None, "hub") else str(weights)


def _digest(path: str | None) -> str | None:
    """sha256 of a file; None where there is none."""
    try:
        state = files.state(Path(path).stat()) if path else None
    except OSError:
        return None
    return _sha256(str(path), state) if state else None


@lru_cache(maxsize=64)  # the runs of a study have the same file
def _sha256(path: str, state: tuple[int, ...]) -> str | None:
    try:
        return files.sha256(path)
    except OSError:
        return None
