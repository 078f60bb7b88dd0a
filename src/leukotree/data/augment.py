"""From uint8 images to the model's input on its device: stain and colour jitter, then normalisation.

The random numbers of a sample are a function of (seed, epoch, its image). They are drawn as one table per
epoch, so they do not depend on ranks, workers or micro batches. Crops, flips and turns come
before, in `geometry`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from leukotree import seeds
from leukotree.spec import AugmentSpec

_CAMERA = ("brightness", "contrast", "saturation")
_STAINS = ("haematoxylin", "eosin", "residual")
COLUMNS = (*_CAMERA, *(f"{stain} gain" for stain in _STAINS), *(f"{stain} shift" for stain in _STAINS))
LUMA = (0.299, 0.587, 0.114)
STAIN_COLOURS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical density of haematoxylin, eosin and a third stain in R, G, B (Ruifrok and Johnston 2001)."""
WHITE = 255.0
_CHUNK = 2**18
"""Values that a CPU computes at once: 1 MB of float32, which fits into its cache."""


def draw(seed: int, epoch: int, samples: int, *block: int) -> np.ndarray:
    """Return the table of one epoch, or of one block of it: (samples, 9) float32, uniform in [0, 1), with the
    columns COLUMNS."""
    return seeds.generator(seed, "augment", epoch, *block).random((samples, len(COLUMNS)), dtype=np.float32)


def to_input(
    images: torch.Tensor,
    numbers: torch.Tensor | None,
    spec: AugmentSpec,
    mean: torch.Tensor,
    std: torch.Tensor,
) -> torch.Tensor:
    """Return the model's input for a batch: (B, 3, H, W) float32, channels last in memory.

    All arguments are on the same device.

    Args:
        images: (B, 3, H, W) uint8.
        numbers: (B, 9) rows of `draw`; None for no augmentation.
        spec: strengths of the augmentation.
        mean, std: (1, 3, 1, 1), for images in [0, 1].
    """
    out = torch.empty(images.shape, device=images.device, memory_format=torch.channels_last)
    # On a CPU a few images at a time, so that intermediate results stay in its cache.
    step = len(images) if images.is_cuda else max(1, _CHUNK // images[0].numel()) if len(images) else 1
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        augmented = _augmented(images[part], None if numbers is None else numbers[part], spec)
        _normalise(augmented, mean, std, out[part])
    return out


def _augmented(images: torch.Tensor, numbers: torch.Tensor | None, spec: AugmentSpec) -> torch.Tensor:
    """Return the augmented images, (B, 3, H, W) float32 in [0, 255].

    After a mixture of colours, which is a sum of whole planes, the result is stored plane by plane.
    """
    if numbers is None or not (spec.stain or spec.jitter):
        return images.float()
    pixels = images.to(torch.float32, memory_format=torch.contiguous_format)
    if spec.stain:
        pixels = _stain(pixels, numbers, spec.stain)
    return _jitter(pixels, numbers, spec.jitter) if spec.jitter else pixels


def _normalise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, out: torch.Tensor) -> None:
    """Write the normalised pixels into `out`, channels last in memory."""
    scale, shift = 1 / (WHITE * std), -mean / std
    if pixels.is_contiguous(memory_format=torch.channels_last):
        # Vector code runs along the last dimension, so make that a whole row of pixels (RGBRGB...), not 3.
        width = pixels.shape[3]
        scale, shift = (value.flatten().repeat(width) for value in (scale, shift))
        pixels, out = (value.permute(0, 2, 3, 1).flatten(2) for value in (pixels, out))
    torch.addcmul(shift, pixels, scale, out=out)


def _stain(pixels: torch.Tensor, numbers: torch.Tensor, strength: float) -> torch.Tensor:
    """Return the images with changed amounts of each stain (Tellez et al. 2018 and 2019).

    The concentrations c become gain * c + shift, with one gain and one shift per image and stain. The gain
    lies in 1 +- strength, the shift within +- strength of optical density. Optical densities mix linearly:
    c = od M^-1, with the colours M of the stains as rows. So the change is one 3x3 map of optical densities.
    """
    # Two groups of three columns, in [-strength, strength).
    gain, shift = (strength * (2 * numbers[:, 3:9] - 1)).unflatten(1, (2, 3)).unbind(1)
    colours, unmixing = _constant(STAIN_COLOURS, pixels.device), _unmixing(pixels.device)
    mixing = unmixing @ ((1 + gain)[:, :, None] * colours)
    # The logarithm is -od. Black, which has none, counts as half of the darkest grey.
    logs = pixels.clamp(min=0.5).div_(WHITE).log_()
    return _mix(logs, mixing.transpose(1, 2), -(shift @ colours)).exp_().mul_(WHITE).clamp_(max=WHITE)


def _jitter(pixels: torch.Tensor, numbers: torch.Tensor, strength: float) -> torch.Tensor:
    """Return the images with changed brightness b, contrast c and saturation s, in this order.

    Each factor lies in 1 +- strength. Together they are scb x + (1 - s)cb grey(x) + (1 - c)b mean(x), which
    is one map of the colours.
    """
    b, c, s = (1 + strength * (2 * numbers[:, :3] - 1)).unbind(1)
    own, grey = s * c * b, (1 - s) * c * b
    mixing = grey[:, None, None] * _constant(LUMA, pixels.device) + torch.diag_embed(
        own[:, None].expand(-1, 3)
    )
    return _mix(pixels, mixing, ((1 - c) * b * pixels.mean(dim=(1, 2, 3)))[:, None]).clamp_(0, WHITE)


def _mix(pixels: torch.Tensor, mixing: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Return mixing @ x + offset for each pixel x, (B, 3, H, W).

    Args:
        pixels: (B, 3, H, W).
        mixing: (B, 3, 3).
        offset: (B, 3) or (B, 1).
    """
    # Sums of planes instead of a batched product, in which a GPU would round the factors. The bits would then
    # also depend on the size of the batch.
    red, green, blue = mixing[:, :, :, None, None].unbind(2)
    mixed = torch.addcmul(offset[:, :, None, None], pixels[:, 0:1], red)
    return mixed.addcmul_(pixels[:, 1:2], green).addcmul_(pixels[:, 2:3], blue)


@lru_cache
def _constant(values: tuple[object, ...], device: torch.device) -> torch.Tensor:
    """Return the values on a device. Cached, since each copy from the host waits for the device."""
    return torch.tensor(values, device=device)


@lru_cache
def _unmixing(device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.linalg.inv(STAIN_COLOURS)).float().to(device)
