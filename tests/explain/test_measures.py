"""Measures of maps: against loops, other libraries and a model made by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import spearmanr
from sklearn.metrics import jaccard_score

from leukotree.explain import measures
from leukotree.explain.wrapped import Probability, Whole
from tests.helpers import spots

SHAPE = (3, 9, 9)
MAPS = arrays.arrays(np.float32, SHAPE, elements=st.integers(0, 4).map(np.float32))
MASKS = arrays.arrays(bool, SHAPE)


@given(MAPS, MASKS)
def test_energy_pointing_and_overlap_as_loops_compute_them(maps: np.ndarray, masks: np.ndarray) -> None:
    energy, overlap = measures.energy(maps, masks), measures.overlap(maps, masks)
    pointing = measures.pointing(maps, masks, tolerance=1.5 / 9)
    for row, (values, mask) in enumerate(zip(maps, masks, strict=True)):
        if not values.any() or not mask.any():
            assert np.isnan([energy[row], overlap[row], pointing[row]]).all()
            continue
        assert energy[row] == pytest.approx(sum(values[mask].tolist()) / sum(values.ravel().tolist()))
        best = (values >= np.quantile(values, 0.8)) & (values > 0)
        assert overlap[row] == pytest.approx(jaccard_score(mask.ravel(), best.ravel()))
        inside = np.argwhere(mask)
        hits = [np.hypot(*(inside - peak).T).min() <= 1.5 for peak in np.argwhere(values == values.max())]
        assert pointing[row] == pytest.approx(np.mean(hits))


@given(MASKS)
def test_a_map_that_is_the_same_everywhere_has_the_area_of_the_mask(masks: np.ndarray) -> None:
    energy = measures.energy(np.ones(SHAPE, np.float32), masks)
    area = masks.mean(axis=(1, 2))
    np.testing.assert_allclose(energy[area > 0], area[area > 0])


@given(MAPS, MAPS)
def test_similarity_is_spearmans_correlation(maps: np.ndarray, others: np.ndarray) -> None:
    found = measures.similarity(maps, others)
    for value, one, other in zip(found, maps, others, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = spearmanr(one.ravel(), other.ravel()).statistic
        assert value == pytest.approx(expected, nan_ok=True)


def test_a_map_of_nan_has_no_number() -> None:
    maps = np.full((1, 8, 8), np.nan, np.float32)
    mask = np.ones((1, 8, 8), bool)
    for measure in (measures.energy, measures.pointing, measures.overlap):
        assert np.isnan(measure(maps, mask)).all()
    assert np.isnan(measures.similarity(maps, np.random.default_rng(0).random((1, 8, 8)))).all()
    assert not measures.has_place(maps).any()


def test_the_centre_gaussian_is_symmetric_and_falls_from_the_middle() -> None:
    found = measures.centre(64)
    np.testing.assert_allclose(found, found[::-1, ::-1])
    np.testing.assert_allclose(found, found.T)
    assert found.argmax() in (31 * 64 + 31, 31 * 64 + 32, 32 * 64 + 31, 32 * 64 + 32)
    assert found[32, 48] / found[32, 32] == pytest.approx(np.exp(-0.5), abs=0.02)  # one deviation away


class TestRoad:
    def of(self, maps: np.ndarray, seed: int = 0) -> np.ndarray:
        """ROAD of the probability of red."""
        with torch.random.fork_rng(devices=[]):  # a model begins with random weights
            whole = Whole("flat", spots.TREE, [spots.model()])
        inputs = spots.image().repeat(len(maps), 1, 1, 1)
        return measures.road(inputs, maps, [Probability([0])] * len(maps), whole, seed)

    def test_pixels_that_count_lower_the_probability(self) -> None:
        """Without the red corner red is less probable, without the blue one it is more so."""
        maps = np.random.default_rng(0).random((2, 32, 32)).astype(np.float32) / 10
        maps[0, :8, :8] += 1
        maps[1, -8:, -8:] += 1
        found = self.of(maps)
        assert found[0] > 0.01
        assert found[1] < -0.01

    def test_it_is_that_of_the_library(self) -> None:
        from pytorch_grad_cam.metrics.road import ROADCombined

        from leukotree import seeds

        maps = np.random.default_rng(0).random((1, 32, 32)).astype(np.float32)
        library = ROADCombined(list(measures.REMOVED))
        whole = Whole("flat", spots.TREE, [spots.model()])
        torch.manual_seed(seeds.integer(3, "road/noise", 0))
        expected = library(spots.image(), maps, [Probability([0])], whole)
        np.testing.assert_allclose(self.of(maps, seed=3), expected, atol=1e-6)

    def test_equal_pixels_can_be_divided_and_equal_seeds_give_equal_numbers(self) -> None:
        maps = np.zeros((3, 32, 32), np.float32)
        maps[:2, :8, :8] = 1  # the other pixels are all 0
        first, second = self.of(maps), self.of(maps)
        np.testing.assert_array_equal(first, second)
        assert first[0] > 0.01
        assert np.isnan(first[2])
        state = torch.random.get_rng_state()
        assert not np.array_equal(first[:2], self.of(maps, seed=1)[:2])
        assert torch.equal(state, torch.random.get_rng_state())
