"""The setting that the measurements share, and a row of their table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from leukotree.data.cache import Cache, open_cache
from leukotree.data.dataset import Dataset
from leukotree.distributed.engine import Engine
from leukotree.models.classifier import Classifier, build, parameter_groups
from leukotree.spec import RunSpec
from leukotree.training.plan import Plan, StagePlan

RATES = ("images/s", "GB/s", "MB/s")
"""Units in which more is better; in seconds less is better."""


@dataclass(frozen=True)
class Row:
    """A measurement beside its limit; both None where nothing is measured, and `limit_is` has the reason."""

    what: str
    unit: str
    measured: float | None
    limit: float | None
    limit_is: str
    seconds: float | None
    """Duration of one batch, step, exchange, save or trial."""

    @property
    def share(self) -> float | None:
        """Measured speed as a share of the limit."""
        if not self.measured or not self.limit:
            return None
        return self.measured / self.limit if self.unit in RATES else self.limit / self.measured


@dataclass(frozen=True)
class Setting:
    """The measurement on one rank: what is measured, where, and how long."""

    plan: Plan
    engine: Engine
    workers: int
    """Decoding threads per rank."""
    seconds: float
    """Duration of each measurement."""
    runs: Path
    """A folder on the disk that holds the runs."""
    scratch: Path
    """A folder for temporary files, the same for all ranks."""
    cache: Path | None
    """The cache of decoded images that training uses; None decodes each time."""
    cache_gb: float

    @property
    def spec(self) -> RunSpec:
        return self.plan.spec

    @property
    def dataset(self) -> Dataset:
        return self.plan.dataset

    @property
    def rows(self) -> np.ndarray:
        """Training rows of the data set's index."""
        return self.plan.train_rows

    @property
    def stage(self) -> StagePlan:
        """The model that is measured: the first one, which trains on all images."""
        return self.plan.stages[0]

    @property
    def share(self) -> int:
        """Images of a rank in a global batch."""
        return self.spec.optim.batch_size // self.engine.world

    def open_cache(self) -> Cache | None:
        """The cache of decoded images of training, or a temporary one; None where there is no room."""
        return open_cache(self.cache or self.scratch / "decoded", self.dataset, self.cache_gb)

    def network(self) -> tuple[Classifier, torch.optim.AdamW]:
        """The model on its device, and its optimiser as in training."""
        model = build(self.spec, self.stage.stage, self.dataset.size)
        model = model.to(self.engine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model, torch.optim.AdamW(parameter_groups(model, self.spec), fused=True)

    @property
    def parameters(self) -> int:
        """Number of parameters of the model."""
        return sum(parameter.numel() for parameter in self.network()[0].parameters())
