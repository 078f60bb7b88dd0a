"""DDP: each rank has the whole model and the whole optimiser; ranks average gradients during the backward
pass."""

from __future__ import annotations

import contextlib

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from leukotree.distributed.engine import Engine
from leukotree.distributed.strategy import Strategy, synchronised
from leukotree.models.classifier import Classifier
from leukotree.spec import RunSpec


class DDP(Strategy):
    """torch's DistributedDataParallel; with one rank the plain model."""

    def __init__(self, model: Classifier, spec: RunSpec, engine: Engine) -> None:
        super().__init__(model, spec, engine)
        self.trained = _wrapped(model, spec, engine)
        # Compiled around DDP: inside it, gradients would be exchanged only after the backward pass.
        self._compiled = torch.compile(self.trained) if spec.engine.compile else self.trained

    def rehearse(self, inputs: torch.Tensor) -> None:
        """Do a backward pass that changes no weight.

        After its first backward pass DDP sorts the gradients again for their exchange. With three ranks or
        more the order of the addends depends on it: a resumed run, which begins unsorted, would differ from
        one that was not interrupted.
        """
        before = [buffer.clone() for buffer in self.model.buffers()]
        loss = self.forward(inputs).sum()
        if self.model.log_variance is not None:  # the objective uses it, not the forward pass
            loss = loss + self.model.log_variance.sum()
        loss.backward()
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, old in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(old)

    def micro_batch(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """As `Strategy.micro_batch`; ranks exchange gradients in the last one of a step."""
        if last or not isinstance(self.trained, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.trained.no_sync()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with self.engine.autocast(self.spec.engine):
            logits: torch.Tensor = self._compiled(inputs)
        return logits.float()

    def backward(self, losses: torch.Tensor) -> None:
        # DDP divides the sum of gradients by the number of ranks.
        (losses.sum() * self.engine.world).backward()

    def update(self, factor: float) -> bool:
        self._step(factor)
        return True


def _wrapped(model: Classifier, spec: RunSpec, engine: Engine) -> nn.Module:
    if engine.world == 1:
        return model
    return DistributedDataParallel(
        synchronised(model, engine.device),
        device_ids=[engine.device.index] if engine.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        bucket_cap_mb=spec.engine.bucket_mb,
    )
