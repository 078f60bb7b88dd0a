"""Objectives in float64 on any tree, and batches for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from leukotree.models.objective import Objective
from leukotree.models.stages import Stage, stages
from leukotree.spec import RunSpec, Variant
from leukotree.taxonomy import Taxonomy


def objective(tree: Taxonomy, variant: Variant, stage: Stage | None = None, **loss: Any) -> Objective:
    """The objective of a stage (the first one by default) in float64. Leaf i has i + 1 training images."""
    spec = RunSpec().override({"variant": variant, **{f"loss.{key}": value for key, value in loss.items()}})
    stage = stages(variant, tree)[0] if stage is None else stage
    return Objective(stage, tree, spec, np.arange(1, 1 + len(tree.leaves))).double()


def draw_logits(seed: int, rows: int, columns: int, scale: float = 1.0) -> torch.Tensor:
    """(rows, columns) float64, normally distributed with this standard deviation."""
    return scale * torch.randn(
        rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def draw(
    tree: Taxonomy, variant: Variant, seed: int, rows: int = 9, scale: float = 2.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (rows, K) of the first stage and leaves (rows,)."""
    generator = torch.Generator().manual_seed(seed)
    width = sum(map(len, stages(variant, tree)[0].heads.values()))
    logits = scale * torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(len(tree.leaves), (rows,), generator=generator)


def whole(
    target: Objective, logits: torch.Tensor, leaves: torch.Tensor, variance: torch.Tensor | None = None
) -> torch.Tensor:
    """(G,) losses of a batch that is one micro batch."""
    return target(logits, leaves, target.counts(leaves), variance)


def close(actual: torch.Tensor, expected: Any) -> None:
    """To the precision of the weights, which are float32."""
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=2e-6, atol=1e-9)
