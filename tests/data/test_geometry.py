"""Crops, flips and turns: the distribution of RandomResizedCrop, the eight symmetries of the square."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop

from leukotree.data import geometry
from leukotree.spec import AugmentSpec

STILL = AugmentSpec(crop_scale=(1.0, 1.0), flips=False, jitter=0)


def applied(image: np.ndarray, crop: np.ndarray) -> np.ndarray:
    out, scratch = np.empty_like(image), np.empty_like(image)
    geometry.apply(image, crop, out, scratch)
    return out


def noise(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("library", [RandomResizedCrop, RandomResizedCropAndInterpolation])
@pytest.mark.parametrize("scale", [(0.8, 1.0), (0.08, 1.0), (0.9, 0.95)])
def test_crops_have_the_distribution_of_torchvision_and_timm(
    scale: tuple[float, float], library: type
) -> None:
    """Two-sample Kolmogorov-Smirnov tests of area, aspect ratio and position, at p = 0.001."""
    size, n = 384, 4000
    actual = geometry.draw(0, 0, n, size, AugmentSpec(crop_scale=scale))
    torch.manual_seed(0)
    random.seed(0)  # timm's
    empty = torch.empty(3, size, size)
    expected = np.array([library.get_params(empty, list(scale), [3 / 4, 4 / 3]) for _ in range(n)])
    for name, measure in {
        "area": lambda c: c[:, 2] * c[:, 3],
        "ratio": lambda c: c[:, 3] / c[:, 2],
        "top": lambda c: c[:, 0],
        "left": lambda c: c[:, 1],
    }.items():
        assert stats.ks_2samp(measure(actual), measure(expected)).pvalue > 0.001, name
    # Windows of the whole image: no other window fitted, or it was drawn by chance.
    whole = [(crops[:, 2:4] == size).all(axis=1).sum() for crops in (actual, expected)]
    assert stats.fisher_exact([whole, [n - w for w in whole]]).pvalue > 0.001


@pytest.mark.parametrize(("turns", "symmetries"), [(True, 8), (False, 4)])
def test_all_symmetries_are_equally_often_drawn(turns: bool, symmetries: int) -> None:
    """Without turns a horizontal and a vertical flip, each of probability 1/2, as in torchvision and timm."""
    counts = np.bincount(geometry.draw(1, 0, 8000, 32, AugmentSpec(turns=turns))[:, 4], minlength=symmetries)
    assert len(counts) == symmetries
    assert stats.chisquare(counts).pvalue > 0.001


def test_without_turns_nothing_else_that_is_drawn_changes() -> None:
    with_turns, without = (geometry.draw(1, 0, 100, 32, AugmentSpec(turns=turns)) for turns in (True, False))
    assert np.array_equal(with_turns[:, :4], without[:, :4])
    assert np.array_equal(with_turns[:, 4] & (geometry.HFLIP | geometry.VFLIP), without[:, 4])


def test_each_symmetry_is_one_of_the_square() -> None:
    image = noise(16)
    turned = [np.rot90(image, k) for k in range(4)]
    expected = [*turned, *(t[:, ::-1] for t in turned)]
    results = [applied(image, np.array([0, 0, 16, 16, symmetry])) for symmetry in range(8)]
    which = [[np.array_equal(one, other) for other in expected].index(True) for one in results]
    assert sorted(which) == list(range(8))


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 64), st.integers(0, 2**31), st.integers(0, 20))
def test_windows_lie_within_the_image(size: int, seed: int, epoch: int) -> None:
    crops = geometry.draw(seed, epoch, 50, size, AugmentSpec(crop_scale=(0.3, 1.0)))
    top, left, height, width, _ = crops.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (height > 0).all()
    assert (width > 0).all()
    assert (top + height <= size).all()
    assert (left + width <= size).all()


@pytest.mark.parametrize("crop", [(3, 5, 50, 44), (0, 0, 64, 64), (10, 0, 20, 60)])
def test_a_crop_is_resized_as_torchvision_does_on_tensors(crop: tuple[int, int, int, int]) -> None:
    """Smooth images, since libraries round differently; bilinear, without antialiasing."""
    rough = torch.from_numpy(noise(8)).permute(2, 0, 1).float()
    image = (
        torch.nn.functional.interpolate(rough[None], size=(64, 64), mode="bicubic")[0]
        .clamp(0, 255)
        .round()
        .to(torch.uint8)
    )
    actual = applied(image.permute(1, 2, 0).contiguous().numpy(), np.array([*crop, 0]))
    expected = resized_crop(image.float(), *crop, size=[64, 64], antialias=False).permute(1, 2, 0).numpy()
    assert np.abs(actual - expected).max() <= 1.5


def test_without_augmentation_nothing_changes() -> None:
    image = noise(32)
    for crop in geometry.draw(3, 0, 20, 32, STILL):
        assert np.array_equal(applied(image, crop), image)


def test_an_epoch_is_a_function_of_its_seed() -> None:
    spec = AugmentSpec()
    assert np.array_equal(geometry.draw(5, 2, 9, 32, spec), geometry.draw(5, 2, 9, 32, spec))
    assert not np.array_equal(geometry.draw(5, 2, 9, 32, spec), geometry.draw(5, 3, 9, 32, spec))
    assert not np.array_equal(geometry.draw(5, 2, 9, 32, spec), geometry.draw(6, 2, 9, 32, spec))


def test_a_read_only_image_is_cropped_too() -> None:
    """The cache gives read-only images."""
    image = noise(24)
    image.flags.writeable = False
    assert applied(image, np.array([2, 3, 20, 18, 5])).shape == (24, 24, 3)
