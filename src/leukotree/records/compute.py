"""What a run is worth in steps, parameters and FLOPs, in its status.json, and the hours in its metrics.jsonl.

Runs of the first version have no `compute`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

KEY = "compute"
"""Key of status.json."""
GPU_HOURS, CORE_HOURS = "gpu_hours", "core_hours"
"""Keys of an epoch's row in metrics.jsonl: hours of GPUs, or of cores, since the run began."""


@dataclass(frozen=True)
class Compute:
    """The compute of one run, as its settings and its data demand it."""

    models: int
    """Models that an image goes through when it is classified."""
    steps: int
    """Optimiser steps of all models together."""
    parameters: int
    """Parameters of all models together, with their heads."""
    image_flops: int | None
    """FLOPs to classify one image: a forward pass of each model, two FLOPs per multiply-add. None where they
    cannot be counted."""
    training_flops: int | None
    """FLOPs of all training steps, without scoring. None where they cannot be counted."""

    def as_dict(self) -> dict[str, int | None]:
        return asdict(self)


def read(status: Mapping[str, Any]) -> Compute | None:
    """The compute that a run recorded in its status.json. None for an older run, and for a damaged record."""
    recorded = status.get(KEY)
    if not isinstance(recorded, Mapping):
        return None
    values = {field.name: recorded.get(field.name) for field in fields(Compute)}
    needed = [values[name] for name in ("models", "steps", "parameters")]
    if not all(isinstance(value, int) for value in needed):
        return None
    return Compute(**{name: value if isinstance(value, int) else None for name, value in values.items()})  # type: ignore[arg-type]


def hours(epochs: Sequence[Mapping[str, Any]]) -> float | None:
    """Hours of GPUs, or of cores, that a run took, from the rows of its epochs. None where none has them."""
    for row in reversed(epochs):
        spent = [row.get(key) for key in (GPU_HOURS, CORE_HOURS)]
        if known := [value for value in spent if isinstance(value, int | float)]:
            return float(max(known))
    return None
