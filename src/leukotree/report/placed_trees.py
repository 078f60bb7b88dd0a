"""The trees of a grid among permuted ones of the same shape: which arms are compared, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from leukotree import stats, tree_choice
from leukotree.data import trees
from leukotree.report import scores
from leukotree.report.summary import Arm, StudySummary, trained_tree
from leukotree.spec import TREE
from leukotree.stats import Judged, Place

MEAN, FLAT = "", "flat"
"""Names of the mean of the permuted trees, and of the flat arm, which no tree has."""
Answer = Literal["tree helps", "any tree helps", "tree hurts", "cannot say"]
Folds = Mapping[int, float]
"""Test fold -> macro F1 of the images, mean over seeds."""


@dataclass(frozen=True)
class Group:
    """Arms that differ in nothing but their trees, on the folds that all of them have."""

    variant: str
    values: Mapping[str, Any]
    """The other values of the grid."""
    named: Mapping[str, Folds]
    """Tree -> its folds, of the trees that are not permuted, and have the shape of the permuted ones."""
    permuted: Mapping[str, Folds]
    """Without a run in some of the folds a permuted tree is left out."""
    mean: Folds
    """The mean of the permuted trees."""
    flat: Folds | None
    """The flat arm with the same values."""
    expected: int
    """How many permuted trees the study has."""

    @property
    def name(self) -> str:
        others = [f"{key.rpartition('.')[2]}={value}" for key, value in self.values.items()]
        return " ".join([self.variant, *others])


@dataclass(frozen=True)
class Placed:
    """A tree of a group among the permuted ones."""

    group: Group
    tree: str
    against_flat: Judged | None
    permuted_against_flat: Judged | None
    against_permuted: Judged
    """Against the mean of the permuted trees."""
    place: Place

    @property
    def score(self) -> float:
        return mean(self.group.named[self.tree])

    @property
    def answer(self) -> Answer:
        """What can be concluded. `tree helps` needs a verdict against the mean of the permuted trees, and a
        score beyond their spread: against their mean alone, each tree that is above the average would be
        special."""
        verdict = self.against_permuted.verdict
        beyond = self.score > self.place.high or self.place.p <= stats.ALPHA
        if verdict == "better" and beyond and _is(self.against_flat, "better"):
            return "tree helps"
        if verdict == "worse" and self.score < self.place.low:
            return "tree hurts"
        return "any tree helps" if _is(self.permuted_against_flat, "better") else "cannot say"


def place(summary: StudySummary) -> list[Placed]:
    """Each tree that is not permuted among the permuted ones of its shape. All comparisons are one family."""
    groups = _groups(summary)
    pairs: dict[tuple[int, str, str], list[float]] = {}
    for number, group in enumerate(groups):
        arms: dict[str, Folds] = {MEAN: group.mean, **group.named}
        for name, folds in arms.items():
            if group.flat is not None:
                pairs[number, name, FLAT] = _differences(folds, group.flat)
            if name != MEAN:
                pairs[number, name, MEAN] = _differences(folds, group.mean)
    judged = stats.judged(list(pairs.values()), scores.ratio(summary), summary.rope)
    of_pair = dict(zip(pairs, judged, strict=True))
    return [
        Placed(
            group,
            tree,
            of_pair.get((number, tree, FLAT)),
            of_pair.get((number, MEAN, FLAT)),
            of_pair[number, tree, MEAN],
            stats.place(mean(folds), [mean(other) for other in group.permuted.values()]),
        )
        for number, group in enumerate(groups)
        for tree, folds in group.named.items()
    ]


def _differences(folds: Folds, other: Folds) -> list[float]:
    return [folds[fold] - other[fold] for fold in folds]


def _groups(summary: StudySummary) -> list[Group]:
    """The groups that have a permuted tree and another one of the same shape."""
    members: dict[tuple[str, tuple[tuple[str, str], ...]], list[Arm]] = {}
    for arm in summary.arms:
        if TREE in arm.values:
            others = tuple((key, repr(value)) for key, value in _others(arm).items())
            members.setdefault((arm.variant, others), []).append(arm)
    groups = [_group(summary, arms) for arms in members.values()]
    return [group for group in groups if group is not None]


def _group(summary: StudySummary, arms: Sequence[Arm]) -> Group | None:
    permuted = [arm for arm in arms if is_permuted(arm)]
    with_runs = [arm for arm in permuted if arm.runs]
    named = [
        arm
        for arm in arms
        if not is_permuted(arm) and arm.runs and with_runs and _shape(arm) == _shape(with_runs[0])
    ]
    if not named:
        return None
    flat = _flat(summary, named[0])
    needed = [*named, flat] if flat else named
    folds = {arm.name: _scores(arm) for arm in (*needed, *with_runs)}
    common = set.intersection(*(set(folds[arm.name]) for arm in needed))
    controls = [arm for arm in with_runs if common <= set(folds[arm.name])]
    if not controls or not common:
        return None
    return Group(
        variant=arms[0].variant,
        values=_others(arms[0]),
        named={tree_of(arm): _only(folds[arm.name], common) for arm in named},
        permuted={tree_of(arm): _only(folds[arm.name], common) for arm in controls},
        mean={
            fold: sum(folds[arm.name][fold] for arm in controls) / len(controls) for fold in sorted(common)
        },
        flat=_only(folds[flat.name], common) if flat else None,
        expected=len(permuted),
    )


def _scores(arm: Arm) -> Folds:
    """The scores of an arm."""
    return {fold: scores.macro_f1(runs) for fold, runs in scores.by_fold(arm.runs).items()}


def _flat(summary: StudySummary, arm: Arm) -> Arm | None:
    """The flat arm that has the same values as another arm. With a loss that has the tree in it, flat is on
    the tree of the data."""
    for flat in summary.arms:
        same = all(arm.values.get(key) == value for key, value in _others(flat).items())
        own = flat.values.get(TREE, tree_choice.DATA) == tree_choice.DATA
        if flat.variant == "flat" != arm.variant and flat.cell is not None and flat.runs and own and same:
            return flat
    return None


def _others(arm: Arm) -> dict[str, Any]:
    return {key: value for key, value in arm.values.items() if key != TREE}


def tree_of(arm: Arm) -> str:
    """The name of the tree of a grid's arm."""
    return tree_choice.name(arm.values[TREE])


def is_permuted(arm: Arm) -> bool:
    """Whether the tree of a grid's arm is a permuted one."""
    return tree_choice.seed(tree_choice.parse(arm.values[TREE])) is not None


def _shape(arm: Arm) -> str:
    return trees.shape(trained_tree(arm.runs[0]))


def _only(folds: Folds, common: set[int]) -> dict[int, float]:
    return {fold: folds[fold] for fold in sorted(common)}


def mean(folds: Folds) -> float:
    """The mean score of the folds."""
    return sum(folds.values()) / len(folds)


def _is(row: Judged | None, verdict: str) -> bool:
    return row is not None and row.verdict == verdict
