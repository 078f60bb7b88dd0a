"""Intervals of many scores at a time are those of one score at a time, with the same draws."""

from __future__ import annotations

import numpy as np
import pytest

from leukotree import stats
from leukotree.stats.sums import Sums
from tests.stats.test_bootstrap import L, clusters


def flat(arm: stats.Clusters) -> dict[str, np.ndarray]:
    return {"confusion": arm.counts.reshape(len(arm.counts), -1), "one": np.ones((len(arm.counts), 1))}


def scores(sums: Sums) -> np.ndarray:
    table = sums["confusion"].reshape(*sums["confusion"].shape[:-1], L, L)
    return np.stack([stats.accuracy(table), stats.macro_f1(table)], axis=-1)


@pytest.mark.parametrize("patients", [12, 60])
def test_they_are_those_of_one_score_at_a_time(patients: int) -> None:
    arm = clusters(1, patients=patients)[0]
    alone = [stats.intervals([arm], score)[0] for score in (stats.accuracy, stats.macro_f1)]
    np.testing.assert_allclose(stats.intervals_of(flat(arm), arm.strata, scores), alone)


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    arm = clusters(2)[0]
    whole = stats.intervals_of(flat(arm), arm.strata, scores)
    monkeypatch.setattr("leukotree.stats.resampling.CELLS", 7 * len(arm.strata))
    np.testing.assert_allclose(stats.intervals_of(flat(arm), arm.strata, scores), whole)


def test_few_patients_have_no_interval() -> None:
    arm = clusters(3, patients=4)[0]
    assert stats.intervals_of(flat(arm), arm.strata, scores) == [None, None]


def test_a_score_that_hangs_on_one_patient_has_no_interval() -> None:
    """The share of a patient's images among the right ones of a class that only this patient has."""
    values = np.zeros((20, 1))
    values[3] = 1.0

    def share(sums: Sums) -> np.ndarray:
        only, all_ = sums["only"], sums["all"]
        return np.concatenate(
            [np.divide(only, only, out=np.full_like(only, np.nan), where=only > 0), only / all_], axis=-1
        )

    strata = np.zeros(20, dtype=np.int64)
    hanging, steady = stats.intervals_of({"only": values, "all": np.ones((20, 1))}, strata, share)
    assert hanging is None
    assert steady is not None


def test_sums_are_in_the_order_of_the_clusters() -> None:
    patient = ["b", "", "a", "b", "", "a", "a"]
    names, cluster = stats.clusters_of(patient)
    assert names.tolist() == ["a", "b", "", ""]
    assert cluster.tolist() == [1, 2, 0, 1, 3, 0, 0]
    values = np.arange(14.0).reshape(7, 2)
    sums = stats.patient_sums(patient, values)
    np.testing.assert_allclose(
        sums, [values[[2, 5, 6]].sum(axis=0), values[[0, 3]].sum(axis=0), values[1], values[4]]
    )
    true = np.array([0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(stats.patient_counts(patient, true, true, 3).names, names)
    assert stats.patient_sums([], np.zeros((0, 3))).shape == (0, 3)


def test_a_patient_in_two_repeats_has_the_mean_of_its_sums() -> None:
    """Pooled sums of counts are the pooled counts."""
    rng = np.random.default_rng(4)
    parts, sums = [], []
    for repeat in range(2):
        for half in range(2):
            patients = [p for p in range(12) if (p * (3 if repeat else 1) // 2) % 2 == half]
            names = [f"p{p}" if p % 4 else "" for p in patients for _ in range(3)]
            keys = [f"k{p}-{image}" for p in patients for image in range(3)]
            true, predicted = rng.integers(0, L, (2, len(names)))
            part = stats.patient_counts(names, true, predicted, L, keys)
            parts.append(part)
            sums.append(stats.patient_sums(names, np.eye(L * L)[true * L + predicted]))
    pooled = stats.pool(parts, [0, 0, 1, 1])
    assert len(pooled.names) == 9 + 9
    flat = stats.pool_sums(parts, sums, pooled)
    np.testing.assert_allclose(flat.reshape(-1, L, L), pooled.counts)
    first = stats.pool(parts[:2])
    np.testing.assert_allclose(stats.pool_sums(parts[:2], sums[:2], first).reshape(-1, L, L), first.counts)
