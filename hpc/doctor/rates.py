"""What trainings of a kind have cost on this machine or cluster: the finished runs of a study, or of others.

The work of a training is its FLOPs; for heads on stored features, and where FLOPs cannot be counted, its
steps.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.doctor import upfront
from hpc.search import rungs, search_states
from hpc.search.record import Record
from hpc.studies.study import Study
from leukotree.errors import InputError, RunFailed
from leukotree.records import attempts, compute, runfolder, searchfolder
from leukotree.records.compute import Compute
from leukotree.spec import RunSpec

Kind = tuple[str, str, bool]
"""Backbone, what trains, whether on stored features: what decides the seconds for a unit of work."""

RUNS_EACH = 6
"""Finished runs of a variant that are looked at, in each study."""
STUDIES = 12
"""Other studies that are looked at, the newest first."""
SEARCHES = 6
"""Searches of another study that are looked at."""
UNREADABLE = (InputError, RunFailed, OSError, ValueError, KeyError, TypeError)
"""What a damaged record raises. What it could tell is then unknown; this is no reason to stop."""


@dataclass(frozen=True)
class Sample:
    """A finished training, or a trial of a search."""

    variant: str
    kind: Kind
    work: float
    seconds: float
    """Times its devices: GPUs, or processes without GPUs."""
    here: bool
    """Whether it is of the study itself."""


@dataclass(frozen=True)
class Rate:
    """Device-seconds for a unit of work."""

    seconds: float
    error: float
    """Relative standard error, with what a transfer from other trainings adds."""
    spread: float
    """Relative standard deviation between trainings."""
    basis: str
    """Where it was measured."""


def kind(spec: RunSpec) -> Kind:
    return spec.backbone.name, spec.backbone.train, spec.on_features


def work(spec: RunSpec, of: Compute) -> float:
    """The work of one training."""
    by_steps = spec.on_features or of.training_flops is None
    return float((of.steps if by_steps else of.training_flops) or 1)


def rate(samples: Sequence[Sample], variant: str, of_kind: Kind) -> Rate | None:
    """The rate of a variant, from the samples that are most like it; None where there are none of its
    kind."""
    alike = [sample for sample in samples if sample.kind == of_kind]
    for doubt, where, chosen in (
        (0.15, "this study", [one for one in alike if one.here and one.variant == variant]),
        (0.3, "other studies", [one for one in alike if one.variant == variant]),
        (0.5, "other variants", alike),
    ):
        if chosen:
            ratios = [one.seconds / one.work for one in chosen]
            mean = sum(one.seconds for one in chosen) / sum(one.work for one in chosen)
            spread = statistics.stdev(ratios) / statistics.fmean(ratios) if len(ratios) > 1 else 0.4
            error = math.hypot(doubt, spread / math.sqrt(len(ratios)))
            return Rate(mean, error, spread, f"{len(chosen)} trainings of {where}")
    return None


def works(study: Study, variants: Iterable[str]) -> dict[str, float]:
    """Variant -> work of one outer run with the values of the base."""
    fold, seed = study.base.data.test_fold, study.seeds[0]
    specs = [study.spec(variant, {}, fold, seed) for variant in variants]
    counted = upfront.kinds(specs)
    return {spec.variant: work(spec, cost) for spec, _, cost in counted}


def of_study(study: Study) -> list[Sample]:
    """The trials and finished outer runs of a study."""
    records: list[Record] = []
    for search_id in study.search_ids if study.search.trials else ():
        with contextlib.suppress(*UNREADABLE):
            records.append(Record(study, search_id))
    trials = _trials(records, works(study, study.variants), here=True) if records else []
    return [*trials, *_runs(study.root, here=True)]


def of_others(root: Path, kinds: Iterable[Kind]) -> list[Sample]:
    """Those of other studies in the folder of all runs whose trainings are of one of these kinds. `root`: the
    study's folder."""
    wanted, found = set(kinds), []
    with contextlib.suppress(OSError):
        others = [folder for folder in root.parent.iterdir() if folder.is_dir() and folder.name != root.name]
        newest = sorted(others, key=lambda folder: folder.stat().st_mtime, reverse=True)
        for folder in newest[:STUDIES]:
            found += [one for one in _runs(folder, here=False) if one.kind in wanted]
            found += _of_searches(folder, wanted)
    return found


def _of_searches(folder: Path, wanted: set[Kind]) -> list[Sample]:
    """Trials of another study."""
    samples = []
    for searches in searchfolder.find(folder, one_study=True).values():
        for search in searches[:SEARCHES]:
            with contextlib.suppress(*UNREADABLE):
                record = search_states.record_in(search)
                if isinstance(record, Record) and kind(record.study.base) in wanted:
                    samples += _trials([record], works(record.study, record.study.variants), here=False)
    return samples


def _trials(records: Iterable[Record], whole_runs: Mapping[str, float], here: bool) -> list[Sample]:
    """The trials of searches that have ended. `whole_runs`: variant -> work of an outer run."""
    samples = []
    for record in records:
        study, variant = record.study, record.search_id.variant
        # The inner folds of a trial together train on (inner - 1) times the images of an outer run.
        whole = whole_runs[variant] * (study.folds.inner - 1) / rungs.most(study, variant)
        samples += [
            Sample(variant, kind(study.base), whole * len(trial.scores), trial.seconds, here)
            for trial in record.trials
            if trial.state in ("completed", "stopped") and trial.seconds > 0 and trial.scores
        ]
    return samples


def _runs(folder: Path, here: bool) -> list[Sample]:
    """The newest finished outer runs of each variant in a study's folder."""
    seen: dict[str, int] = {}
    samples = []
    for path in _newest(folder):
        variant = path.name.rpartition("-")[0]
        if seen.get(variant, 0) >= RUNS_EACH:
            continue
        with contextlib.suppress(*UNREADABLE):
            if sample := _run(path, here):
                seen[variant] = seen.get(variant, 0) + 1
                samples.append(sample)
    return samples


def _newest(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        runs = [path for path in folder.iterdir() if runfolder.is_run(path.name)]
        yield from sorted(runs, key=lambda path: path.stat().st_mtime, reverse=True)[: 20 * RUNS_EACH]


def _run(path: Path, here: bool) -> Sample | None:
    """A run that was trained in one go. Others have waited between their attempts."""
    status, starts = runfolder.read_status(path), attempts.read(path)
    counted = compute.read(status)
    if status.get("state") != "done" or counted is None or len(starts) != 1:
        return None
    spec = runfolder.read_spec(path)
    seconds = (status["heartbeat"] - starts[0]["started"]) * int(starts[0].get("ranks") or 1)
    return Sample(spec.variant, kind(spec), work(spec, counted), seconds, here) if seconds > 0 else None
