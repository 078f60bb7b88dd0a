"""The base class of the strategies: how ranks train one model together.

A strategy stands between a training step and DDP, DeepSpeed or gradient surgery. `strategies.choose` gives
the one that a spec names.
"""

from __future__ import annotations

import abc
import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import nn

from leukotree.distributed.engine import Engine
from leukotree.errors import InputError
from leukotree.models import trained_part
from leukotree.models.classifier import Classifier, parameter_groups
from leukotree.spec import RunSpec

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps for each parameter, beside its number of steps."""


class Strategy(abc.ABC):
    """One model and its AdamW, trained by all ranks together.

    A step: each micro batch inside `micro_batch`, its losses to `backward`, then `update`. `state` has one
    format for every strategy and any number of ranks.
    """

    trained: nn.Module
    """What a training step calls: the model, or what is wrapped around it. Each strategy's constructor sets
    it."""

    def __init__(
        self, model: Classifier, spec: RunSpec, engine: Engine, optimized: Classifier | None = None
    ) -> None:
        """Make the optimiser.

        Args:
            model: what is evaluated. It is whole on every rank inside `evaluating`.
            optimized: the model whose weights the optimiser changes; None for `model` itself.
        """
        self.model, self.spec, self.engine = model, spec, engine
        self.optimized = model if optimized is None else optimized
        self.optimizer = torch.optim.AdamW(parameter_groups(self.optimized, spec), fused=True)
        self._frozen = trained_part.frozen(model)

    def rehearse(self, inputs: torch.Tensor) -> None:  # noqa: B027
        """Prepare the exchange of gradients with (B, 3, H, W) inputs, so that all steps add in one order.

        Nothing to do where gradients are exchanged in the same order from the first step on.
        """

    def train(self) -> None:
        """End evaluation: dropout draws again, BatchNorm takes the statistics of its batch."""
        self.trained.train()

    def micro_batch(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """The context of a micro batch's forward and backward pass; `last`: the last one of its step."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) inputs -> (B, K) float32 logits, in the precision of the spec."""

    @abc.abstractmethod
    def backward(self, losses: torch.Tensor) -> None:
        """Add the gradients of this rank's part of the (G,) losses of the global batch.

        The sum over levels, micro batches and ranks is the gradient of the global batch.
        """

    @abc.abstractmethod
    def update(self, factor: float) -> bool:
        """Clip, step at `factor` times each group's peak learning rate, and clear the gradients.

        False where the gradients were not finite and the step was therefore left out.
        """

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """The context in which `model` is whole, the same on every rank, and in evaluation mode.

        Every rank enters it.
        """
        self._share_buffers()
        self.model.eval()
        yield

    def close(self) -> None:  # noqa: B027
        """Release memory. Nothing can be trained after it."""

    def state(self, optimizer: bool = True) -> dict[str, Any]:
        """{"model": float32 weights and buffers, "optimizer": AdamW's state per parameter}.

        Tensors and plain values that `load` takes. Every rank calls it; the main rank's is whole. With the
        optimiser, what is frozen is left out, and {"frozen": its digest} stands for it.
        """
        weights = self._weights()
        if not optimizer:
            return {"model": weights}
        trained = {name: value for name, value in weights.items() if name not in self._frozen}
        state = {"model": trained, "optimizer": self._optimizer_state()}
        return {**state, "frozen": self._frozen_digest} if self._frozen else state

    def load(self, state: dict[str, Any]) -> None:
        """Restore a `state` of any strategy on any number of ranks. Every rank calls it.

        Raises InputError where the frozen weights are not those that the state was made with.
        """
        if state.get("frozen", self._frozen_digest) != self._frozen_digest:
            raise InputError(
                "backbone.weights: the frozen weights are not those that the run began with; put the old "
                "ones back, or move the run's folder away and train it again"
            )
        self._set_weights({**self._frozen_weights(), **state["model"]})
        self._set_optimizer_state(state.get("optimizer", {}))

    def _frozen_weights(self) -> dict[str, torch.Tensor]:
        weights = self.model.state_dict()
        return {name: weights[name] for name in self._frozen if name in weights}

    @functools.cached_property
    def _frozen_digest(self) -> str:
        return trained_part.digest(self._frozen_weights())

    def _weights(self) -> dict[str, torch.Tensor]:
        """All weights and buffers of the model; whole on the main rank."""
        return self.model.state_dict()

    def _set_weights(self, weights: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(weights)

    def _optimizer_state(self) -> dict[str, Any]:
        """The state of torch's AdamW; whole on the main rank."""
        return self.optimizer.state_dict()

    def _set_optimizer_state(self, state: dict[str, Any]) -> None:
        """`state`: as `_optimizer_state`, or {} for none."""
        if state:
            self.optimizer.load_state_dict(state)
            for parameter, moments in self.optimizer.state.items():
                for name in MOMENTS:
                    # The fused step needs the parameter's memory format, which another strategy does not
                    # keep.
                    moments[name] = torch.empty_like(parameter).copy_(moments[name])

    def _step(self, factor: float) -> None:
        """`update` for gradients that each rank has whole."""
        self._set_learning_rate(factor)
        if self.spec.optim.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.optim.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _set_learning_rate(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor

    def _share_buffers(self) -> None:
        """Give every rank the main rank's buffers.

        DDP does so before each training forward pass. After the last one BatchNorm's running statistics
        differ between ranks, which would then score their shares with different models.
        """
        if self.engine.world > 1:
            for buffer in self.model.buffers():
                dist.broadcast(buffer, src=0)


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with BatchNorm over all ranks.

    torch has none for the CPU: there BatchNorm takes the statistics of its rank's images.
    """
    return convert_sync_batchnorm(model) if device.type == "cuda" else model
