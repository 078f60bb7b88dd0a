"""How ranks share the training of one model: the seam between a training step and DDP or DeepSpeed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from leukotree.distributed.engine import Engine
from leukotree.errors import InputError
from leukotree.models.classifier import Classifier, parameter_groups
from leukotree.spec import RunSpec

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps for each parameter, beside its count of steps."""


class Strategy:
    """One model with its AdamW, trained alike by every rank of DDP; the base of the others.

    A step: each micro batch inside `micro_batch`, its losses to `backward`, then `update`. What `state` gives
    has one format for every strategy and any number of ranks.
    """

    def __init__(self, model: Classifier, spec: RunSpec, engine: Engine) -> None:
        self.model, self.spec, self.engine = model, spec, engine
        """`model` is whole on every rank inside `evaluating`; with ZeRO-3 only there."""
        self.optimizer = torch.optim.AdamW(parameter_groups(model, spec), fused=True)
        self.wrapped = self._wrap(model)
        # Around DDP: inside it, all gradients would be exchanged after the backward pass, and none during it.
        self._run = torch.compile(self.wrapped) if spec.engine.compile else self.wrapped

    def _wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass averages gradients over ranks."""
        if self.engine.world == 1:
            return model
        device = self.engine.device
        model = synchronised(model, device)
        ids = [device.index] if device.type == "cuda" else None
        bucket = self.spec.engine.bucket_mb
        return DistributedDataParallel(
            model, device_ids=ids, gradient_as_bucket_view=True, bucket_cap_mb=bucket
        )

    def rehearse(self, inputs: torch.Tensor) -> None:
        """A backward pass on (B, 3, H, W) that counts for nothing. After its first one DDP sorts the
        gradients anew for their exchange, and where three ranks add, the order of the addends follows from
        that: a resumed run, which begins unsorted, would differ from one that was not interrupted."""
        before = [buffer.clone() for buffer in self.model.buffers()]
        loss = self.forward(inputs).sum()
        if self.model.log_variance is not None:  # the objective uses it, not the forward pass
            loss = loss + self.model.log_variance.sum()
        loss.backward()
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, old in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(old)

    def train(self) -> None:
        """Leave evaluation: dropout draws, BatchNorm takes the statistics of its batch."""
        self.wrapped.train()

    @contextlib.contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Around the forward and backward pass of a micro batch; ranks exchange gradients in the `last` one
        of a step."""
        skip = not last and isinstance(self.wrapped, DistributedDataParallel)
        with self.wrapped.no_sync() if skip else contextlib.nullcontext():  # type: ignore[operator]
            yield

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) `inputs` -> (B, K) float32 logits, in the precision of the spec."""
        with self.engine.autocast(self.spec.engine):
            logits: torch.Tensor = self._run(inputs)
        return logits.float()

    def backward(self, losses: torch.Tensor) -> None:
        """Add the gradients of this rank's part of the (G,) losses of the global batch; levels and ranks'
        parts add up."""
        (
            losses.sum() * self.engine.world
        ).backward()  # DDP divides the sum of gradients by the number of ranks

    def update(self, factor: float) -> bool:
        """Clip and step at `factor` times each group's peak learning rate, and drop the gradients. False if
        they were not finite and the step was therefore left out."""
        self._set_learning_rate(factor)
        if self.spec.optim.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.optim.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return True

    def _set_learning_rate(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """`model` whole, alike on every rank, and in evaluation. Every rank enters it."""
        self._share_buffers()
        self.model.eval()
        yield

    def _share_buffers(self) -> None:
        """Give every rank the main rank's buffers. DDP does so before each forward pass in training, so after
        the last one BatchNorm's running statistics differ: ranks would score their shares with different
        models."""
        if self.engine.world > 1:
            for buffer in self.model.buffers():
                dist.broadcast(buffer, src=0)

    def close(self) -> None:
        """Let go of the memory; nothing is trained with it after."""

    def state(self, optimizer: bool = True) -> dict[str, Any]:
        """{"model": float32 weights and buffers, "optimizer": AdamW's state per parameter}: tensors and plain
        values that
        `load` takes back. Every rank calls it; the main rank's is whole."""
        state: dict[str, Any] = {"model": self.model.state_dict()}
        return {**state, "optimizer": self.optimizer.state_dict()} if optimizer else state

    def load(self, state: dict[str, Any]) -> None:
        """Take what `state` gave on any number of ranks of any strategy. Every rank calls it, with the whole
        state."""
        self.model.load_state_dict(state["model"])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])
            for parameter, moments in self.optimizer.state.items():
                for name in MOMENTS:
                    # In the parameter's memory format, which another strategy does not keep: the fused step
                    # goes by memory.
                    moments[name] = torch.empty_like(parameter).copy_(moments[name])


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with BatchNorm over all ranks; on the CPU torch has none: there it sees the share of its
    rank."""
    return convert_sync_batchnorm(model) if device.type == "cuda" else model


def choose(model: Classifier, spec: RunSpec, engine: Engine) -> Strategy:
    """The strategy that a spec names. DeepSpeed is imported only for ZeRO, torchjd only for gradient
    surgery."""
    if spec.loss.isolation == "projected":
        from leukotree.distributed import surgery

        return surgery.Projected(model, spec, engine)
    if spec.engine.strategy == "ddp":
        return Strategy(model, spec, engine)
    from leukotree.distributed import zero

    return zero.choose(model, spec, engine)


def check(spec: RunSpec) -> None:
    """Raises InputError if a spec asks for what cannot be imported, or for a model that is compiled and
    projected."""
    if spec.engine.strategy != "ddp" and not _installed("deepspeed"):
        raise InputError(
            f"engine.strategy {spec.engine.strategy}: deepspeed is not installed; pip install deepspeed, or use ddp"
        )
    if spec.loss.isolation == "projected":
        if not _installed("torchjd"):
            raise InputError("loss.isolation projected: torchjd is not installed; install leukotree again")
        if spec.engine.compile:  # what torch compiles can be walked back once only
            raise InputError("engine.compile: not with loss.isolation projected; use false")


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None
