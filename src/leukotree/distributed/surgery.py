"""Gradient surgery (`loss.isolation: projected`): the levels' gradients on the backbone are changed so that
they do not conflict, and then added.

Yu et al. 2020 (PCGrad), Liu et al. 2021 (CAGrad), Quinton and Rey 2024 (UPGrad), by torchjd. Imported only
when a spec asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torchjd.aggregation import CAGradWeighting, PCGradWeighting, UPGradWeighting

from leukotree import seeds
from leukotree.distributed.engine import Engine
from leukotree.distributed.strategy import Strategy, synchronised
from leukotree.models.classifier import Classifier
from leukotree.spec import RunSpec

RADIUS = 0.5
"""CAGrad's c, with its authors' value: how far its step may lie from the sum, as a share of the sum's
length."""
FAINT = 1e-6
"""Share of the levels' squared norms up to which CAGrad leaves a level out.

torchjd makes no step where a mixture of the gradients has less than 1e-4 of their norm, as if they opposed
each other. One level that is learned already would stop the others.
"""


def weights(gramian: torch.Tensor, surgery: str, seed: int) -> torch.Tensor:
    """(G,) weights with which the levels' gradients are added.

    Where no two of them conflict, PCGrad and UPGrad give 1 to each: their step is the plain sum. CAGrad's is
    G times that of its paper, which begins at the mean: the sum, and up to RADIUS times its length more.

    Args:
        gramian: (G, G) float64 on the CPU: dot products of the levels' gradients. It is scaled here, because
            torchjd takes a squared norm below 1e-4 for zero. A level without gradient, as in a batch without
            an image of it, is left out and gets the weight 1; under CAGrad a `FAINT` one too.
        surgery: pcgrad, cagrad or upgrad.
        seed: of the order in which PCGrad projects.
    """
    mixing = torch.ones(len(gramian), dtype=gramian.dtype)
    present = gramian.diagonal() > (FAINT * gramian.trace() if surgery == "cagrad" else 0)
    if not present.any():
        return mixing
    part = gramian[present][:, present] / gramian.trace()
    if surgery == "pcgrad":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            mixing[present] = PCGradWeighting()(part)
    elif surgery == "cagrad":
        mixing[present] = CAGradWeighting(c=RADIUS)(part) * len(part)
    else:
        mixing[present] = UPGradWeighting(pref_vector=mixing[present])(part)
    return mixing


class Projected(Strategy):
    """Each rank has the whole model and its AdamW, without DDP. The levels' gradients on the backbone are
    exchanged once in a step and mixed the same way on every rank; the heads get the plain sum.

    It costs a backward pass for each level, G gradients of the backbone in memory, and one wait for the
    device in each step, because the weights are computed on the CPU.
    """

    def __init__(self, model: Classifier, spec: RunSpec, engine: Engine) -> None:
        super().__init__(model, spec, engine)
        self.trained = _same_weights(model, engine)
        self._shared = [one for one in model.backbone.parameters() if one.requires_grad]
        self._own = list(model.heads.parameters())
        shared, own = (sum(parameter.numel() for parameter in part) for part in (self._shared, self._own))
        self._sums = torch.zeros(len(model.levels) * shared + own, device=engine.device)
        """The gradients of this step so far, in one tensor for their exchange: `_jacobian`, (G, P) on the
        backbone, and `_plain` on the heads."""
        self._jacobian, self._plain = self._sums[:-own].view(-1, shared), self._sums[-own:]
        self._steps = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with self.engine.autocast(self.spec.engine):
            logits: torch.Tensor = self.trained(inputs)
        return logits.float()

    def backward(self, losses: torch.Tensor) -> None:
        parameters = [*self._shared, *self._own]
        for level, chosen in enumerate(torch.eye(len(losses), device=losses.device)):
            more = level + 1 < len(losses)
            gradients = torch.autograd.grad(losses, parameters, chosen, retain_graph=more)
            self._jacobian[level] += _flat(gradients[: len(self._shared)])
            self._plain += _flat(gradients[len(self._shared) :])

    def update(self, factor: float) -> bool:
        if self.engine.world > 1:
            dist.all_reduce(self._sums)
        gramian = (self._jacobian @ self._jacobian.T).double().cpu()
        finite = bool(gramian.isfinite().all())
        if finite:
            seed = seeds.integer(self.spec.seed, "surgery", self._steps)
            mixing = weights(gramian, self.spec.loss.surgery, seed)
            _set_gradients(self._shared, mixing.to(self._sums) @ self._jacobian)
            _set_gradients(self._own, self._plain)
            self._step(factor)
        self._sums.zero_()
        self._steps += 1
        return finite

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        for moments in state.get("optimizer", {}).get("state", {}).values():
            self._steps = int(moments["step"])


def _same_weights(model: Classifier, engine: Engine) -> nn.Module:
    """The model with the main rank's weights and buffers.

    DDP sends buffers before each forward pass; here they are sent once. In training no buffer enters the
    result (BatchNorm takes the statistics of its batch), and what is scored and saved is the main rank's.
    """
    if engine.world == 1:
        return model
    trained = synchronised(model, engine.device)
    for tensor in (*trained.parameters(), *trained.buffers()):
        dist.broadcast(tensor.detach(), src=0)
    return trained


def _flat(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def _set_gradients(parameters: Sequence[nn.Parameter], flat: torch.Tensor) -> None:
    """Give parameters their parts of a flat gradient, each in its parameter's memory format.

    The fused step needs that format.
    """
    for parameter, part in zip(
        parameters, flat.split([parameter.numel() for parameter in parameters]), strict=True
    ):
        parameter.grad = torch.empty_like(parameter).copy_(part.view(parameter.shape))
