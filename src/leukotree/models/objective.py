"""The losses that a stage minimises, one per level."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from leukotree.errors import InputError
from leukotree.models import losses, probabilities
from leukotree.models.stages import Stage
from leukotree.spec import OF_LEAVES, LossSpec, RunSpec
from leukotree.taxonomy import Taxonomy


class Objective(nn.Module):
    """The losses of a stage: (B, K) logits of a micro batch -> (G,) weighted losses of the levels.

    Their sum over levels, micro batches and ranks is the loss of the global batch. With the kinds `focal` and
    `conditional` of `multilabel` a level's loss has a gradient only on the logits of its own heads. Nothing
    here waits for the device.
    """

    targets: torch.Tensor
    defined: torch.Tensor
    alpha: torch.Tensor
    terms: torch.Tensor
    below: torch.Tensor
    above: torch.Tensor

    def __init__(self, stage: Stage, taxonomy: Taxonomy, spec: RunSpec, leaf_counts: np.ndarray) -> None:
        """leaf_counts: (L,) training images of each leaf that the stage trains on.

        Raises InputError for a class of a head without a training image, and for a wrong number of level
        weights.
        """
        super().__init__()
        self.kind, self.gamma, self.flat = spec.loss.kind, spec.loss.gamma, spec.variant in OF_LEAVES
        self.widths = [len(classes) for classes in stage.heads.values()]
        self.head_levels = tuple(stage.levels.values())
        """The level of each head."""
        self.levels = levels(stage, taxonomy, spec)
        """The G levels, from 1."""
        counts = _class_counts(stage, leaf_counts)
        weights = _level_weights(spec, self.levels)
        if self.kind == "focal":
            defined = stage.targets >= 0
            alpha = _alpha(stage, taxonomy, spec.loss, counts, weights[np.subtract(self.head_levels, 1)])
            self._keep("alpha", alpha.astype(np.float32))
            self._keep("targets", stage.targets)
        else:
            defined = stage.trains_on[:, None]
            terms = _terms(stage, taxonomy, spec, self.levels)
            self._keep("terms", (terms * weights[:, None, None]).astype(np.float32))
        self._keep("defined", defined)
        if self.flat:
            self._keep("below", taxonomy.leaves_below)
            self._keep("above", probabilities.leaves_of_parents(taxonomy))

    def _keep(self, name: str, table: np.ndarray) -> None:
        """Store a table as a buffer, which `to` moves to the device."""
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(table)), persistent=False)

    @property
    def alphas(self) -> tuple[torch.Tensor, ...]:
        """`focal`: the class weights of each head."""
        return self.alpha.split(self.widths)

    def counts(self, leaves: torch.Tensor) -> torch.Tensor:
        """The denominators of the losses, for `forward`, from the (n,) leaves of the *global* batch."""
        return self.defined[leaves].sum(dim=0)

    def forward(
        self,
        logits: torch.Tensor,
        leaves: torch.Tensor,
        counts: torch.Tensor,
        log_variance: torch.Tensor | None = None,
        share: float = 1.0,
    ) -> torch.Tensor:
        """The (G,) losses of a micro batch.

        Args:
            logits: (B, K), the heads side by side.
            leaves: (B,) index of each image's leaf.
            counts: `counts` of the global batch.
            log_variance: (G,) learned, for weighting `uncertainty`; else None.
            share: the part of the global batch's images that this micro batch has.
        """
        if self.kind == "focal":
            values = self._focal(logits, leaves, counts)
        else:
            values = losses.path_loss(self._log_probabilities(logits), self.terms, leaves, counts)
        return values if log_variance is None else losses.uncertainty(values, log_variance, share)

    def _focal(self, logits: torch.Tensor, leaves: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        heads = losses.head_focal(logits, self.targets[leaves], self.widths, counts, self.gamma, self.alphas)
        split = [
            [loss for loss, own in zip(heads, self.head_levels, strict=True) if own == level]
            for level in self.levels
        ]
        return torch.stack([sum(rest, first) for first, *rest in split])

    def _log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, C) log-probabilities of the columns of `terms` (see `_terms`)."""
        if not self.flat:
            return probabilities.conditionals(logits, self.widths)
        leaf = logits.log_softmax(dim=1)
        if self.kind == "soft":
            return leaf
        if self.kind == "marginal":
            return probabilities.marginals(leaf, self.below)
        return probabilities.leaf_conditionals(leaf, self.below, self.above)


def levels(stage: Stage, taxonomy: Taxonomy, spec: RunSpec) -> tuple[int, ...]:
    """The levels that a stage has a loss for.

    They are the levels of its decisions; with kind `marginal` the depths at which the tree divides; with
    `soft` one.
    """
    if spec.loss.kind == "soft":
        return (1,)
    if spec.loss.kind == "marginal":
        # A depth that divides nothing, below only children, would count the depth above twice.
        new = np.diff(taxonomy.cut_of_leaf, axis=0, prepend=0).any(axis=1)
        return tuple(1 + depth for depth in np.flatnonzero(new).tolist())
    by_decision = spec.variant in OF_LEAVES and spec.loss.kind != "focal"
    return tuple(sorted(set((taxonomy.decision_levels if by_decision else stage.levels).values())))


def _class_counts(stage: Stage, leaf_counts: np.ndarray) -> list[np.ndarray]:
    """(classes,) training images of each class, for each head."""
    head_counts = []
    for column, (head, classes) in enumerate(stage.heads.items()):
        target = stage.targets[:, column]
        counts = np.bincount(target[target >= 0], weights=leaf_counts[target >= 0], minlength=len(classes))
        if not counts.all():
            raise InputError(
                f"no training image of {classes[int(np.argmin(counts))]!r} for the decision {head!r}; "
                "use fewer folds"
            )
        head_counts.append(counts)
    return head_counts


def _level_weights(spec: RunSpec, levels: tuple[int, ...]) -> np.ndarray:
    """(G,) weight of each level."""
    weights = spec.loss.level_weights
    if weights is not None and len(weights) != len(levels):
        raise InputError(
            f"loss.level_weights: {len(weights)} numbers, but {spec.loss.kind} of {spec.variant} "
            f"has {len(levels)} levels here"
        )
    return np.ones(len(levels)) if weights is None else np.array(weights)


def _alpha(
    stage: Stage, taxonomy: Taxonomy, loss: LossSpec, counts: list[np.ndarray], level_weights: np.ndarray
) -> np.ndarray:
    """(K,) weight of each class of each head, times the weight of the head's level."""
    edges = losses.edge_weights(taxonomy, loss)
    return np.concatenate(
        [
            losses.class_weights(count, loss.tau) * [edges[name] for name in classes] * weight
            for count, classes, weight in zip(counts, stage.heads.values(), level_weights, strict=True)
        ]
    )


def _terms(stage: Stage, taxonomy: Taxonomy, spec: RunSpec, levels: tuple[int, ...]) -> np.ndarray:
    """(G, L, C): how often -log p of column c counts in level g's loss of an image of leaf l.

    Columns: the children of the heads' decisions, log p(child | parent), side by side as the logits. `flat`:
    the edges, log p(child | parent) with kind `conditional` and log P(child) with `marginal`, or with `soft`
    the leaves, log p(leaf).
    """
    flat, kind = spec.variant in OF_LEAVES, spec.loss.kind
    names = taxonomy.edges if flat else [name for classes in stage.heads.values() for name in classes]
    on_path = taxonomy.path_matrix[:, [taxonomy.edges.index(name) for name in names]]
    weights = losses.edge_weights(taxonomy, spec.loss)
    if kind == "soft":
        targets = losses.soft_targets(taxonomy.lca_heights, spec.loss.beta)
        return (targets if flat else targets @ on_path)[None]
    if kind == "marginal":
        terms = np.zeros((len(levels), *on_path.shape))
        for row, depth in enumerate(levels):
            cut, places = taxonomy.cuts[depth - 1], taxonomy.cut_of_leaf[depth - 1]
            for leaf, node in enumerate(cut[place] for place in places):
                counted = {node} if flat else set(taxonomy.path(node))
                terms[row, leaf] = [weights[node] * (name in counted) for name in names]
        return terms
    if flat:  # the edge of an only child belongs to no decision: level 0
        of_column = [taxonomy.decision_levels.get(taxonomy.parent_of[name], 0) for name in names]
    else:
        of_column = [stage.levels[head] for head, classes in stage.heads.items() for _ in classes]
    at_level = np.equal.outer(levels, of_column)
    return at_level[:, None, :] * on_path * [weights[name] for name in names]
