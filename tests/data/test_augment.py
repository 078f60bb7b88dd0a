"""Colour augmentation and normalisation: the changes of an image, and their independence of other images."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import functional

from leukotree.data import augment
from leukotree.spec import AugmentSpec

STILL = AugmentSpec(jitter=0)
MEAN, STD = (
    torch.tensor([0.48, 0.46, 0.41]).view(1, 3, 1, 1),
    torch.tensor([0.23, 0.22, 0.24]).view(1, 3, 1, 1),
)
PLAIN = (torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))
"""Leaves colours in [0, 1] as they are."""


def images(n: int, size: int = 16, low: int = 0, high: int = 256) -> torch.Tensor:
    """Images as the loader gives them: uint8, channels last."""
    pixels = torch.randint(
        low, high, (n, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return pixels.permute(0, 3, 1, 2)


def numbers(seed: int, n: int) -> torch.Tensor:
    return torch.from_numpy(augment.draw(seed, 0, n))


@given(st.integers(0, 2**31), st.integers(0, 100), st.integers(1, 50))
def test_the_numbers_of_an_epoch_are_a_function_of_seed_and_epoch(seed: int, epoch: int, n: int) -> None:
    drawn = augment.draw(seed, epoch, n)
    assert drawn.shape == (n, len(augment.COLUMNS))
    assert drawn.dtype == np.float32
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert np.array_equal(drawn, augment.draw(seed, epoch, n))
    assert not np.array_equal(drawn, augment.draw(seed, epoch + 1, n))


@pytest.mark.parametrize("given_numbers", [True, False])
def test_without_augmentation_it_is_torchvisions_normalisation(given_numbers: bool) -> None:
    batch = images(4)
    spec = STILL if given_numbers else AugmentSpec(jitter=0.4, stain=0.2)  # in evaluation nothing is drawn
    out = augment.to_input(batch, numbers(0, 4) if given_numbers else None, spec, MEAN, STD)
    expected = functional.normalize(batch.float() / 255, MEAN.flatten().tolist(), STD.flatten().tolist())
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_jitter_is_brightness_then_contrast_then_saturation() -> None:
    """Compared with torchvision's functions, in the middle of the range, where none of them clips."""
    batch, drawn = images(5, low=102, high=153), numbers(5, 5)
    out = augment.to_input(batch, drawn, AugmentSpec(jitter=0.2), *PLAIN)
    for one, image, factors in zip(out, batch.float() / 255, 1 + 0.2 * (2 * drawn[:, :3] - 1), strict=True):
        b, c, s = factors.tolist()
        bright = functional.adjust_brightness(image, b)
        mean = bright.mean()
        contrasted = mean + (bright - mean) * c  # torchvision takes the mean of the grey image here
        torch.testing.assert_close(one, functional.adjust_saturation(contrasted, s), atol=1e-3, rtol=0)


def test_stain_jitter_changes_the_concentrations_of_ruifroks_stains() -> None:
    """Compared with the deconvolution in numpy: unmix, change the concentration of each stain, mix."""
    batch, drawn, strength = images(6, low=20), numbers(6, 6), 0.1
    out = augment.to_input(batch, drawn, AugmentSpec(jitter=0, stain=strength), *PLAIN)
    # Haematoxylin, eosin, DAB.
    colours = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    for one, image, row in zip(out, batch, drawn.double().numpy(), strict=True):
        gain, shift = 1 + strength * (2 * row[3:6] - 1), strength * (2 * row[6:9] - 1)
        density = -np.log(image.permute(1, 2, 0).double().numpy() / 255)
        stained = (density @ np.linalg.inv(colours) * gain + shift) @ colours
        np.testing.assert_allclose(one.permute(1, 2, 0).numpy(), np.minimum(np.exp(-stained), 1), atol=1e-4)


@pytest.mark.parametrize(
    "spec", [AugmentSpec(jitter=1), AugmentSpec(jitter=0, stain=1), AugmentSpec(jitter=1, stain=1)]
)
def test_the_strongest_augmentation_keeps_the_range_of_colours(spec: AugmentSpec) -> None:
    batch = torch.cat(
        [
            images(20),
            torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
            torch.full((1, 3, 16, 16), 255).to(torch.uint8),
        ]
    )
    out = augment.to_input(batch, numbers(3, len(batch)), spec, *PLAIN)
    assert not torch.allclose(out, batch / 255, atol=0.05)
    assert torch.isfinite(out).all()
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize(
    "spec", [AugmentSpec(), AugmentSpec(jitter=0, stain=0.3), AugmentSpec(jitter=0.5, stain=0.3)]
)
def test_the_augmentation_of_a_sample_does_not_depend_on_its_batch(spec: AugmentSpec) -> None:
    batch, drawn = images(6), numbers(4, 6)
    together = augment.to_input(batch, drawn, spec, MEAN, STD)
    alone = torch.cat(
        [augment.to_input(batch[i : i + 1], drawn[i : i + 1], spec, MEAN, STD) for i in range(6)]
    )
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
