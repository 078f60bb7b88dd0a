"""The models of a run: what each one decides, and which leaves give it a loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from leukotree.spec import PLAIN, Variant
from leukotree.taxonomy import Taxonomy

LEAVES = "leaves"
"""Name of the one head of `flat`, `logistic` and `neighbours`."""


@dataclass(frozen=True)
class Stage:
    """One model of a run: `base` and `ensemble` have one per decision, the others have one."""

    name: str
    heads: dict[str, tuple[str, ...]]
    """Head -> its classes, one softmax each. A head stands after the heads above it."""
    targets: np.ndarray
    """(L, heads) int64: the class of a leaf at each head, or -1 where the head is not defined for the
    leaf."""
    member: int = 1
    """Number of the model among those of an ensemble, from 1."""
    decision: str | None = None
    """`ensemble`: the decision whose model in `base` has as many steps."""

    @property
    def trains_on(self) -> np.ndarray:
        """(L,) bool: the leaves that give this stage a loss."""
        return np.any(self.targets >= 0, axis=1)

    @cached_property
    def above(self) -> dict[str, str | None]:
        """Head -> the nearest head above it in the tree, or None.

        A head above is defined for all leaves of the head and for more. The last one of those is the nearest.
        """
        defined = (self.targets >= 0).T
        nearest: dict[str, str | None] = {}
        for head, leaves in zip(self.heads, defined, strict=True):
            larger = [
                name
                for name, other in zip(nearest, defined, strict=False)
                if other[leaves].all() and not leaves[other].all()
            ]
            nearest[head] = larger[-1] if larger else None
        return nearest

    @cached_property
    def levels(self) -> dict[str, int]:
        """Head -> its level: 1 for a head with none above it, else one more than the head above."""
        levels: dict[str, int] = {}
        for head, above in self.above.items():
            levels[head] = 1 if above is None else 1 + levels[above]
        return levels


def stages(variant: Variant, taxonomy: Taxonomy) -> list[Stage]:
    """The models that a variant trains on a (pruned) taxonomy."""
    flat = Stage(LEAVES, {LEAVES: taxonomy.leaves}, np.arange(len(taxonomy.leaves))[:, None])
    if variant == "flat" or variant in PLAIN:
        return [flat]
    if variant == "multilabel":
        return [Stage("tree", dict(taxonomy.decisions), taxonomy.choices)]
    if variant == "ensemble":
        return [
            replace(flat, name=f"member {number}", member=number, decision=decision)
            for number, decision in enumerate(taxonomy.decisions, 1)
        ]
    return [
        Stage(decision, {decision: children}, taxonomy.choices[:, [column]])
        for column, (decision, children) in enumerate(taxonomy.decisions.items())
    ]
