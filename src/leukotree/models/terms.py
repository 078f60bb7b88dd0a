"""What a loss adds up: its decisions, and how much each log p(child | parent) counts for an image.

Every loss but `focal` is a weighted sum of -log p(child | parent). `focal` has the same decisions, class
weights and denominators. So two kinds of loss with equal keys differ in nothing but the kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leukotree.errors import InputError
from leukotree.models import weighting
from leukotree.models.stages import Stage
from leukotree.spec import OF_LEAVES, LossSpec, RunSpec
from leukotree.taxonomy import Taxonomy


@dataclass(frozen=True)
class Decisions:
    """The D decisions of a loss. Their C children, side by side, are its columns."""

    children: dict[str, tuple[str, ...]]
    """Decision -> its children."""
    targets: np.ndarray
    """(L, D) int64: the child on a leaf's path, or -1 where the leaf is not below the decision."""
    levels: tuple[int, ...]
    """(D,) level of each decision, from 1."""
    in_tree: bool = True
    """Whether they are decisions of the label tree. The choice between all leaves is none."""

    @classmethod
    def of(cls, stage: Stage, taxonomy: Taxonomy, spec: RunSpec) -> Decisions:
        """The heads of the stage. `flat` and the members of `ensemble` have one head. Only its focal loss
        takes the leaves as one decision. All other losses take the decisions of the tree."""
        if spec.variant not in OF_LEAVES or spec.loss.kind == "focal":
            return cls(
                stage.heads, stage.targets, tuple(stage.levels.values()), spec.variant not in OF_LEAVES
            )
        return cls(taxonomy.decisions, taxonomy.choices, tuple(taxonomy.decision_levels.values()))

    @property
    def owner(self) -> np.ndarray:
        """(C,) int64: the decision of each column."""
        return np.repeat(np.arange(len(self.children)), [len(below) for below in self.children.values()])

    @property
    def columns(self) -> tuple[str, ...]:
        """The C children."""
        return tuple(child for below in self.children.values() for child in below)

    @property
    def on_path(self) -> np.ndarray:
        """(L, C) bool: whether a column is on the path of a leaf."""
        places = [np.arange(len(below)) for below in self.children.values()]
        parts = [target[:, None] == place[None] for target, place in zip(self.targets.T, places, strict=True)]
        return np.concatenate(parts, axis=1)

    def class_weights(self, leaf_counts: np.ndarray, tau: float) -> np.ndarray:
        """(C,) class weight alpha of each child among the children of its decision.

        leaf_counts: (L,) training images of each leaf. Raises InputError for a child without any.
        """
        weights = []
        for target, (decision, below) in zip(self.targets.T, self.children.items(), strict=True):
            counts = np.bincount(target[target >= 0], weights=leaf_counts[target >= 0], minlength=len(below))
            if not counts.all():
                raise InputError(
                    f"no training image of {below[int(np.argmin(counts))]!r} for the decision {decision!r}; "
                    "use fewer folds"
                )
            weights.append(weighting.class_weights(counts, tau))
        return np.concatenate(weights)

    def height_weights(self, taxonomy: Taxonomy, loss: LossSpec) -> np.ndarray:
        """(D,) weight of each decision: with weighting `hxe` exp(-alpha (height - 1)), else 1.

        The height of a decision is the number of edges to the deepest leaf below it. In a tree whose leaves
        have one depth, height - 1 is the height of each child, and the weights are those of Bertinetto et al.
        2020 (hierarchical cross-entropy), not normalised. In other trees theirs differ between the children
        of a decision. The model would then learn p(child | parent) times the weight of the child.
        """
        if loss.weighting != "hxe" or not self.in_tree:
            return np.ones(len(self.children))
        heights = np.array([taxonomy.heights[decision] for decision in self.children])
        return np.exp(-loss.hxe_alpha * (heights - 1.0))

    def denominators(self, stage: Stage, taxonomy: Taxonomy, loss: LossSpec) -> np.ndarray:
        """(L, D): how much an image of a leaf counts in the number that the loss of a decision is divided by.

        With `all` each image counts that the stage trains on. With `defined` those below the decision; for
        `soft` the share of the image's target that lies below it.
        """
        if loss.normalisation == "all":
            return np.repeat(stage.trains_on[:, None], len(self.children), axis=1)
        if loss.kind == "soft":
            return weighting.soft_targets(taxonomy.lca_heights, loss.beta) @ (self.targets >= 0)
        return self.targets >= 0


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
    return tuple(sorted(set(Decisions.of(stage, taxonomy, spec).levels)))


def check(stage: Stage, taxonomy: Taxonomy, spec: RunSpec, leaf_counts: np.ndarray) -> None:
    """Raises InputError for a class of a decision without a training image, and for a wrong number of level
    weights. `leaf_counts`: (L,) training images of each leaf that the stage trains on."""
    level_weights(spec, levels(stage, taxonomy, spec))
    Decisions.of(stage, taxonomy, spec).class_weights(leaf_counts, spec.loss.tau)


def level_weights(spec: RunSpec, levels: tuple[int, ...]) -> np.ndarray:
    """(G,) `loss.level_weights`. Raises InputError where they are not one per level."""
    weights = spec.loss.level_weights
    if weights is not None and len(weights) != len(levels):
        raise InputError(
            f"loss.level_weights: {len(weights)} numbers, but {spec.loss.kind} of {spec.variant} "
            f"has {len(levels)} levels here"
        )
    return np.ones(len(levels)) if weights is None else np.array(weights)


def terms(
    decisions: Decisions, taxonomy: Taxonomy, loss: LossSpec, levels: tuple[int, ...], alpha: np.ndarray
) -> np.ndarray:
    """(G, L, C): how much -log p of column c counts in level g's loss of an image of leaf l.

    alpha: (C,) class weights. In every kind they multiply -log p(child | parent) of their child.
    """
    on_path = decisions.on_path
    if loss.kind == "soft":
        return (weighting.soft_targets(taxonomy.lca_heights, loss.beta) @ on_path * alpha)[None]
    if loss.kind == "marginal":
        # -log P(node) is the sum of -log p(child | parent) along the path down to the node.
        depths = [len(taxonomy.path(child)) for child in decisions.columns]
        above = np.less_equal.outer(depths, levels).T
        return above[:, None, :] * on_path * alpha * _cut_weights(taxonomy, loss, levels)[:, None, None]
    at_level = np.equal.outer(levels, np.array(decisions.levels)[decisions.owner])
    weights = decisions.height_weights(taxonomy, loss)[decisions.owner]
    return at_level[:, None, :] * on_path * alpha * weights


def _cut_weights(taxonomy: Taxonomy, loss: LossSpec, levels: tuple[int, ...]) -> np.ndarray:
    """(G,) weight of each depth of `marginal`: with weighting `hxe` exp(-alpha height), else 1.

    The height of a depth is that of its highest node. One weight for all nodes of a depth, as for all
    children of a decision: see `Decisions.height_weights`.
    """
    if loss.weighting != "hxe":
        return np.ones(len(levels))
    heights = np.array([max(taxonomy.heights[node] for node in taxonomy.cuts[depth - 1]) for depth in levels])
    return np.exp(-loss.hxe_alpha * heights)
