"""Scores of an arm on another data set, beside its scores on its own test folds.

The runs of the arm answer each image of the other data set by themselves, and their answers are averaged. So
it is the score of one such model, as on the own folds, and not of all of them together.

The other data set may lack leaves. So the own test folds are also scored on their images of the leaves that
both have. The difference is between these two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from leukotree import stats
from leukotree.evaluation import clinical, decide, metrics
from leukotree.evaluation.clinical import Target
from leukotree.report import scores
from leukotree.report.external import Outside
from leukotree.report.sections import calibration
from leukotree.report.sections.calibration import Temperatures
from leukotree.report.summary import Arm, Run
from leukotree.stats import CalibrationError, Score, clusters
from leukotree.stats.sums import Sums
from leukotree.taxonomy import Taxonomy

ALL = "all"
"""The images of all sources."""
MOST_SOURCES = 8
"""Largest number of sources that are scored by themselves."""
ACCURACY, MACRO_F1, GAP = "accuracy", "macro F1", "confidence minus accuracy"
WHOLE, OWN, OUTSIDE = "whole", "own", "outside"
"""The sides: all images of the own test folds, those of the leaves that both have, and the other data set."""


class Row(NamedTuple):
    """One score on each side."""

    name: str
    whole: Score
    own: Score
    outside: Score
    difference: Score
    """Outside minus own."""


class Compared(NamedTuple):
    """The scores of an arm on the images of one source, or of all."""

    source: str
    images: int
    patients: int
    """Known patients outside."""
    by_image: bool
    """Whether most images outside have no patient. Intervals outside then take each for a patient."""
    leaves: list[str]
    """The leaves that both have."""
    rows: list[Row]
    raw: dict[str, CalibrationError]
    """Side -> the calibration error of the most probable leaf."""
    scaled: dict[str, CalibrationError]
    """The same after temperature scaling, of the runs that have temperatures. Empty without."""


def compared(arm: Arm, of: Outside, temperatures: Temperatures) -> list[Compared]:
    """The scores on all images, then those on each source where there are several. `temperatures`: of the
    arm, see `calibration.judged`."""
    counts = of.images["source"].value_counts()
    groups: list[tuple[str, np.ndarray]] = [(ALL, np.ones(len(of.true), dtype=bool))]
    if len(counts) > 1:
        largest = sorted(map(str, counts.index), key=lambda name: (-counts[name], name))[:MOST_SOURCES]
        groups += [(name, (of.images["source"] == name).to_numpy()) for name in largest]
    return [_compared(arm, of, temperatures, *group) for group in groups]


def _compared(arm: Arm, of: Outside, temperatures: Temperatures, source: str, inside: np.ndarray) -> Compared:
    tree = arm.runs[0].taxonomy
    shared = np.isin(np.arange(len(tree.leaves)), of.true[inside])
    sides = {
        WHOLE: _own(arm.runs, tree, np.ones(len(shared), dtype=bool)),
        OWN: _own(arm.runs, tree, shared),
        OUTSIDE: _outside(of, tree, inside),
    }
    patient = of.images["patient"][inside]
    own = [(run, run.logp) for run in arm.runs]
    out = list(zip(of.runs, of.logp, strict=True))
    return Compared(
        source,
        int(inside.sum()),
        int(patient[patient != ""].nunique()),
        bool((patient == "").mean() > 0.5),
        [leaf for leaf, here in zip(tree.leaves, shared, strict=True) if here],
        _rows(sides, tree, shared),
        _errors(own, out, of, shared, inside),
        _errors(_scaled(own, temperatures), _scaled(out, temperatures), of, shared, inside),
    )


class _Side(NamedTuple):
    """Images by patient: P clusters."""

    counts: np.ndarray
    """(P, L, L) means over the answers to an image."""
    gap: np.ndarray
    """(P, 2) sums over images: P of the most probable leaf minus 1 where it is the true one, and 1."""


def _own(runs: Sequence[Run], tree: Taxonomy, leaves: np.ndarray) -> _Side:
    tested = scores.answered(runs, tree.leaves)
    rows = leaves[tested.true]
    names, cluster = clusters.clusters_of(tested.images["patient"].tolist())
    counts = tested.answers.tables(cluster, len(names), tested.true, len(tree.leaves), rows)
    image, weight = tested.answers.image, tested.answers.weight
    gap = np.concatenate([_gap(run.true, run.logp, tree) for run in runs])
    used, sums = rows[image], np.zeros((len(names), 2))
    np.add.at(sums, cluster[image[used]], np.stack([gap * weight, weight], axis=1)[used])
    there = counts.any(axis=(1, 2))
    return _Side(counts[there], sums[there])


def _outside(of: Outside, tree: Taxonomy, inside: np.ndarray) -> _Side:
    patient, true = of.images["patient"][inside].tolist(), of.true[inside]
    counted = stats.patient_counts(patient, true, of.predicted[:, inside], len(tree.leaves))
    gap = np.mean([_gap(of.true, logp, tree) for logp in of.logp], axis=0)[inside]
    return _Side(counted.counts, stats.patient_sums(patient, np.stack([gap, np.ones(len(gap))], axis=1)))


def _gap(true: np.ndarray, logp: np.ndarray, tree: Taxonomy) -> np.ndarray:
    leaf_logp = decide.leaf_logp(logp, tree)
    return np.asarray(np.exp(leaf_logp.max(axis=1)) - (leaf_logp.argmax(axis=1) == true))


class _Asked(NamedTuple):
    """A score of a side."""

    name: str
    of: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """From (..., L, L) counts and (..., 2) gaps to (...) scores; NaN where it is not defined."""
    about: np.ndarray
    """(L,) bool: the true leaves whose images count."""


def _asked(tree: Taxonomy, leaves: np.ndarray) -> dict[str, _Asked]:
    """Name -> score of images of some leaves: (L,) bool."""
    asked = [_Asked(ACCURACY, lambda counts, gap: stats.accuracy(counts), leaves)]
    if leaves.sum() > 1:  # with one leaf nothing could be called it in error
        asked.append(
            _Asked(MACRO_F1, lambda counts, gap: stats.f1(counts)[..., leaves].mean(axis=-1), leaves)
        )
    asked.append(_Asked(GAP, lambda counts, gap: _quotient(gap[..., 0], gap[..., 1]), leaves))
    targets = clinical.targets(tree)
    for which in ("sensitivity", "specificity"):
        for target in targets:
            about = (target.leaves if which == "sensitivity" else ~target.leaves) & leaves
            if about.any():
                asked.append(_Asked(f"{which} of {target.name}", _rate(target, which), about))
    return {score.name: score for score in asked}


def _rate(target: Target, which: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def rate(counts: np.ndarray, gap: np.ndarray) -> np.ndarray:
        return np.asarray(getattr(clinical.rates(clinical.counts(counts, target)), which))

    return rate


def _quotient(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.asarray(part / np.where(whole > 0, whole, np.nan))


def _rows(sides: Mapping[str, _Side], tree: Taxonomy, shared: np.ndarray) -> list[Row]:
    """The scores of each side, and their differences. The patients of both sides are resampled together, each
    within its side."""
    asked = _asked(tree, shared)
    of_whole = _asked(tree, np.ones(len(shared), dtype=bool))
    whole = _scores({WHOLE: sides[WHOLE]}, [of_whole[name] for name in asked])
    both = _scores({name: sides[name] for name in (OWN, OUTSIDE)}, list(asked.values()))
    return [Row(name, *first, *three) for name, first, three in zip(asked, whole, both, strict=True)]


def _scores(sides: Mapping[str, _Side], asked: Sequence[_Asked]) -> list[list[Score]]:
    """For each score: that of each side, then of the second side minus the first where there are two. Each
    has an interval if it is about FLOOR or more patients of the side."""
    of_sides = list(sides.values())
    parts, strata = _joined(of_sides)
    alone = len(of_sides) > 1 and min(len(side.counts) for side in of_sides) < 2
    leaves = of_sides[0].counts.shape[-1]

    def statistic(sums: Sums) -> np.ndarray:
        columns = []
        for score in asked:
            values = [_value(score, part, leaves) for part in sums.values()]
            columns += [*values, *(values[1:] and [values[1] - values[0]])]
        return np.stack(columns, axis=-1)

    values = statistic({name: part.sum(axis=0) for name, part in parts.items()})
    bounds = stats.intervals_of(parts, strata, statistic)
    if alone:  # one cluster has no spread, and is no reason to leave out the intervals of the other side
        by_side = [_scores({name: side}, asked) for name, side in sides.items()]
        bounds = [
            bound
            for place in range(len(asked))
            for bound in (*(of_side[place][0].interval for of_side in by_side), None)
        ]
    width = 2 * len(of_sides) - 1  # 1 score, or 2 and their difference
    scored = []
    for place, score in enumerate(asked):
        enough = [_patients(side, score.about) >= metrics.FLOOR for side in of_sides]
        enough += [all(enough)] * (len(of_sides) - 1)
        at = range(width * place, width * (place + 1))
        scored.append(
            [
                Score(float(values[k]), bounds[k] if there else None)
                for k, there in zip(at, enough, strict=True)
            ]
        )
    return scored


def _joined(sides: Sequence[_Side]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Side's number -> the (P, L L + 2) sums of the clusters of all sides, 0 for those of the others; and the
    (P,) strata, which no two sides share."""
    flat = [np.concatenate([side.counts.reshape(len(side.counts), -1), side.gap], axis=1) for side in sides]
    ends = np.cumsum([0, *(len(part) for part in flat)])
    parts, strata, used = {}, np.zeros(ends[-1], dtype=np.int64), 0
    for number, (side, part) in enumerate(zip(sides, flat, strict=True)):
        rows = slice(ends[number], ends[number + 1])
        parts[str(number)] = np.zeros((ends[-1], part.shape[1]))
        parts[str(number)][rows] = part
        own = clusters.strata_of(side.counts)
        strata[rows] = own + used
        used += int(own.max(initial=-1)) + 1
    return parts, strata


def _value(score: _Asked, sums: np.ndarray, leaves: int) -> np.ndarray:
    counts = sums[..., :-2].reshape(*sums.shape[:-1], leaves, leaves)
    return score.of(counts, sums[..., -2:])


def _patients(side: _Side, about: np.ndarray) -> int:
    """The number of clusters with images of some true leaves."""
    return int((side.counts[:, about].sum(axis=(1, 2)) > 0).sum())


Answered = list[tuple[Run, np.ndarray]]
"""Runs, each with its (N, E) log p(child | parent) for its test images, or for those outside."""


def _scaled(answered: Answered, temperatures: Temperatures) -> Answered:
    """The runs that have temperatures, scaled."""
    return [
        (run, calibration.scaled(replace(run, logp=logp), temperatures))
        for run, logp in answered
        if run.test_fold in temperatures
    ]


def _errors(
    own: Answered, out: Answered, of: Outside, shared: np.ndarray, inside: np.ndarray
) -> dict[str, CalibrationError]:
    """Side -> its calibration error; empty without runs."""
    if not own or not out:
        return {}
    everything = [(run.images, run.true, logp) for run, logp in own]
    same = [
        (run.images[shared[run.true]], run.true[shared[run.true]], logp[shared[run.true]])
        for run, logp in own
    ]
    there = [(of.images[inside], of.true[inside], logp[inside]) for _, logp in out]
    tree = own[0][0].taxonomy
    return {side: _error(part, tree) for side, part in ((WHOLE, everything), (OWN, same), (OUTSIDE, there))}


def _error(parts: Sequence[tuple[pd.DataFrame, np.ndarray, np.ndarray]], tree: Taxonomy) -> CalibrationError:
    """The calibration error of (images, true leaf, log p(child | parent)) of several runs. The answers to a
    patient, or to an image without one, are one cluster."""
    images = pd.concat([frame for frame, _, _ in parts])
    # A key may look like a patient's id, so the two kinds of names differ in their first letter.
    patient, key = (images[name].to_numpy(str) for name in ("patient", "key"))
    names = np.where(patient != "", np.char.add("p", patient), np.char.add("i", key))
    cluster = np.unique(names, return_inverse=True)[1]
    probability = np.exp(np.concatenate([decide.leaf_logp(logp, tree) for _, _, logp in parts]))
    return stats.calibration_error(np.concatenate([true for _, true, _ in parts]), probability, cluster)
