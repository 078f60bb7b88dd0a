"""Models as pytorch-grad-cam needs them: one tensor for a batch, and one target for each map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import nn

from leukotree.models.classifier import Classifier, all_logits
from leukotree.models.probabilities import (
    conditionals,
    edge_log_probabilities,
    leaf_conditionals,
    leaves_of_parents,
    marginals,
)
from leukotree.models.stages import Stage
from leukotree.spec import OF_LEAVES, Variant
from leukotree.taxonomy import Taxonomy


class Outputs(nn.Module):
    """One model of a run: (B, 3, H, W) inputs -> (B, 2 E) float32, the conditional logits of the E edges,
    then their log p(child | parent). Both are 0 for edges that the model does not decide.

    The softmax of the conditional logits of a decision's children is p(child | parent). For a model of leaves
    a conditional logit is the log-sum-exp of the logits of the leaves below the child.

    A gradient follows every connection (`Wiring.open`), also those that `loss.isolation` cuts in training.
    """

    below: torch.Tensor
    above: torch.Tensor
    columns: torch.Tensor

    def __init__(self, variant: Variant, taxonomy: Taxonomy, stage: Stage, model: Classifier) -> None:
        super().__init__()
        self.model, self._wiring = model, model.wiring.open
        self._of_leaves, self._edges = variant in OF_LEAVES, len(taxonomy.edges)
        self._widths = [len(children) for children in stage.heads.values()]
        columns = [
            taxonomy.edges.index(child)
            for children in ([] if self._of_leaves else stage.heads.values())
            for child in children
        ]
        device = next(model.parameters()).device
        for name, value in (
            ("below", torch.from_numpy(taxonomy.leaves_below)),
            ("above", torch.from_numpy(leaves_of_parents(taxonomy))),
            ("columns", torch.tensor(columns, dtype=torch.long)),
        ):
            self.register_buffer(name, value.to(device))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        model = self.model
        logits = self._wiring.logits(model.backbone(inputs), model.branches, model.heads).float()
        if self._of_leaves:
            of_nodes = marginals(logits, self.below)
            return torch.cat([of_nodes, leaf_conditionals(logits.log_softmax(1), self.below, self.above)], 1)
        empty = logits.new_zeros(len(logits), self._edges)
        logp = conditionals(logits, self._widths)
        return torch.cat([empty.index_copy(1, self.columns, part) for part in (logits, logp)], 1)


class Whole(nn.Module):
    """All models of a run: (B, 3, H, W) inputs -> (B, E) float32 log p(child | parent)."""

    def __init__(self, variant: Variant, taxonomy: Taxonomy, models: Sequence[Classifier]) -> None:
        super().__init__()
        self._variant, self._taxonomy = variant, taxonomy
        self.models = nn.ModuleList(models)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = all_logits(cast(Iterable[Classifier], self.models), inputs)
        return edge_log_probabilities(self._variant, self._taxonomy, logits)


class Weighted:
    """A target of `Outputs`: the sum of some of its columns."""

    def __init__(self, columns: Sequence[int]) -> None:
        self.columns = list(columns)

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        return row[..., self.columns].sum(dim=-1)


class Probability:
    """A target of `Whole`: the probability of some edges together, such as a path."""

    def __init__(self, edges: Sequence[int]) -> None:
        self.edges = list(edges)

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        return row[..., self.edges].sum(dim=-1).exp()
