"""How often does a 95 % interval hold the true value? Simulated studies whose patients differ from each
other.

    python tests/stats/test_coverage.py [--simulations N] [--draws R]

prints the table for more designs and simulations than the test has.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from leukotree import stats

pytestmark = pytest.mark.slow("draws hundreds of studies")

SHARED, OWN = 1.0, 0.5
"""Spread of a patient's effect on each logit: one that both arms share, and one of each arm."""
STATISTICS = {"accuracy": stats.accuracy, "macro F1": stats.macro_f1}
Rates = dict[tuple[str, str], tuple[float, float]]
"""(statistic, what is resampled) -> how often the intervals of one arm and of the difference hold the true
values."""


@dataclass(frozen=True)
class Design:
    """Studies of two arms on the same patients, of 5 to 15 images each."""

    of_leaf: tuple[int, ...]
    """Patients of each of L leaves; the last two leaves are mistaken for each other."""
    skills: tuple[float, float]
    """Logit of the true leaf in each arm, without a patient's effect."""

    def patients(self, rng: np.random.Generator, times: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(P,) leaf, (P,) number of images, (2, P, L) logits of patients."""
        n_leaves = len(self.of_leaf)
        base = np.stack([skill * np.eye(n_leaves) for skill in self.skills])
        base[:, [-2, -1], [-1, -2]] += 0.8
        leaf = np.repeat(np.arange(n_leaves), np.multiply(self.of_leaf, times))
        effects = rng.normal(0, SHARED, (len(leaf), n_leaves)) + rng.normal(0, OWN, (2, len(leaf), n_leaves))
        return leaf, rng.integers(5, 16, len(leaf)), base[:, leaf] + effects

    def truth(self, rng: np.random.Generator) -> np.ndarray:
        """(2, L, L) expected confusion of the arms, from very many patients in the same proportions."""
        leaf, images, logits = self.patients(rng, times=3000)
        chance = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True) * images[:, None]
        return np.stack([chance[:, leaf == one].sum(axis=1) for one in range(len(self.of_leaf))], axis=1)

    def study(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N,) patient, (N,) true leaf, (2, N) predictions: an image is as hard for one arm as for the
        other."""
        leaf, images, logits = self.patients(rng)
        patient = np.repeat(np.arange(len(leaf)), images)
        noise = rng.gumbel(size=(len(patient), len(self.of_leaf)))
        return patient, leaf[patient], (logits[:, patient] + noise).argmax(axis=-1)  # a draw from the softmax


USUAL = Design((24, 20, 16, 12), (1.8, 2.1))
DESIGNS = {
    "72 patients, 4 leaves": USUAL,
    "the same, accuracy 0.87 and 0.91": Design(USUAL.of_leaf, (4.0, 4.5)),
    "29 patients, 4 leaves": Design((10, 8, 6, 5), (1.8, 2.1)),
    "84 patients, 7 leaves": Design((15, 12, 14, 13, 10, 10, 10), (2.5, 2.8)),
}


def covered(
    arms: Sequence[stats.Clusters], truth: np.ndarray, draws: int, seed: int
) -> list[tuple[bool, bool]]:
    """Per statistic, whether the intervals of the first arm and of the difference of the two hold the true
    values."""
    covered = []
    for statistic in STATISTICS.values():
        (one, other), (low, high) = statistic(truth), stats.intervals(arms[:1], statistic, draws, seed)[0]
        below, above = stats.difference_interval(arms[1], arms[0], statistic, draws, seed)
        covered.append((low <= one <= high, below <= other - one <= above))
    return covered


def coverage(design: Design, simulations: int, draws: int, naive: int) -> Rates:
    """The first `naive` of the simulated studies also resample images, as if no two had a patient in
    common."""
    rng = np.random.default_rng(0)
    truth = design.truth(rng)
    hits: dict[str, list[list[tuple[bool, bool]]]] = {"patients": [], "images": []}
    for number in range(simulations):
        patient, true, predicted = design.study(rng)
        for unit, rows in hits.items():
            if unit == "patients" or number < naive:
                names = [f"p{one}" if unit == "patients" else "" for one in patient]
                arms = [stats.patient_counts(names, true, one, len(design.of_leaf)) for one in predicted]
                rows.append(covered(arms, truth, draws, seed=number))
    means = {unit: np.mean(rows, axis=0) for unit, rows in hits.items()}
    return {
        (name, unit): tuple(mean[place])
        for place, name in enumerate(STATISTICS)
        for unit, mean in means.items()
    }


def show(title: str, rates: Rates) -> None:
    heads = f"{'95 % interval of':20} {'resampling':12} {'covers, of one arm':>20} {'of the difference':>20}"
    print(f"\n{title}\n{heads}")
    for (name, unit), (one, difference) in rates.items():
        print(f"{name:20} {unit:12} {100 * one:18.1f} % {100 * difference:18.1f} %")


def test_intervals_by_patient_cover_and_those_by_image_do_not():
    by_statistic = coverage(USUAL, simulations=1000, draws=600, naive=150)
    show("72 patients, 4 leaves", by_statistic)
    for (_, unit), rates in by_statistic.items():
        for rate in rates:
            assert 0.93 <= rate <= 0.97 if unit == "patients" else rate < 0.88


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--draws", type=int, default=1000)
    chosen = parser.parse_args()
    for title, design in DESIGNS.items():
        show(title, coverage(design, chosen.simulations, chosen.draws, chosen.simulations // 10))
