"""One small run for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leukotree.spec import RunSpec


def tiny_spec(shards: Path | None = None, changes: Mapping[str, Any] | None = None) -> RunSpec:
    """One epoch of test_vit in fp32, in batches of 12 images, then `changes` (dotted keys)."""
    fields = {
        "backbone.name": "test_vit",
        "optim.lr": 1e-3,
        "optim.batch_size": 12,
        "optim.epochs": 1,
        "engine.precision": "fp32",
    }
    if shards is not None:
        fields["data.shards"] = str(shards)
    return RunSpec().override({**fields, **(changes or {})})
