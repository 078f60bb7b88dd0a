"""Disk space of a run, estimated before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from leukotree.data.dataset import Dataset
from leukotree.models.stages import stages
from leukotree.spec import RunSpec
from leukotree.training.questions import DIRECT, Questions

KEPT = 2
"""Checkpoints that a run keeps while it trains."""
STATES = 3
"""Tensors of a trained parameter's size in a checkpoint: the weight and AdamW's two moments. What is
frozen is not in it."""
WORD = 4
"""Bytes of a number: weights and moments are kept in fp32."""
FILES = 25
"""Most files and folders of a run: its own, and those of its checkpoints with the one being written."""


@dataclass(frozen=True)
class Footprint:
    """The size of one run's folder."""

    parameters: int
    """Number of parameters of all its models."""
    working: int
    """Most bytes while it trains: the checkpoints that are kept, and the one, or the weights at the end, that
    are being written."""
    final: int
    """Bytes when it is done: the weights of an outer fold, and the predictions."""


def footprint(spec: RunSpec, dataset: Dataset, ask: Questions = DIRECT) -> Footprint:
    """The footprint of a spec on its data set, on the tree of the run. Nothing is allocated or loaded.

    Raises InputError as `classifier.build`.
    """
    parts = [(stage, None) for stage in stages(spec.variant, dataset.taxonomy)]
    parameters, trained = ask.parameters(spec, parts, dataset.size)
    predictions = len(dataset) * (64 + 8 * len(dataset.taxonomy.edges))
    weights = parameters * WORD if spec.data.inner is None else 0
    saved = STATES * WORD * trained
    return Footprint(parameters, KEPT * saved + max(saved, weights) + predictions, weights + predictions)
