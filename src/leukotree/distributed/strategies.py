"""The strategy that a spec names. torch is imported to choose one, not to check it; DeepSpeed only for ZeRO,
torchjd only for gradient surgery."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from leukotree.errors import InputError
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    from leukotree.distributed.engine import Engine
    from leukotree.distributed.strategy import Strategy
    from leukotree.models.classifier import Classifier


def choose(model: Classifier, spec: RunSpec, engine: Engine) -> Strategy:
    """The strategy of a spec around a model on its device."""
    if spec.loss.isolation == "projected":
        from leukotree.distributed.surgery import Projected

        return Projected(model, spec, engine)
    if spec.engine.strategy == "ddp":
        from leukotree.distributed.ddp import DDP

        return DDP(model, spec, engine)
    from leukotree.distributed.zero import STAGES

    return STAGES[spec.engine.strategy](model, spec, engine)


def check(spec: RunSpec) -> None:
    """Raises InputError where a spec needs a package that is not installed, or compiles a projected model."""
    if spec.engine.strategy != "ddp" and not _installed("deepspeed"):
        raise InputError(
            f"engine.strategy {spec.engine.strategy}: deepspeed is not installed; "
            "pip install deepspeed, or use ddp"
        )
    if spec.loss.isolation == "projected":
        if not _installed("torchjd"):
            raise InputError("loss.isolation projected: torchjd is not installed; install leukotree again")
        # A compiled backward pass runs once; surgery needs one for each level.
        if spec.engine.compile:
            raise InputError("engine.compile: not with loss.isolation projected; use false")


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
