"""Numbers of maps: how well they fit the cell, what the model loses without their best places, and whether
they change where they must, or must not.

A map without any value above 0 has no place, and its numbers are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from leukotree import seeds

TOLERANCE = 0.03
"""Distance from the cell at which the pointing game still counts, as a share of the image's width. Zhang et
al. 2018 use 15 pixels in images of about 500."""
TOP = 0.2
"""Share of the pixels whose overlap with the cell is measured."""
SPREAD = 0.25
"""Standard deviation of the centre Gaussian, as a share of the image's width."""
REMOVED = (20, 50, 80)
"""Percentiles of ROAD: pixels above them are removed."""


def energy(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N,) share of each map inside the mask (Wang et al. 2020, "energy-based pointing game").

    Args: maps: (N, H, W), 0 or more. masks: (N, H, W) bool. A map that is the same everywhere has the area of
    the mask.
    """
    total = maps.sum(axis=(1, 2), dtype=np.float64)
    inside = (maps * masks).sum(axis=(1, 2), dtype=np.float64)
    return _where(_known(maps, masks), inside, total)


def pointing(maps: np.ndarray, masks: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """(N,) 1 where the largest value of a map is in the mask or near it, else 0 (Zhang et al. 2018). Of equal
    largest values it is the mean.

    Args: tolerance: largest distance to the mask, as a share of the width.
    """
    peaks = (maps == maps.max(axis=(1, 2), keepdims=True)) & _known(maps, masks)[:, None, None]
    hits = (peaks & near(masks, tolerance)).sum(axis=(1, 2))
    return _where(_known(maps, masks), hits, peaks.sum(axis=(1, 2)))


def near(masks: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """(N, H, W) bool: pixels of the mask, and those within the tolerance."""
    reach = tolerance * masks.shape[-1]
    return np.stack([_distance(mask) <= reach for mask in masks]) if len(masks) else masks


def _distance(mask: np.ndarray) -> np.ndarray:
    """(H, W) distance in pixels to the mask; infinite without one."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def overlap(maps: np.ndarray, masks: np.ndarray, top: float = TOP) -> np.ndarray:
    """(N,) intersection over union of the mask and the `top` share of the pixels with the largest values. A
    pixel of value 0 is never among them."""
    levels = np.quantile(maps, 1 - top, axis=(1, 2), keepdims=True)
    best = (maps >= levels) & (maps > 0)
    return _where(_known(maps, masks), (best & masks).sum(axis=(1, 2)), (best | masks).sum(axis=(1, 2)))


def similarity(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) Spearman's rank correlation of each map with another one, over pixels; NaN for a map without
    differences. Adebayo et al. 2018 compare maps of trained and of random weights with it."""
    from scipy.stats import rankdata

    ranks = [rankdata(part.reshape(len(part), -1), axis=1) for part in (maps, others)]
    first, second = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    spread = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    bad = np.isnan(maps).any(axis=(1, 2)) | np.isnan(others).any(axis=(1, 2))
    return _where(~bad & (spread > 0), (first * second).sum(axis=1), spread)


def centre(size: int) -> np.ndarray:
    """(size, size) float32 Gaussian in the middle of the image: a map that has not seen it."""
    steps = (np.arange(size) + 0.5) / size - 0.5
    line = np.exp(-(steps**2) / (2 * SPREAD**2))
    return np.outer(line, line).astype(np.float32)


def road(
    inputs: torch.Tensor, maps: np.ndarray, targets: Sequence[Any], model: nn.Module, seed: int
) -> np.ndarray:
    """(N,) ROAD, combined (Rong et al. 2022): the target's mean value where the least relevant pixels are
    removed, minus that where the most relevant ones are, halved. Above 0 the map finds pixels that count.

    pytorch-grad-cam fills removed pixels by noisy interpolation. Pixels of equal value are removed in a
    random order: a percentile cannot divide them.

    Args:
        inputs: (N, 3, H, W), on the device of `model`.
        targets: from a row of the model's output to the value.
        seed: of the noise and the order. The result is a function of it, of the map and of the image.
    """
    from pytorch_grad_cam.metrics.road import ROADCombined

    measure = ROADCombined(percentiles=list(REMOVED))
    values = np.full(len(maps), np.nan)
    for row in np.flatnonzero(has_place(maps)).tolist():
        order = seeds.generator(seed, "road", row).permutation(maps[row].size)
        ranks = np.empty(maps[row].size, np.float32)
        ranks[order[np.argsort(maps[row].ravel()[order], kind="stable")]] = np.linspace(0, 1, len(order))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.integer(seed, "road/noise", row))
            cams = ranks.reshape(1, *maps[row].shape)
            values[row] = float(measure(inputs[row : row + 1], cams, [targets[row]], model)[0])
    return values


def has_place(maps: np.ndarray) -> np.ndarray:
    """(N,) bool: maps with a value above 0 and no NaN."""
    return (maps.max(axis=(1, 2)) > 0) & ~np.isnan(maps).any(axis=(1, 2))


def _known(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N,) bool: maps that have a place, whose mask is not empty."""
    return has_place(maps) & masks.any(axis=(1, 2))


def _where(known: np.ndarray, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """(N,) part / whole where it is known, else NaN."""
    return np.divide(part, whole, out=np.full(len(known), np.nan), where=known & (whole > 0))
