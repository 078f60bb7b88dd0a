"""The compute of a run, known before it starts: models, steps, parameters and FLOPs."""

from __future__ import annotations

from collections.abc import Sequence

from leukotree.data import folds
from leukotree.data.dataset import Dataset
from leukotree.models.stages import stages
from leukotree.records.compute import Compute
from leukotree.spec import RunSpec
from leukotree.training.plan import StagePlan, plan_stage
from leukotree.training.questions import DIRECT, Questions

STEP = {"all": 3, "last": 3, "lora": 2, "head": 1}
"""`backbone.train` -> cost of a training step in forward passes. A backward pass costs about two: one for the
gradients of the activations, one for those of the weights. Frozen weights have none, and below the first part
that trains there are no gradients at all. For `last` it is the most, with all blocks."""


def compute(spec: RunSpec, dataset: Dataset, ask: Questions = DIRECT) -> Compute:
    """The compute of a spec on its data set. Nothing is allocated or loaded. Raises InputError as
    `plan_stage` and `classifier.build`."""
    rows, _ = folds.split(dataset.index, spec.data)
    parts = [plan_stage(spec, stage, rows, dataset) for stage in stages(spec.variant, dataset.taxonomy)]
    return of_stages(spec, parts, dataset.size, ask)


def of_stages(spec: RunSpec, parts: Sequence[StagePlan], size: int, ask: Questions = DIRECT) -> Compute:
    """The compute of the models of a run, for images of size x size pixels.

    A training step costs the forward passes of `STEP` for each image, also where an isolation needs more.
    """
    models = [(part.stage, part.levels) for part in parts]
    steps = [part.steps_before(spec.optim.epochs, spec.optim) for part in parts]
    parameters, forward = ask.work(spec, models, size)
    counted = [flops for flops in forward if flops is not None]
    known = len(counted) == len(forward)
    images = [count * spec.optim.batch_size for count in steps]
    if spec.on_features:
        training = _on_features(spec, parts, images, counted, size, ask)
    else:
        training = sum(
            STEP[spec.backbone.train] * n * flops for n, flops in zip(images, counted, strict=False)
        )
    return Compute(
        models=len(models),
        steps=sum(steps),
        parameters=parameters,
        image_flops=sum(counted) if known else None,
        training_flops=training if known else None,
    )


def _on_features(
    spec: RunSpec,
    parts: Sequence[StagePlan],
    images: Sequence[int],
    forward: Sequence[int],
    size: int,
    ask: Questions,
) -> int:
    """FLOPs of a training on stored features: one forward pass of the backbone for each training image and
    view that it uses, and the steps of the heads. A head has two FLOPs for each weight."""
    views = 0 if spec.variant == "neighbours" else spec.augment.views
    seen = len(parts[0].among) * max(1, views or 0)
    heads = [ask.parameters(spec, [(part.stage, part.levels)], size)[1] for part in parts]
    steps = sum(STEP["all"] * n * 2 * weights for n, weights in zip(images, heads, strict=True))
    return seen * max(forward, default=0) + steps
