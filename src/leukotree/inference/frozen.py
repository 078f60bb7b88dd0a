"""The frozen backbone of heads that were trained on stored features.

It is built once for all runs of a process that have the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakValueDictionary

import torch
from torch import nn

from leukotree.distributed.engine import Engine
from leukotree.models import pretrained, trained_part
from leukotree.models.classifier import build
from leukotree.models.stages import Stage
from leukotree.models.streams import Streams
from leukotree.spec import RunSpec

_HERE: WeakValueDictionary[object, Frozen] = WeakValueDictionary()
"""Those that a run of this process has."""


@dataclass(frozen=True, eq=False)
class Frozen:
    """A frozen backbone on a device, in evaluation mode."""

    module: nn.Module
    width: int
    """F, the numbers of a feature vector."""
    digest: str
    """The digest of its weights, see `trained_part.digest`."""


def backbone(spec: RunSpec, stage: Stage, size: int, weights: str | None, engine: Engine) -> Frozen:
    """The backbone of a run, for images of size x size pixels.

    Args: weights: sha256 of its file of weights; None for those that are drawn.

    Raises InputError as `classifier.build`.
    """
    config = pretrained.digest(spec.backbone.name)
    key = (
        config or spec.backbone.name,
        weights or Streams(spec, stage).backbone,
        size,
        engine.device,
    )
    if (known := _HERE.get(key)) is None:
        model = build(spec, stage, size)
        module = model.backbone.eval()
        digest = trained_part.digest(module.state_dict())
        module = module.to(engine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        known = _HERE[key] = Frozen(module, model.features, digest)
    return known
