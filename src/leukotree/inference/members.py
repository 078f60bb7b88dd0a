"""The runs that predict together, with what a study knows about each: temperatures and prediction sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leukotree.errors import InputError
from leukotree.evaluation import costs
from leukotree.evaluation.decide import Rule
from leukotree.inference import loaded
from leukotree.inference.loaded import Prepared
from leukotree.records import declared, runfolder
from leukotree.report import coverage, scores
from leukotree.report.coverage import Limits
from leukotree.report.sections import calibration
from leukotree.report.summary import Arm, StudySummary
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

UNMEASURED = (
    "trained on all patients of its study, so nothing was measured for this model; what is known of its "
    "quality are the cross-validated scores in the report of its study"
)
"""What every output of a run on all folds says."""


@dataclass(frozen=True)
class Member:
    """A finished run."""

    folder: Path
    spec: RunSpec
    taxonomy: Taxonomy
    """The tree that it was trained on."""
    temperatures: Mapping[str, float] | None = None
    """Decision of `scaled_on` -> temperature, from the inner folds beside its test fold. None without."""
    scaled_on: Taxonomy | None = None
    """The tree of the temperatures, which is that of the data set. None without."""
    limits: Limits | None = None
    """The limits of prediction sets, from the same inner folds. None without."""


@dataclass(frozen=True)
class Members:
    """Runs whose leaf probabilities are averaged."""

    name: str
    """The study and the arm, or the run."""
    runs: tuple[Member, ...]
    rule: Rule
    """The decision rule of the study."""
    taxonomy: Taxonomy
    """The tree of all runs, in whose order leaves and edges are counted; the tree of the data set where their
    trees differ. It has the study's costs."""
    notes: tuple[str, ...] = field(default=())

    @property
    def measured(self) -> bool:
        """Whether the runs were scored on patients that they had not seen. A run on all folds never was."""
        return not any(run.spec.data.all_folds for run in self.runs)

    @property
    def prepared(self) -> Prepared:
        """How the images of the runs were prepared. Raises InputError where they were prepared in different
        ways, or it is not known."""
        ways = {loaded.preparation(run.folder, run.spec): run.folder for run in self.runs}
        if len(ways) > 1:
            (one, first), (other, second), *_ = ways.items()
            boxes = "" if one.crop == other.crop else ", and their boxes were cut in another way"
            raise InputError(
                f"{second}: its images have {other.size} pixels and quality {other.quality}, those of "
                f"{first} {one.size} and {one.quality}{boxes}; name one run"
            )
        return next(iter(ways))


def of_run(folder: Path) -> Members:
    """A run by itself: what it learned, without the temperatures of its study. Its rule is what its study has
    declared. Raises InputError for a folder without a finished run with weights."""
    folder = Path(folder)
    spec = runfolder.read_spec(loaded.finished(folder))
    taxonomy = loaded.tree(folder)
    kept = declared.kept(folder.parent)
    where = str(folder.parent / declared.FILE)
    rule = declared.rule(kept.get("decision"), [spec.variant], where)
    taxonomy = costs.apply(kept.get("costs"), taxonomy, f"{where}: costs")
    notes = [] if kept else [f"{folder.parent} declares no decision rule: {rule} decides"]
    notes += [UNMEASURED] if spec.data.all_folds else []
    return Members(folder.name, (Member(folder, spec, taxonomy),), rule, taxonomy, tuple(notes))


def arm_of(summary: StudySummary, name: str | None) -> Arm:
    """The arm of this name, or the only one with finished runs. Raises InputError that names them."""
    done = {arm.name: arm for arm in summary.arms if arm.runs}
    if not done:
        raise InputError(f"study {summary.name}: no finished run; train its folds first")
    if name is None and len(done) == 1:
        return next(iter(done.values()))
    if name not in done:
        what = "has several arms" if name is None else f"no finished run of {name!r}"
        raise InputError(f"study {summary.name}: {what}; give --variant {' or '.join(map(repr, done))}")
    return done[name]


def of_arm(summary: StudySummary, arm: Arm) -> Members:
    """The runs of an arm: all folds and seeds. Temperatures and limits are those of the report."""
    _, temperatures = calibration.judged(summary, arm)
    limits = coverage.limits(summary, arm)
    runs = []
    for run in arm.runs:
        scaling = temperatures.get(run.test_fold)
        own = run.own.taxonomy if run.own else run.taxonomy
        runs.append(
            Member(
                run.folder,
                runfolder.read_spec(run.folder),
                own,
                scaling,
                None if scaling is None else run.taxonomy,
                limits.get(run.test_fold),
            )
        )
    return Members(
        f"{summary.name}, {arm.name}",
        tuple(runs),
        summary.decision,
        _common(runs, arm),
        tuple(_notes(summary, arm)),
    )


def _common(runs: Sequence[Member], arm: Arm) -> Taxonomy:
    own = runs[0].taxonomy
    of_data = arm.runs[0].taxonomy
    if own.ordered_as(of_data) or any(not own.ordered_as(run.taxonomy) for run in runs):
        return of_data
    return own


def _notes(summary: StudySummary, arm: Arm) -> list[str]:
    notes = []
    missing = [run for run in summary.missing if run.arm == arm.name]
    if missing:
        there = len(arm.runs)
        notes.append(f"{there} of {there + len(missing)} runs of {arm.name} are finished; only these predict")
    if summary.clean_fold is not None and len(scores.by_fold(arm.runs)) > 1:
        notes.append("one search chose the values of all folds, so it has seen most of the images")
    return notes
