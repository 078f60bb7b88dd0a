"""The section about calibration: before and after temperature scaling, fitted on the inner validation of the
search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from leukotree.evaluation import calibration, decide
from leukotree.report import figures, prose, scores
from leukotree.report.blocks import Block, Figure, Section, Table, text
from leukotree.report.summary import Arm, Run, StudySummary
from leukotree.taxonomy import Taxonomy

LEAVES = "leaves"
Problem = tuple[np.ndarray, np.ndarray]
"""(n,) true classes and (n, K) probabilities."""


Temperatures = Mapping[int, dict[str, float]]
"""Test fold -> decision -> temperature."""


class Calibrated(NamedTuple):
    """The runs of one arm that are judged, pooled."""

    raw: dict[str, Problem]
    """Decision, or LEAVES -> its problem."""
    scaled: dict[str, Problem]
    """The same after scaling; empty without inner validation."""
    temperatures: list[dict[str, float]]
    """Of each fold that has inner validation."""
    runs: int


def section(summary: StudySummary) -> Section:
    """ECE and Brier score of each decision and of the leaves, and the reliability of the leaves."""
    found = {arm.name: calibrated(summary, arm) for arm in scores.shown(summary)}
    rows = [row for name, one in found.items() for row in _rows(name, one)]
    header = ["variant", "decision", "ECE", "ECE, scaled", "Brier", "Brier, scaled", "temperature"]
    curves = {}
    for name, one in found.items():
        states = {"raw": one.raw[LEAVES], **({"scaled": one.scaled[LEAVES]} if one.scaled else {})}
        curves[name] = {state: _curve(*problem) for state, problem in states.items()}
    blocks: list[Block] = [
        Table("All judged folds and seeds pooled; temperature: median over folds.", header, rows, labels=2),
        Figure(
            "reliability",
            "Reliability of the most probable leaf; dots grow with their share of the images.",
            figures.reliability(curves),
        ),
        text(prose.CALIBRATION, bins=calibration.BINS),
    ]
    if without := [name for name, one in found.items() if not one.scaled]:
        blocks.append(text(prose.RAW_ONLY, "note", variants=", ".join(without)))
    elif summary.clean_fold is not None:
        blocks.append(text(prose.CLEAN_ONLY, "note", clean=summary.clean_fold))
    return Section("Calibration", blocks)


def calibrated(summary: StudySummary, arm: Arm) -> Calibrated:
    """Scaled are the folds that their search did not see, where it has left its predictions; without any, all
    folds stay raw."""
    runs, temperatures = judged(summary, arm)
    raw = _pooled(runs, [run.logp for run in runs])
    after = _pooled(runs, [scaled(run, temperatures) for run in runs]) if temperatures else {}
    return Calibrated(raw, after, list(temperatures.values()), len(runs))


def judged(summary: StudySummary, arm: Arm) -> tuple[list[Run], Temperatures]:
    """The runs of the folds that can be scaled, and by what; all runs where none can be."""
    temperatures = {
        fold: fitted
        for fold, runs in scores.by_fold(arm.runs).items()
        if (fitted := _fit(summary, arm, fold, runs[0].taxonomy))
    }
    return [run for run in arm.runs if run.test_fold in temperatures] or list(arm.runs), temperatures


def scaled(run: Run, temperatures: Temperatures) -> np.ndarray:
    """(N, E) log p(child | parent) of a run, scaled if its fold can be."""
    return (
        calibration.apply(run.logp, run.taxonomy, temperatures[run.test_fold]) if temperatures else run.logp
    )


def _fit(summary: StudySummary, arm: Arm, fold: int, taxonomy: Taxonomy) -> dict[str, float] | None:
    """Temperatures from the inner validation of a fold's search; None without, or where the search saw the
    fold's images."""
    search = summary.search(arm.variant, fold) if arm.cell is None else None
    if search is None or search.test_fold != fold or search.validation is None:
        return None
    inner = search.validation
    same = list(inner.taxonomy.parent_of.items()) == list(
        taxonomy.parent_of.items()
    )  # the order of leaves counts
    return calibration.fit(inner.true, inner.logp, taxonomy) if same else None


def _pooled(runs: Sequence[Run], logps: Sequence[np.ndarray]) -> dict[str, Problem]:
    true, logp, taxonomy = np.concatenate([run.true for run in runs]), np.concatenate(logps), runs[0].taxonomy
    problems = {
        node: (target, np.exp(logs)) for node, target, logs in decide.at_decisions(true, logp, taxonomy)
    }
    return {**problems, LEAVES: (true, np.exp(decide.leaf_logp(logp, taxonomy)))}


def _rows(name: str, found: Calibrated) -> list[list[str]]:
    rows = []
    for problem, raw in found.raw.items():
        scaled = found.scaled.get(problem)
        cells = [
            _shown(value)
            for score in (calibration.ece, calibration.brier)
            for value in (score(*raw), score(*scaled) if scaled else float("nan"))
        ]
        fitted = [one[problem] for one in found.temperatures if problem in one]
        rows.append([name, problem, *cells, f"{np.median(fitted):.2f}" if fitted else "–"])
    return rows


def _shown(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def _curve(target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, accuracy and images of the bins that have images."""
    bins = calibration.reliability(target, probability)
    some = bins.count > 0
    return bins.confidence[some], bins.accuracy[some], bins.count[some]
