"""Losses on a tree: focal at its decisions, cross-entropies along its paths, and their weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from leukotree.errors import InputError


def focal(
    logits: torch.Tensor, target: torch.Tensor, gamma: float, alpha: torch.Tensor | None = None
) -> torch.Tensor:
    """(N,) focal losses -alpha_y (1 - p_y)^gamma log p_y (Lin et al. 2017, eq. 5, on the softmax).

    Args:
        logits: (N, K).
        target: (N,) class indices.
        gamma: focusing exponent; 0 gives cross-entropy.
        alpha: (K,) weight per class, or None for 1.

    Raises InputError for an alpha of another shape. With more than two classes, a single number would make
    the loss depend on the order of the classes.
    """
    if alpha is not None and alpha.shape != logits.shape[1:]:
        raise InputError(
            f"alpha needs one weight per class ({logits.shape[1]}), got shape {tuple(alpha.shape)}"
        )
    log_p = F.log_softmax(logits, dim=1).gather(1, target[:, None]).squeeze(1)
    loss = -log_p
    if gamma:
        # The floor keeps the gradient of (1 - p)^gamma finite at p = 1 for gamma < 1.
        loss = loss * (-torch.expm1(log_p)).clamp(min=1e-12) ** gamma
    return loss if alpha is None else alpha[target] * loss


def head_focal(
    logits: torch.Tensor,
    targets: torch.Tensor,
    widths: Sequence[int],
    counts: torch.Tensor,
    gamma: float,
    alphas: Sequence[torch.Tensor],
) -> list[torch.Tensor]:
    """Each head's focal loss: the sum over the samples that are defined there, over its `counts`.

    Args:
        logits: (B, sum(widths)), the heads side by side.
        targets: (B, heads) class at each head; -1 where the head is not defined for the sample, which then
            adds exactly nothing.
        widths: number of classes of each head.
        counts: (heads,) samples of the *global* batch that are defined at each head. With them the losses of
            ranks and micro batches add up to the loss of the whole batch.
        gamma, alphas: focal parameters; one (K,) alpha per head.

    Returns: scalars. A head's logits are in the graph of its loss even where no sample is defined there.
    """
    means = []
    for column, (part, alpha) in enumerate(zip(logits.split(list(widths), dim=1), alphas, strict=True)):
        target = targets[:, column]
        # A mask instead of a selection, whose size the host would have to wait for.
        losses = focal(part, target.clamp(min=0), gamma, alpha)
        means.append(torch.where(target >= 0, losses, 0.0).sum() / counts[column].clamp(min=1))
    return means


def path_loss(
    log_p: torch.Tensor, terms: torch.Tensor, leaves: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """(G,) sums over columns and samples of -terms[g, leaf, c] log p_c / counts[c].

    Args:
        log_p: (B, C).
        terms: (G, L, C), not negative. Where they are 0 a log p adds exactly nothing, even if it is -inf.
        leaves: (B,) true leaves.
        counts: (C,) number of samples in the *global* batch that a column's loss is a mean over. Where it is
            below 1, it counts as 1.
    """
    weights = terms[:, leaves]
    # The mask is needed: 0 x -inf is NaN.
    sums = (torch.where(weights > 0, log_p, 0.0) * weights).sum(dim=1)
    return -(sums / counts.clamp(min=1)).sum(dim=1)


def uncertainty(losses: torch.Tensor, log_variance: torch.Tensor, share: float) -> torch.Tensor:
    """(G,) losses weighted by a learned s = log sigma^2: loss / sigma^2 + log sigma.

    Kendall et al. 2018, classification. For a loss that does not change, the minimum is at
    s = log(2 loss).

    share: the part of the global batch that the losses come from, so that parts add up.
    """
    return torch.exp(-log_variance) * losses + log_variance * (0.5 * share)
