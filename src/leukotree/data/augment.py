"""Augmentation of uint8 batches on the device of the model.

The random numbers of a sample are a function of (seed, epoch, its place in the epoch), drawn as one table per epoch:
they do not depend on ranks, workers or micro batches.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from leukotree import seeds
from leukotree.spec import AugmentSpec

COLUMNS = ("area", "ratio", "x", "y", "hflip", "vflip", "quarter", "brightness", "contrast", "saturation")
LUMA = (0.299, 0.587, 0.114)
RATIO = 4 / 3
"""Aspect ratios of the crop lie in [3/4, 4/3], log-uniform, as in torchvision's RandomResizedCrop."""


def draw(seed: int, epoch: int, samples: int) -> np.ndarray:
    """(samples, 10) float32 uniform numbers in [0, 1): the table of one epoch, a column per name in COLUMNS."""
    return seeds.generator(seed, "augment", epoch).random((samples, len(COLUMNS)), dtype=np.float32)


def apply(images: torch.Tensor, numbers: torch.Tensor, spec: AugmentSpec) -> torch.Tensor:
    """Crop, flip, turn and colour-jitter a batch.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        numbers: (B, 10) rows of `draw`, on the same device.
        spec: ranges.

    Returns: (B, 3, H, W) float in [0, 1].
    """
    if spec.flips or tuple(spec.crop_scale) != (1.0, 1.0):
        grid = F.affine_grid(_affine(numbers, spec), list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return _jitter(images, numbers, spec.jitter) if spec.jitter else images


def _affine(numbers: torch.Tensor, spec: AugmentSpec) -> torch.Tensor:
    """(B, 2, 3) maps from output to input coordinates in [-1, 1]: crop window after flips and quarter turns."""
    area, ratio, x, y, hflip, vflip, quarter = numbers[:, :7].unbind(1)
    low, high = spec.crop_scale
    area = low + (high - low) * area
    # A window of area a fits into the image for aspect ratios in [a, 1/a] only.
    room = -area.log()
    log_ratio = torch.maximum(torch.minimum((2 * ratio - 1) * math.log(RATIO), room), -room)
    width, height = (area.log() + log_ratio).div(2).exp(), (area.log() - log_ratio).div(2).exp()
    shift = torch.stack([(2 * x - 1) * (1 - width), (2 * y - 1) * (1 - height)], dim=1)
    window = torch.diag_embed(torch.stack([width, height], dim=1))
    if spec.flips:
        window = window @ _turns(hflip, vflip, quarter)
    return torch.cat([window, shift.unsqueeze(2)], dim=2)


def _turns(hflip: torch.Tensor, vflip: torch.Tensor, quarter: torch.Tensor) -> torch.Tensor:
    """(B, 2, 2) of the eight symmetries of the square, each equally likely."""
    signs = torch.stack([1 - 2 * (hflip < 0.5).to(hflip), 1 - 2 * (vflip < 0.5).to(vflip)], dim=1)
    keep = torch.eye(2, device=hflip.device)  # made on the device: a copy from the host would wait for it
    return torch.diag_embed(signs) @ torch.where((quarter < 0.5)[:, None, None], keep.flip(0), keep)


def _jitter(images: torch.Tensor, numbers: torch.Tensor, strength: float) -> torch.Tensor:
    """Brightness b, contrast c and saturation s, each times 1 +- strength, in this order.

    Applied one after another they are scb x + (1 - s)cb grey(x) + (1 - c)b mean(x): one pass over the images.
    """
    factors = 1 + strength * (2 * numbers[:, 7:10] - 1)
    b, c, s = factors[:, :, None, None, None].unbind(1)
    red, green, blue = images.split(1, dim=1)
    grey = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.addcmul(((1 - s) * c * b) * grey + ((1 - c) * b) * mean, images, s * c * b).clamp_(0, 1)
