"""Augmentation: what it may do to an image, and that it does it to each sample alone."""

import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from leukotree.data import augment
from leukotree.spec import AugmentSpec

STILL = AugmentSpec(crop_scale=(1.0, 1.0), flips=False, jitter=0)


def images(n: int, size: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_nothing_asked_nothing_changed() -> None:
    batch = images(4)
    assert torch.equal(augment.apply(batch, torch.from_numpy(augment.draw(0, 0, 4)), STILL), batch)


def test_flips_are_exactly_the_eight_symmetries_equally_often() -> None:
    [image] = images(1)
    turned = [torch.rot90(image, k, dims=(1, 2)) for k in range(4)]
    symmetries = [*turned, *(t.flip(2) for t in turned)]
    n = 800
    flips = STILL.model_copy(update={"flips": True})
    out = augment.apply(image.expand(n, -1, -1, -1), torch.from_numpy(augment.draw(1, 0, n)), flips)
    which = [[torch.allclose(one, symmetry, atol=1e-4) for symmetry in symmetries].index(True) for one in out]
    counts = np.bincount(which, minlength=8)
    assert ((counts - n / 8) ** 2 / (n / 8)).sum() < 24.3  # chi-squared, 7 degrees of freedom, p = 0.001


def test_a_crop_shows_a_window_of_the_image_with_the_asked_area() -> None:
    """On images whose colours are their coordinates, the window's size can be read off."""
    size, n = 64, 200
    ramp = (torch.arange(size) + 0.5) / size
    coordinates = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.zeros(size, size)])
    crop = AugmentSpec(crop_scale=(0.3, 0.6), flips=False, jitter=0)
    out = augment.apply(coordinates.expand(n, -1, -1, -1), torch.from_numpy(augment.draw(2, 0, n)), crop)
    width = (out[:, 0, :, -1] - out[:, 0, :, 0]).mean(dim=1) * size / (size - 1)
    height = (out[:, 1, -1] - out[:, 1, 0]).mean(dim=1) * size / (size - 1)
    area = width * height
    assert area.min() > 0.28
    assert area.max() < 0.62
    assert area.std() > 0.05
    assert (width / height).log().abs().max() < np.log(4 / 3) + 0.05
    assert out[:, 0].min() >= 0
    assert out[:, 0].max() <= 1


def test_jitter_keeps_the_range_and_zero_strength_keeps_the_image() -> None:
    batch = images(8)
    numbers = torch.from_numpy(augment.draw(3, 0, 8))
    out = augment.apply(batch, numbers, STILL.model_copy(update={"jitter": 0.4}))
    assert not torch.allclose(out, batch)
    assert out.min() >= 0
    assert out.max() <= 1


def test_jitter_in_one_pass_is_brightness_then_contrast_then_saturation() -> None:
    """Against torchvision's functions; in the middle of the range, where none of them has to clip in between."""
    batch = 0.4 + 0.2 * images(5)
    numbers = torch.from_numpy(augment.draw(5, 0, 5))
    out = augment.apply(batch, numbers, STILL.model_copy(update={"jitter": 0.2}))
    for one, image, factors in zip(out, batch, 1 + 0.2 * (2 * numbers[:, 7:10] - 1), strict=True):
        b, c, s = factors.tolist()
        bright = functional.adjust_brightness(image, b)
        mean = bright.mean()
        contrasted = mean + (bright - mean) * c  # torchvision takes the mean of the grey image here
        torch.testing.assert_close(one, functional.adjust_saturation(contrasted, s), atol=1e-3, rtol=0)


@pytest.mark.parametrize("spec", [AugmentSpec(), AugmentSpec(jitter=0.5, crop_scale=(0.2, 0.9))])
def test_a_sample_is_augmented_alike_alone_and_in_company(spec: AugmentSpec) -> None:
    batch, numbers = images(6), torch.from_numpy(augment.draw(4, 1, 6))
    together = augment.apply(batch, numbers, spec)
    alone = torch.cat([augment.apply(batch[i : i + 1], numbers[i : i + 1], spec) for i in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
