"""The section about calibration, before and after temperature scaling.

Temperatures are fitted on the inner validation folds of the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from leukotree.evaluation import calibration, decide
from leukotree.report import figures, inner, prose, scores
from leukotree.report.blocks import Block, Figure, Section, Table, text
from leukotree.report.summary import Arm, Run, StudySummary
from leukotree.taxonomy import Taxonomy

LEAVES = "leaves"
Problem = tuple[np.ndarray, np.ndarray]
"""(n,) true classes and (n, K) probabilities."""
Temperatures = Mapping[int, dict[str, float]]
"""Test fold -> decision -> temperature."""


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
    header = ["variant", "decision", "ECE", "ECE, scaled", "Brier", "Brier, scaled", "temperature"]
    curves = {}
    for name, of_arm in of_arms.items():
        states = {"raw": of_arm.raw[LEAVES]} | ({"scaled": of_arm.scaled[LEAVES]} if of_arm.scaled else {})
        curves[name] = {state: _curve(*problem) for state, problem in states.items()}
    blocks: list[Block] = [
        Table(
            "All judged folds and seeds are pooled. Temperature: median over folds.", header, rows, labels=2
        ),
        Figure(
            "reliability",
            "Reliability of the most probable leaf. The size of a dot is its share of the images.",
            figures.reliability(curves),
        ),
        text(prose.CALIBRATION, bins=calibration.BINS),
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
    problems = {
        decision: (target, np.exp(logs))
        for decision, target, logs in decide.at_decisions(true, logp, taxonomy)
    }
    return {**problems, LEAVES: (true, np.exp(decide.leaf_logp(logp, taxonomy)))}


def _rows(arm: str, of_arm: Calibrated) -> list[list[str]]:
    rows = []
    for problem, raw in of_arm.raw.items():
        scaled = of_arm.scaled.get(problem)
        cells = [
            _shown(value)
            for score in (calibration.ece, calibration.brier)
            for value in (score(*raw), score(*scaled) if scaled else float("nan"))
        ]
        fitted = [of_fold[problem] for of_fold in of_arm.temperatures if problem in of_fold]
        rows.append([arm, problem, *cells, f"{np.median(fitted):.2f}" if fitted else "–"])
    return rows


def _shown(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def _curve(target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, accuracy and number of images of the bins that have images."""
    bins = calibration.reliability(target, probability)
    filled = bins.count > 0
    return bins.confidence[filled], bins.accuracy[filled], bins.count[filled]
