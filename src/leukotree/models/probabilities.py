"""Log-probabilities on the tree: log p(child | parent) for each edge, from the logits of any variant."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from leukotree.spec import OF_LEAVES, Variant
from leukotree.taxonomy import Taxonomy


def edge_log_probabilities(
    variant: Variant, taxonomy: Taxonomy, logits: Sequence[torch.Tensor]
) -> torch.Tensor:
    """(B, E) log p(child | parent) in the order of `taxonomy.edges`, from the logits (B, K) of each stage.

    `flat` marginalises: P(node) is the sum over its leaves, and the conditional is P(child) / P(parent). An
    only child has conditional probability 1. `ensemble` does so with the mean of its members' P(leaf).
    """
    if variant in OF_LEAVES:
        members = torch.stack([part.float().log_softmax(dim=1) for part in logits])
        leaf = members.logsumexp(dim=0) - math.log(len(members)) if len(members) > 1 else members[0]
        tables = (taxonomy.leaves_below, leaves_of_parents(taxonomy))
        return leaf_conditionals(leaf, *(torch.from_numpy(table).to(leaf.device) for table in tables))
    columns = [taxonomy.edges.index(child) for children in taxonomy.decisions.values() for child in children]
    joined = torch.cat([part.float() for part in logits], dim=1)
    edges = joined.new_zeros(len(joined), len(taxonomy.edges))
    widths = [len(children) for children in taxonomy.decisions.values()]
    edges[:, columns] = conditionals(joined, widths)
    return edges


def conditionals(logits: torch.Tensor, widths: Sequence[int]) -> torch.Tensor:
    """(B, K) log p(child | parent) from the (B, K) logits of the decisions side by side.

    widths: children of each decision; a log-softmax over each.
    """
    return torch.cat([part.log_softmax(dim=1) for part in logits.split(list(widths), dim=1)], dim=1)


def marginals(leaf: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """(B, N) log P(node) from (B, L) log p(leaf): the sum over a node's leaves.

    below: (N, L) bool, whether a leaf lies below a node.
    """
    return leaf[:, None, :].masked_fill(~below, -torch.inf).logsumexp(dim=2)


def leaf_conditionals(leaf: torch.Tensor, below: torch.Tensor, above: torch.Tensor) -> torch.Tensor:
    """(B, E) log p(child | parent) = log P(child) / P(parent) from (B, L) log p(leaf); 0 for an only child.

    below, above: (E, L) bool, the leaves below each edge's child and below its parent
        (`Taxonomy.leaves_below`, `leaves_of_parents`).
    """
    return (marginals(leaf, below) - marginals(leaf, above)).clamp(max=0)


def leaves_of_parents(taxonomy: Taxonomy) -> np.ndarray:
    """(E, L) bool: whether a leaf lies below the parent of an edge's child."""
    below = {
        **dict(zip(taxonomy.edges, taxonomy.leaves_below, strict=True)),
        taxonomy.root: np.ones(len(taxonomy.leaves), bool),
    }
    return np.stack([below[taxonomy.parent_of[edge]] for edge in taxonomy.edges])
