"""The compute of a run, known before it starts: models, steps, parameters and FLOPs."""

from __future__ import annotations

from collections.abc import Sequence

from leukotree.data import folds
from leukotree.data.dataset import Dataset
from leukotree.models.classifier import build_empty, n_parameters
from leukotree.models.stages import stages
from leukotree.records.compute import Compute
from leukotree.spec import RunSpec
from leukotree.training import throughput
from leukotree.training.plan import StagePlan, plan_stage


def compute(spec: RunSpec, dataset: Dataset) -> Compute:
    """The compute of a spec on its data set. Nothing is allocated or loaded. Raises InputError as
    `plan_stage` and `classifier.build`."""
    rows, _ = folds.split(dataset.index, spec.data)
    parts = [plan_stage(spec, stage, rows, dataset) for stage in stages(spec.variant, dataset.taxonomy)]
    return of_stages(spec, parts, dataset.size)


def of_stages(spec: RunSpec, parts: Sequence[StagePlan], size: int) -> Compute:
    """The compute of the models of a run, for images of size x size pixels.

    A training step costs `throughput.STEP` forward passes of each image, also where an isolation needs more.
    """
    models = build_empty(spec, [(part.stage, part.objective.levels) for part in parts], size)
    steps = [part.steps_before(spec.optim.epochs, spec.optim) for part in parts]
    forward = [throughput.of_model(model, spec, size) for model in models]
    counted = [flops for flops in forward if flops is not None]
    known = len(counted) == len(forward)
    images = [count * spec.optim.batch_size for count in steps]
    training = sum(throughput.STEP * n * flops for n, flops in zip(images, counted, strict=False))
    return Compute(
        models=len(models),
        steps=sum(steps),
        parameters=n_parameters(models),
        image_flops=sum(counted) if known else None,
        training_flops=training if known else None,
    )
