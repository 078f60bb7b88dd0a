"""The losses that a stage minimises, one per level."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from leukotree.models import losses, probabilities
from leukotree.models.stages import Stage
from leukotree.models.terms import Decisions, level_weights, levels, terms
from leukotree.spec import OF_LEAVES, RunSpec
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
    owner: torch.Tensor
    below: torch.Tensor
    above: torch.Tensor

    def __init__(self, stage: Stage, taxonomy: Taxonomy, spec: RunSpec, leaf_counts: np.ndarray) -> None:
        """leaf_counts: (L,) training images of each leaf that the stage trains on.

        Raises InputError for a class of a decision without a training image, and for a wrong number of level
        weights.
        """
        super().__init__()
        self.kind, self.gamma, self.flat = spec.loss.kind, spec.loss.gamma, spec.variant in OF_LEAVES
        self.widths = [len(classes) for classes in stage.heads.values()]
        self.head_levels = tuple(stage.levels.values())
        """The level of each head."""
        self.levels = levels(stage, taxonomy, spec)
        """The G levels, from 1."""
        decisions, weights = Decisions.of(stage, taxonomy, spec), level_weights(spec, self.levels)
        alpha = decisions.class_weights(leaf_counts, spec.loss.tau)
        if self.kind == "focal":
            heights = decisions.height_weights(taxonomy, spec.loss)
            of_decision = heights * weights[np.subtract(decisions.levels, 1)]
            self._keep("alpha", (alpha * of_decision[decisions.owner]).astype(np.float32))
            self._keep("targets", decisions.targets)
        else:
            table = terms(decisions, taxonomy, spec.loss, self.levels, alpha)
            self._keep("terms", (table * weights[:, None, None]).astype(np.float32))
            self._keep("owner", decisions.owner)
        denominators = decisions.denominators(stage, taxonomy, spec.loss)
        self._keep("defined", denominators.astype(np.float32) if self.kind == "soft" else denominators)
        if self.flat and self.kind != "focal":
            columns = [taxonomy.edges.index(child) for child in decisions.columns]
            self._keep("below", taxonomy.leaves_below[columns])
            self._keep("above", probabilities.leaves_of_parents(taxonomy)[columns])

    def _keep(self, name: str, table: np.ndarray) -> None:
        """Store a table as a buffer, which `to` moves to the device."""
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(table)), persistent=False)

    @property
    def alphas(self) -> tuple[torch.Tensor, ...]:
        """`focal`: the class weights of each head."""
        return self.alpha.split(self.widths)

    def counts(self, leaves: torch.Tensor) -> torch.Tensor:
        """(D,) the denominators of the decisions' losses, for `forward`, from the (n,) leaves of the *global*
        batch."""
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
            log_p = self._log_probabilities(logits)
            values = losses.path_loss(log_p, self.terms, leaves, counts[self.owner])
        return values if log_variance is None else losses.uncertainty(values, log_variance, share)

    def _focal(self, logits: torch.Tensor, leaves: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        heads = losses.head_focal(logits, self.targets[leaves], self.widths, counts, self.gamma, self.alphas)
        split = [
            [loss for loss, own in zip(heads, self.head_levels, strict=True) if own == level]
            for level in self.levels
        ]
        return torch.stack([sum(rest, first) for first, *rest in split])

    def _log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, C) log p(child | parent) of the children of the decisions, side by side."""
        if not self.flat:
            return probabilities.conditionals(logits, self.widths)
        return probabilities.leaf_conditionals(logits.log_softmax(dim=1), self.below, self.above)
