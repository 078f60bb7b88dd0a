"""What a run leaves on the disk, known before it starts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from leukotree.data.dataset import Dataset
from leukotree.models.classifier import build
from leukotree.models.stages import stages
from leukotree.spec import RunSpec

KEPT = 2
"""Checkpoints of a run under way."""
STATES = 3
"""Tensors of a parameter's size in a checkpoint: the weight and AdamW's two moments."""
WORD = 4
"""Bytes of a number: weights and moments are kept in fp32."""
FILES = 25
"""Files and folders of a run at most: its own and those of its checkpoints, one being written."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of one run's folder."""

    parameters: int
    """Of all its models."""
    working: int
    """At most, while it trains: the checkpoints that are kept and the one that is being written."""
    final: int
    """Once it is done: the weights of an outer fold, and the predictions."""


def footprint(spec: RunSpec, dataset: Dataset) -> Footprint:
    """Of one spec on its data set. Nothing is allocated or loaded. Raises InputError as `model.build`
    does."""
    bare = spec.override({"backbone.weights": None})
    with torch.device("meta"):
        models = [build(bare, stage, dataset.size) for stage in stages(spec.variant, dataset.taxonomy)]
    parameters = sum(tensor.numel() for built in models for tensor in built.parameters())
    predictions = len(dataset) * (64 + 8 * len(dataset.taxonomy.edges))
    weights = parameters * WORD if spec.data.inner is None else 0
    return Footprint(parameters, (KEPT + 1) * STATES * WORD * parameters + predictions, weights + predictions)
