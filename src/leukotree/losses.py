"""Focal loss, class weights, and the masked sum over a tree's decisions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from leukotree.errors import InputError


def focal(logits: torch.Tensor, target: torch.Tensor, gamma: float, alpha: torch.Tensor | None = None) -> torch.Tensor:
    """Focal loss -alpha_y (1 - p_y)^gamma log p_y of each sample (Lin et al. 2017, eq. 5, on the softmax).

    Args:
        logits: (N, K).
        target: (N,) class indices.
        gamma: focusing exponent; 0 gives cross-entropy.
        alpha: (K,) weight per class, or None for 1. A single number is refused: for more than two classes it would make
            the loss depend on the order of the classes.

    Returns: (N,) losses, not reduced.
    """
    if alpha is not None and alpha.shape != logits.shape[1:]:
        raise InputError(f"alpha needs one weight per class ({logits.shape[1]}), got shape {tuple(alpha.shape)}")
    log_p = F.log_softmax(logits, dim=1).gather(1, target[:, None]).squeeze(1)
    loss = -log_p
    if gamma:
        # The floor keeps the gradient of (1 - p)^gamma finite at p = 1 for gamma < 1.
        loss = loss * (-torch.expm1(log_p)).clamp(min=1e-12) ** gamma
    return loss if alpha is None else alpha[target] * loss


def class_weights(counts: Sequence[int] | np.ndarray, tau: float) -> np.ndarray:
    """(K,) alpha = (inverse frequency)^tau scaled to mean 1. Raises InputError for a class without training images."""
    numbers = np.asarray(counts, dtype=np.float64)
    if (numbers <= 0).any():
        raise InputError(f"class weights: a class has no training images (counts {numbers.astype(int).tolist()})")
    weights = numbers**-tau
    return weights / weights.mean()


def masked_focal(
    logits: torch.Tensor,
    targets: torch.Tensor,
    widths: Sequence[int],
    counts: torch.Tensor,
    gamma: float,
    alphas: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Sum over heads of the mean focal loss over the samples that are defined there.

    Args:
        logits: (B, sum(widths)), the heads side by side.
        targets: (B, heads) class at each head, -1 where the head is not defined for the sample; those add exactly nothing.
        widths: classes of each head.
        counts: (heads,) how many samples of the *global* batch are defined at each head: with them the ranks' and micro
            batches' losses add up to the loss of the whole batch.
        gamma, alphas: focal parameters; one (K,) alpha per head.

    Returns: scalar.
    """
    total = logits.sum() * 0.0  # keeps every parameter in the graph when no sample of this share is defined anywhere
    for column, (part, alpha) in enumerate(zip(logits.split(list(widths), dim=1), alphas, strict=True)):
        target = targets[:, column]
        defined = target >= 0
        # A mask instead of a selection: no size that the host would have to wait for.
        losses = focal(part, target.clamp(min=0), gamma, alpha)
        total = total + torch.where(defined, losses, 0.0).sum() / counts[column].clamp(min=1)
    return total
