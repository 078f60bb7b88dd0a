"""Kappas of readers are those of other libraries, and of the table that the LMU set was published with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.evaluation import readers
from leukotree.evaluation.metrics import confusion
from leukotree.evaluation.readers import UNREAD, Categories
from leukotree.taxonomy import Taxonomy

TREE = Taxonomy.paper()


def random_codes(seed: int, images: int, several: int, categories: int, missing: float) -> np.ndarray:
    """(N, R) readings that agree more often than by chance."""
    rng = np.random.default_rng(seed)
    true = rng.integers(categories, size=(images, 1))
    codes = np.where(
        rng.random((images, several)) < 0.6, true, rng.integers(categories, size=(images, several))
    )
    return np.where(rng.random(codes.shape) < missing, UNREAD, codes)


SEEDS = st.integers(0, 2**31)


@given(SEEDS, st.integers(2, 60), st.integers(2, 6))
def test_cohens_kappa_is_that_of_scikit_learn(seed: int, images: int, categories: int) -> None:
    from sklearn.metrics import cohen_kappa_score

    first, second = random_codes(seed, images, 2, categories, 0.0).T
    with np.errstate(invalid="ignore"):
        right = (
            cohen_kappa_score(first, second, labels=range(categories))
            if len({*first, *second}) > 1
            else np.nan
        )
    ours = readers.cohen(confusion(first, second, categories))
    np.testing.assert_allclose(ours, right, atol=1e-12)


@given(SEEDS, st.integers(2, 60), st.integers(2, 5), st.integers(2, 6))
def test_fleiss_kappa_is_that_of_statsmodels(seed: int, images: int, several: int, categories: int) -> None:
    from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

    codes = random_codes(seed, images, several, categories, 0.0)
    ours = readers.fleiss(readers.coincidences(codes, categories).sum(axis=0))
    if len(np.unique(codes)) == 1:
        assert np.isnan(ours)
    else:
        np.testing.assert_allclose(ours, fleiss_kappa(aggregate_raters(codes)[0]), atol=1e-12)


@settings(max_examples=60)
@given(SEEDS, st.integers(2, 60), st.integers(2, 5), st.integers(2, 6), st.floats(0, 0.7))
def test_alpha_of_sums_is_that_of_the_library(
    seed: int, images: int, several: int, categories: int, missing: float
) -> None:
    """The library has no sums over patients, which the bootstrap needs."""
    codes = random_codes(seed, images, several, categories, missing)
    by_library = readers.alpha(codes, categories)
    ours = readers.krippendorff(readers.coincidences(codes, categories).sum(axis=0))
    np.testing.assert_allclose(ours, by_library, atol=1e-12)


def test_the_example_of_krippendorff() -> None:
    """Krippendorff 2011, C: nominal data with missing values, 0.743."""
    rows = [
        "1 2 3 3 2 1 4 1 2 * * *",
        "1 2 3 3 2 2 4 1 2 5 * 3",
        "* 3 3 3 2 3 4 2 2 5 1 *",
        "1 2 3 3 2 4 4 1 2 5 1 *",
    ]
    codes = np.array([[UNREAD if sign == "*" else int(sign) - 1 for sign in row.split()] for row in rows]).T
    assert round(readers.alpha(codes, 5), 3) == 0.743
    assert round(float(readers.krippendorff(readers.coincidences(codes, 5).sum(axis=0))), 3) == 0.743


@pytest.mark.parametrize("codes", [[[0, 0], [0, 0]], [[0, UNREAD], [UNREAD, 1]], np.empty((0, 2), int)])
def test_without_two_categories_or_two_readings_nothing_is_defined(codes: list[list[int]]) -> None:
    codes = np.array(codes)
    assert np.isnan(readers.alpha(codes, 2))
    table = readers.coincidences(codes, 2).sum(axis=0)
    assert np.isnan(readers.krippendorff(table))
    assert np.isnan(readers.fleiss(table))
    assert np.isnan(readers.cohen(np.zeros((2, 2))))


def test_a_reading_may_stop_at_an_inner_node() -> None:
    """It is not read at the leaves, and read where its node is above the cut or in it."""
    names = ["AML", "acute", "leukemia", "root", "", "normal"]
    leaves, first = Categories(TREE.leaves, TREE, names), Categories(TREE.cuts[0], TREE, names)
    assert [UNREAD if code == UNREAD else leaves.names[code] for code in leaves.codes(names)] == [
        "AML",
        *[UNREAD] * 4,
        "normal",
    ]
    assert [UNREAD if code == UNREAD else first.names[code] for code in first.codes(names)] == [
        "leukemia",
        "leukemia",
        "leukemia",
        UNREAD,
        UNREAD,
        "normal",
    ]


def test_a_leaf_that_no_image_has_disagrees_with_every_other() -> None:
    pruned = TREE.prune(["normal", "AML"])
    categories = Categories(pruned.leaves, pruned, ["CML", "AML", "leukemia"])
    assert categories.names == ["normal", "AML", "CML"]
    assert categories.codes(["CML", "leukemia"]).tolist() == [2, UNREAD]


def test_kappas_of_the_lmu_set(real_data: Path) -> None:
    """1,905 cells with three readings: agreement and kappa as published beside the data."""
    table = pd.read_csv(
        real_data / "lmu_readers" / "annotations.dat",
        sep=r"\s+",
        header=None,
        dtype=str,
        keep_default_na=False,
    )
    readings = table[(table[[1, 2, 3]] != "nan").all(axis=1)][[1, 2, 3]]
    assert len(readings) == 1905
    names, codes = np.unique(readings.to_numpy(str), return_inverse=True)
    codes = codes.reshape(readings.shape)
    found = []
    for first, second in ((0, 1), (0, 2), (1, 2)):
        counts = confusion(codes[:, first], codes[:, second], len(names))
        found.append(
            (round(100 * np.trace(counts) / counts.sum(), 1), round(float(readers.cohen(counts)), 3))
        )
    assert found == [(84.9, 0.800), (80.3, 0.747), (82.3, 0.773)]
