"""What the training of a run needs of one of its models: trained in steps, or fitted at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

from leukotree.data.stream import Batch
from leukotree.models.stages import Stage


class Part(Protocol):
    """A model in training, see `StageTrainer` and `plain.Fit`."""

    stage: Stage
    widths: list[int]
    """The number of classes of each head."""
    step: int
    """The number of steps done."""
    stall_s: float
    """Seconds of waiting for data."""

    @property
    def total_steps(self) -> int: ...

    @property
    def forward_flops(self) -> int | None: ...

    @property
    def no_losses(self) -> np.ndarray: ...

    def steps_before(self, epoch: int) -> int: ...

    def begin(self) -> None: ...

    def train_until(self, end: int, on_step: Callable[[], None]) -> None: ...

    def take_steps(self) -> int: ...

    def evaluating(self) -> contextlib.AbstractContextManager[None]: ...

    def inputs(self, batch: Batch) -> torch.Tensor: ...

    def logits(self, inputs: torch.Tensor) -> torch.Tensor: ...

    def collect(self) -> np.ndarray: ...

    def check(self, losses: np.ndarray) -> None: ...

    def metrics(self, epoch: int, losses: np.ndarray) -> list[dict[str, Any]]: ...

    def state(self, optimizer: bool) -> dict[str, Any]: ...

    def load(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...
