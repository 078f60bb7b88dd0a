"""The inputs of a run or a search (its data, label tree and pretrained weights), compared with today's, and
what its spec means today.

A finished run stays on the disk when its data set is packed again. Its numbers are then not numbers of
today's data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from leukotree import files, tree_choice, yamlfile
from leukotree.data import fingerprint, trees
from leukotree.errors import InputError, one_line
from leukotree.models import pretrained
from leukotree.records import runfolder, searchfolder, upgrade
from leukotree.spec import BackboneSpec, DataSpec, RunSpec
from leukotree.taxonomy import Taxonomy

if TYPE_CHECKING:
    from leukotree.data.dataset import Dataset

DATA = "dataset"
"""Key of env.json: the fingerprint of the data set."""
WEIGHTS = "weights"
"""Key of env.json: the sha256 of the file of pretrained weights. Older versions did not write it for those of
the hub."""
TREE = "tree"
"""Key of env.json: the sha256 of a tree that is not that of the data set."""
CONFIG = pretrained.CONFIG
"""Key of env.json: the sha256 of the `config.json` of a backbone that timm does not have by name. It decides
the normalisation. Older versions did not write it."""
HUB_FILES = (pretrained.SAFE, pretrained.PICKLED)
_AGAIN = "move the folder away to run it again"
_SHARDS = re.compile(r"^  shards:.*(?:\n    .*)*", re.MULTILINE)
_REPEAT = re.compile(r"^  repeat:.*", re.MULTILINE)
_TREE = re.compile(r"^tree:.*(?:\n  .*)*", re.MULTILINE)
_WEIGHTS = re.compile(r"^  weights:.*(?:\n    .*)*", re.MULTILINE)
_NAME = re.compile(r"^  name:.*(?:\n    .*)*", re.MULTILINE)


class Inputs(NamedTuple):
    """Paths of the data and of the pretrained weights of a run, and its label tree."""

    shards: str
    weights: str | None
    """Path of a file, or what names one that is not here; None without one, also for the weights of timm in
    the hub."""
    repeat: int = 0
    """The deal of the data to folds."""
    tree: str | None = None
    """The key `tree` of the spec; None for the tree of the data."""
    config: str | None = None
    """Path of the `config.json` of the backbone; None for a name of timm, and where it is not here."""

    @classmethod
    def of(cls, spec: RunSpec) -> Inputs:
        """The inputs that a spec names."""
        name, weights = spec.backbone.name, spec.backbone.weights
        return cls(spec.data.shards, _file(name, weights), spec.data.repeat, spec.tree, _config(name))

    @classmethod
    def read(cls, folder: Path) -> Inputs | None:
        """The inputs that the spec.yaml of a run folder names; None without one."""
        return cls.of_text(spec_text(folder))

    @classmethod
    def of_text(cls, text: str | None) -> Inputs | None:
        """The inputs that the text of a spec.yaml names. Only five of its lines are parsed, since `status`
        reads thousands of them."""
        if text is None:
            return None
        lines = (kind.search(text) for kind in (_SHARDS, _WEIGHTS, _REPEAT, _TREE, _NAME))
        shards, weights, repeat, tree, name = (_value(line[0]) if line else None for line in lines)
        if not shards:
            return None
        tree, name = None if tree is None else str(tree), str(name or "")
        return cls(str(shards), _file(name, weights), repeat or 0, tree, _config(name))

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


def spec_text(folder: Path) -> str | None:
    """The text of the spec.yaml of a run folder; None without one."""
    try:
        with open(f"{folder}/{runfolder.SPEC}", encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


class Today:
    """The data, weights and trees of today, each looked at once. A command that compares the thousands of
    runs of a study makes one; who looks again later makes another."""

    def __init__(self) -> None:
        self._packed: dict[tuple[str, int], fingerprint.Packed | None] = {}
        self._weights: dict[str | None, str | None] = {}
        self._trees: dict[tuple[Inputs, str], str] = {}

    def packed(self, inputs: Inputs) -> fingerprint.Packed | None:
        """As `fingerprint.packed`."""
        place = inputs.shards, inputs.repeat
        if place not in self._packed:
            self._packed[place] = fingerprint.packed(*place)
        return self._packed[place]

    def weights(self, inputs: Inputs) -> str | None:
        """sha256 of the file of weights; None without one."""
        return self._of_file(inputs.weights)

    def config(self, inputs: Inputs) -> str | None:
        """sha256 of the `config.json` of the backbone; None without one."""
        return self._of_file(inputs.config)

    def _of_file(self, path: str | None) -> str | None:
        if path not in self._weights:
            self._weights[path] = _digest(path)
        return self._weights[path]

    def weights_of_timm(self, environment: Mapping[str, Any]) -> str | None:
        """sha256 of the weights of timm that an env.json names, as the cache of the hub has them now; None
        where they are not here."""
        noted = environment.get(runfolder.BACKBONE) or {}
        if not noted.get("repository"):
            return None
        place = f"{noted['repository']}@{noted.get('revision') or ''}"
        if place not in self._weights:
            found = pretrained.fetched(
                pretrained.Origin(noted["repository"], noted.get("revision"), HUB_FILES)
            )
            self._weights[place] = _digest(str(found) if found else None)
        return self._weights[place]

    def tree(self, inputs: Inputs, own: str) -> str:
        """The tree that a run would have today, as JSON. `own`: that of the data. Raises InputError as
        `trees.resolve`."""
        if inputs.tree is None:
            return own
        if (inputs, own) not in self._trees:
            resolved = trees.resolve_nested(inputs.tree, own, inputs.shards)
            self._trees[inputs, own] = json.dumps(resolved.nested())
        return self._trees[inputs, own]


def changed(
    folder: Path,
    inputs: Inputs,
    *,
    partly: bool = False,
    now: Today | None = None,
    spec: str | None = None,
) -> Change | None:
    """The first of a run's meaning, data, tree and weights that differs from today's; None if all are the
    same, or not here.

    Args:
        partly: ignore what the folder does not record.
        now: what is known of today; None looks.
        spec: the text of its spec.yaml; None reads it.

    Raises InputError for a damaged file.
    """
    now = Today() if now is None else now
    path = folder / runfolder.SPEC
    if upgrade.outdated(path) if spec is None else upgrade.outdated_text(spec, path):
        return _OUTDATED
    today, weights, config = now.packed(inputs), now.weights(inputs), now.config(inputs)
    if today is None and weights is None and config is None:
        return None
    environment = runfolder.read_environment(folder)
    for what, there, where in ((DATA, today, inputs.shards), (WEIGHTS, weights, inputs.weights)):
        if there is not None and what not in environment and not partly:
            return Change(
                f"its env.json does not have its {what}, so it cannot be compared with {where}", _AGAIN
            )
    if (
        today is not None
        and DATA in environment
        and (change := _changed_data(folder, environment[DATA], inputs, today, now))
    ):
        return change
    if inputs.weights is None:
        weights = now.weights_of_timm(environment)
    if weights is not None and environment.get(WEIGHTS, weights) != weights:
        return Change(
            f"made from other weights than {inputs.weights or 'the cache of the hub'} has now",
            f"{_AGAIN}, or put the old weights back",
        )
    if config is not None and environment.get(CONFIG, config) != config:
        return Change(f"made with another {CONFIG} than {inputs.config} is now", f"{_AGAIN}, or put it back")
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


def _changed_data(
    folder: Path, recorded: Any, inputs: Inputs, today: fingerprint.Packed, now: Today
) -> Change | None:
    shards, path = inputs.shards, tree_choice.file(inputs.tree)
    fix = f"{_AGAIN}, or pack the old data again"
    if path and not Path(path).is_file():  # nothing to compare its tree with
        pass
    elif not _same_tree(folder, now.tree(inputs, today.tree)):
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


def fingerprints(spec: RunSpec, dataset: Dataset) -> dict[str, str]:
    """sha256 hex of the data, of the weights' file, of the backbone's `config.json`, and of a tree that is
    not that of the data. `dataset` is on the tree of the run. Raises InputError as `pretrained.sha256`."""
    file, config = pretrained.file(spec.backbone), pretrained.digest(spec.backbone.name)
    return (
        {DATA: dataset.fingerprint}
        | ({} if file is None else {WEIGHTS: pretrained.sha256(file)})
        | ({} if config is None else {CONFIG: config})
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
        with open(f"{folder}/{runfolder.TAXONOMY}", encoding="utf-8") as file:
            text = file.read()
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


@lru_cache(maxsize=256)  # the runs of a study have the same weights
def _file(name: str, weights: Any) -> str | None:
    """The path of the file of weights, as `Inputs.weights`."""
    if weights is None or (weights == "hub" and not name.startswith(("hf-hub:", "local-dir:"))):
        return None
    try:
        return str(pretrained.file(BackboneSpec(name=name, weights=weights)))
    except InputError:  # not here, or not any more
        return str(weights) if weights != "hub" else name


@lru_cache(maxsize=256)
def _config(name: str) -> str | None:
    """The path of the `config.json`, as `Inputs.config`."""
    try:
        parsed = pretrained.parse(name)
        return None if parsed.kind == "timm" else str(pretrained.folder(parsed) / CONFIG)
    except InputError:
        return None


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
