"""The section about calibration, before and after temperature scaling.

Temperatures are fitted on the inner validation folds of the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from leukotree import stats
from leukotree.evaluation import calibration, decide
from leukotree.evaluation.metrics import FLOOR
from leukotree.report import figures, inner, scores
from leukotree.report.blocks import Block, Figure, Section, Table, text
from leukotree.report.prose import probabilities as prose
from leukotree.report.summary import Arm, Run, StudySummary
from leukotree.taxonomy import Taxonomy

LEAVES = "leaves"
Temperatures = Mapping[int, dict[str, float]]
"""Test fold -> decision -> temperature."""


class Problem(NamedTuple):
    """The classification of n images among K classes: pooled over the judged folds and seeds."""

    target: np.ndarray
    """(n,) true classes."""
    probability: np.ndarray
    """(n, K)."""
    cluster: np.ndarray
    """(n,) index of the image's patient, from 0. An image without a patient is one, with all its seeds."""
    patients: bool
    """Whether any image has a patient id."""


class Calibrated(NamedTuple):
    """The judged runs of one arm, pooled."""

    raw: dict[str, Problem]
    """Decision, or LEAVES -> its classes and probabilities."""
    scaled: dict[str, Problem]
    """The same after scaling. Empty without inner validation."""
    temperatures: list[dict[str, float]]
    """The temperatures of each fold that has inner validation."""
    runs: int
    """The number of judged runs."""


def section(summary: StudySummary) -> Section:
    """A table of ECE and Brier score of each decision and of the leaves, and a figure of the reliability of
    the leaves."""
    of_arms = {arm.name: calibrated(summary, arm) for arm in scores.shown(summary)}
    rows = [row for name, of_arm in of_arms.items() for row in _rows(name, of_arm)]
    interval = "95 % by patient"
    header = ["variant", "decision", "ECE", interval, "ECE, scaled", interval]
    header += ["Brier", "Brier, scaled", "temperature"]
    caption = (
        "All judged folds and seeds are pooled, and each interval is that of the pooled error before it. "
        "Temperature: median over folds."
    )
    curves = {}
    for name, of_arm in of_arms.items():
        states = {"raw": of_arm.raw[LEAVES]} | ({"scaled": of_arm.scaled[LEAVES]} if of_arm.scaled else {})
        curves[name] = {state: _curve(problem) for state, problem in states.items()}
    blocks: list[Block] = [
        Table(caption, header, rows, labels=2),
        Figure(
            "reliability",
            "Reliability of the most probable leaf, in bins of about equally many images.",
            figures.reliability(curves),
        ),
        text(prose.CALIBRATION, bins=calibration.BINS, floor=FLOOR),
    ]
    if without := [name for name, of_arm in of_arms.items() if not of_arm.scaled]:
        blocks.append(text(prose.RAW_ONLY, "note", variants=", ".join(without)))
    elif summary.clean_fold is not None:
        blocks.append(text(prose.CLEAN_ONLY, "note", clean=summary.clean_fold))
    return Section("Calibration", blocks)


def calibrated(summary: StudySummary, arm: Arm) -> Calibrated:
    """The judged runs of an arm, raw and scaled. Without inner validation in any fold, all runs stay raw."""
    runs, temperatures = judged(summary, arm)
    raw = _pooled(runs, [run.logp for run in runs])
    after = _pooled(runs, [scaled(run, temperatures) for run in runs]) if temperatures else {}
    return Calibrated(raw, after, list(temperatures.values()), len(runs))


def judged(summary: StudySummary, arm: Arm) -> tuple[list[Run], Temperatures]:
    """The runs of the folds that have temperatures, and these temperatures. All runs where no fold has
    any."""
    temperatures = {
        fold: fitted
        for fold, runs in scores.by_fold(arm.runs).items()
        if (fitted := _fit(summary, arm, fold, runs[0].taxonomy))
    }
    return [run for run in arm.runs if run.test_fold in temperatures] or list(arm.runs), temperatures


def scaled(run: Run, temperatures: Temperatures) -> np.ndarray:
    """(N, E) log p(child | parent) of a run, scaled where there are temperatures."""
    if not temperatures:
        return run.logp
    return calibration.apply(run.logp, run.taxonomy, temperatures[run.test_fold])


def _fit(summary: StudySummary, arm: Arm, fold: int, taxonomy: Taxonomy) -> dict[str, float] | None:
    """Decision -> temperature, from the inner validation of a fold. None without it."""
    validation = inner.validation(summary, arm, fold, taxonomy)
    return calibration.fit(validation.true, validation.logp, taxonomy) if validation else None


def _pooled(runs: Sequence[Run], logps: Sequence[np.ndarray]) -> dict[str, Problem]:
    true, logp, taxonomy = np.concatenate([run.true for run in runs]), np.concatenate(logps), runs[0].taxonomy
    images = pd.concat([run.images for run in runs])
    known = (images["patient"] != "").to_numpy()
    # A key may look like a patient's id, so the two kinds of names differ in their first letter.
    names = np.where(known, "p" + images["patient"].to_numpy(str), "i" + images["key"].to_numpy(str))

    def problem(target: np.ndarray, logs: np.ndarray, rows: np.ndarray) -> Problem:
        cluster = np.unique(names[rows], return_inverse=True)[1]
        return Problem(target, np.exp(logs), cluster, bool(known[rows].any()))

    below = taxonomy.choices[true] >= 0  # (n, decisions): which decisions an image belongs to
    problems = {
        decision: problem(target, logs, below[:, place])
        for place, (decision, target, logs) in enumerate(decide.at_decisions(true, logp, taxonomy))
    }
    return {**problems, LEAVES: problem(true, decide.leaf_logp(logp, taxonomy), np.ones(len(true), bool))}


def _rows(arm: str, of_arm: Calibrated) -> list[list[str]]:
    rows = []
    for name, raw in of_arm.raw.items():
        scaled = of_arm.scaled.get(name)
        fitted = [of_fold[name] for of_fold in of_arm.temperatures if name in of_fold]
        cells = [
            *_error(raw),
            *_error(scaled),
            *(_shown(calibration.brier(*one[:2]) if one else float("nan")) for one in (raw, scaled)),
            f"{np.median(fitted):.2f}" if fitted else "–",
        ]
        rows.append([arm, name, *cells])
    return rows


def _error(problem: Problem | None) -> list[str]:
    """The calibration error and its interval. Without patient ids the interval is not estimable: the images
    of a patient would count as independent."""
    if problem is None:
        return ["–", "–"]
    of_images = problem.target, problem.probability, problem.cluster
    if not problem.patients:
        return [_shown(calibration.ece(*of_images)), "not estimable"]
    error = stats.calibration_error(*of_images)
    if error.interval is None:
        return [_shown(error.value), "not estimable"]
    low, high = error.interval
    return [_shown(error.value), f"{low:.3f} to {high:.3f}"]


def _shown(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def _curve(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, accuracy and number of images of each bin."""
    curve = calibration.reliability(problem.target, problem.probability, problem.cluster)
    return curve.confidence, curve.accuracy, curve.count
