"""What a tracker is told about a run: names, steps and values from its metrics.jsonl, its spec and its end.

Nothing in it names a patient, an image, a user, a host or a path. Data, weights and a tree from a file appear
as their fingerprints.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from leukotree import tree_choice
from leukotree.config import flatten
from leukotree.models import pretrained
from leukotree.records import attempts, compared, runfolder, searchfolder

SCORES = ("accuracy", "macro_f1")
"""Scores of a finished run, in its status."""
OF_EPOCH = (
    "macro_f1",
    "seconds",
    "images_per_s",
    "step_s",
    "stall_s",
    "memory_gb",
    "mfu",
    "gpu_hours",
    "core_hours",
)
"""Columns of an epoch's row."""
FINGERPRINT = 12
"""Characters of a fingerprint that are shown."""


@dataclass(frozen=True)
class Point:
    """One value of one curve."""

    name: str
    step: int
    value: float
    at: float
    """Unix time: that of the run's first start, plus the seconds that it has trained."""


@dataclass(frozen=True)
class Epoch:
    """What metrics.jsonl has about one epoch that has ended."""

    of_steps: list[Point]
    """Losses and learning rates at each optimiser step."""
    of_epoch: list[Point]
    """Values of the epoch, at its number from 1, with the mean loss of each stage."""


@dataclass(frozen=True)
class About:
    """What is known of a run when it begins."""

    study: str
    name: str
    """Its name in the study: that of its folder, for a trial with the folders of its search."""
    identity: str
    """The same in each attempt of this run folder, and in no other folder."""
    begun: float
    """Unix time of its first start."""
    parameters: dict[str, str | int | float | bool]
    """Dotted key -> value of the spec."""

    @classmethod
    def read(cls, folder: Path) -> About:
        """From the files of a run folder that has begun."""
        study, name = searchfolder.study_and_name(folder)
        starts = attempts.read(folder)
        first = starts[0] if starts else {}
        begun = first.get("started")
        text = json.dumps([study, name, begun, first.get("host"), first.get("pid")])
        return cls(
            study,
            name,
            hashlib.sha256(text.encode()).hexdigest()[:24],
            float(begun) if isinstance(begun, int | float) else time.time(),
            parameters(folder),
        )


def parameters(folder: Path) -> dict[str, str | int | float | bool]:
    """The spec of a run as dotted key -> value, without keys that are null. A path is replaced by the
    fingerprint of what it names."""
    spec, environment = runfolder.read_spec(folder), runfolder.read_environment(folder)
    values = flatten(spec.model_dump(mode="json"))
    values["data.shards"] = _short(environment.get(compared.DATA))
    if pretrained.is_path(spec.backbone.weights):
        values["backbone.weights"] = _short(environment.get(compared.WEIGHTS))
    if pretrained.parse(spec.backbone.name).kind == "local-dir":
        values["backbone.name"] = f"local-dir, {_short(environment.get(compared.WEIGHTS))}"
    if tree_choice.file(spec.tree) is not None:
        values["tree"] = _short(environment.get(compared.TREE))
    return {
        key: value if isinstance(value, bool | int | float) else str(value)
        for key, value in values.items()
        if value is not None
    }


def _short(fingerprint: Any) -> str:
    return f"sha256 {str(fingerprint)[:FINGERPRINT]}" if fingerprint else "unknown"


class Epochs:
    """The epochs in a run's metrics.jsonl, each of them once."""

    def __init__(self, folder: Path, begun: float) -> None:
        self._folder, self._at, self._offset = folder, begun, 0
        self._steps: list[Mapping[str, Any]] = []
        self.count = 0
        """Epochs that were given so far."""

    def new(self) -> Iterator[Epoch]:
        """Those that have ended since the last call."""
        rows, self._offset = runfolder.read_new_metrics(self._folder, self._offset)
        for row in rows:
            if row.get("kind") != "epoch":
                self._steps.append(row)
                continue
            seconds = row.get("seconds")
            begin, self._at = self._at, self._at + (float(seconds) if _finite(seconds) else 0.0)
            steps, self._steps = self._steps, []
            self.count += 1
            yield Epoch(_of_steps(steps, begin, self._at), _of_epoch(row, steps, self._at))


def _of_steps(rows: list[Mapping[str, Any]], begin: float, end: float) -> list[Point]:
    points = []
    for number, row in enumerate(rows, 1):
        at = begin + (end - begin) * number / len(rows)
        values = {f"loss/{row.get('stage')}": row.get("loss"), f"lr/{row.get('stage')}": row.get("lr")}
        levels = row.get("levels") or {}
        values |= {f"loss/{row.get('stage')}/level {level}": part for level, part in levels.items()}
        points += [
            Point(name, int(row.get("step", 0)), float(value), at)
            for name, value in values.items()
            if _finite(value)
        ]
    return points


def _of_epoch(row: Mapping[str, Any], steps: Iterable[Mapping[str, Any]], at: float) -> list[Point]:
    number = int(row["epoch"]) + 1
    losses: dict[str, list[float]] = {}
    for step in steps:
        if _finite(step.get("loss")):
            losses.setdefault(f"epoch/loss/{step.get('stage')}", []).append(float(step["loss"]))
    values = {name: statistics.fmean(parts) for name, parts in losses.items()}
    values |= {f"epoch/{name}": row[name] for name in OF_EPOCH if _finite(row.get(name))}
    return [Point(name, number, float(value), at) for name, value in values.items()]


def scores(folder: Path) -> dict[str, float]:
    """The scores of a run that is done; {} for another."""
    status = runfolder.read_status(folder)
    if status.get("state") != "done":
        return {}
    return {name: float(status[name]) for name in SCORES if _finite(status.get(name))}


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
