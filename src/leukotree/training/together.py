"""Heads of several runs, trained in one computation on stored features.

The heads of a group have equal shapes and settings: the same stage in the inner folds of a trial. Each keeps
its own images, order, class weights and learning rate. A head's bits do not depend on the others: each matrix
of a head begins at a multiple of 64 bytes, so that it is computed in the same way at every place.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap

from leukotree.data.feature_stream import FeatureLoader
from leukotree.models.objective import Objective
from leukotree.spec import DataSpec
from leukotree.training.part import Part
from leukotree.training.stage_trainer import StageTrainer, learning_rate_factor

ALIGNED = 16
"""Numbers in 64 bytes. Batches are a multiple of it, and the classes of a head are filled up to one."""


def fits(stage: object) -> TypeGuard[StageTrainer]:
    """Whether a stage is trained here. A run decides it, never who is beside it: the bits of other ways to
    train differ by rounding."""
    if not isinstance(stage, StageTrainer) or not isinstance(stage.loader, FeatureLoader):
        return False
    spec, engine = stage.spec, stage.spec.engine
    plain = engine.strategy == "ddp" and engine.precision == "fp32" and not engine.compile
    whole = stage.engine.world == 1 and engine.micro_batch is None and spec.optim.clip is None
    alone = spec.loss.isolation == "shared" and stage.model.log_variance is None
    return plain and whole and alone and spec.optim.batch_size % ALIGNED == 0


@dataclass(frozen=True)
class Member:
    """A stage in a group."""

    stage: StageTrainer
    end: int
    """It trains the steps before this one."""
    on_step: Callable[[], None]

    @property
    def left(self) -> int:
        return self.end - self.stage.step


class Run(Protocol):
    """A run in training, see `Trainer`."""

    @property
    def epochs_done(self) -> int: ...

    def to_train(self) -> Iterator[tuple[Part, int, Callable[[], None]]]: ...


class Together:
    """The runs of a process that are trained epoch by epoch. The first one that is asked for an epoch trains
    the heads of all runs that are as far."""

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._spent: dict[int, float] = {}

    def join(self, run: Run) -> None:
        self._runs.append(run)

    def train(self, run: Run) -> float:
        """Train the heads of a run, and of those beside it, to the end of its epoch. Returns the seconds that
        others have spent on this run, less those that this call has spent on others.

        Raises what `on_step` raises.
        """
        if id(run) in self._spent:
            return self._spent.pop(id(run))
        mates = [mate for mate in self._runs if mate.epochs_done == run.epochs_done]
        groups: dict[object, list[Member]] = {}
        for mate in mates:
            for stage, end, on_step in mate.to_train():
                if fits(stage) and stage.step < end:
                    groups.setdefault(_kind(stage), []).append(Member(stage, end, on_step))
        if not groups:
            return 0.0
        began = time.perf_counter()
        for members in groups.values():
            with Bank.of(members) as bank:
                bank.train()
        share = (time.perf_counter() - began) / len(mates)
        self._spent = {id(mate): share for mate in mates if mate is not run}
        return -share * len(self._spent)


def _kind(stage: StageTrainer) -> object:
    """Equal for stages that can be in one group."""
    spec, loader = stage.spec.model_copy(update={"data": DataSpec(), "seed": 0}), stage.loader
    assert isinstance(loader, FeatureLoader)
    return spec.hash, stage.stage.name, tuple(stage.widths), loader.features.path, loader.dataset.repeat


class _Losses(nn.Module):
    """(B, K) logits and (B,) leaves -> the (G,) losses of an objective over the whole batch."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, logits: torch.Tensor, leaves: torch.Tensor) -> torch.Tensor:
        losses: torch.Tensor = self.objective(logits, leaves, self.objective.counts(leaves))
        return losses


class Bank:
    """The weights and moments of n heads, stacked. Inside the context the stages' own tensors are views of
    them, so that a stage can be saved at any step."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        first = members[0].stage
        self.device, self.classes = first.engine.device, sum(first.widths)
        padded = -(-self.classes // ALIGNED) * ALIGNED
        count, width = len(members), first.model.features
        shapes = {"weight": (count, width, padded), "bias": (count, 1, padded)}
        self.values, self.means, self.squares = (
            {name: torch.zeros(shape, device=self.device) for name, shape in shapes.items()} for _ in range(3)
        )
        self.steps = torch.zeros(count, device=self.device)
        self._losses = _Losses(first.objective)
        tables = [dict(_Losses(member.stage.objective).named_buffers()) for member in members]
        self._tables = {name: torch.stack([one[name] for one in tables]) for name in tables[0]}
        self._ones = torch.ones(count, ALIGNED, first.spec.optim.batch_size, device=self.device)
        groups = first.strategy.optimizer.param_groups
        self._settings = {
            "weight": _settings(groups, first.model.heads[0].weight),
            "bias": _settings(groups, first.model.heads[0].bias),
        }

    @classmethod
    @contextlib.contextmanager
    def of(cls, members: Sequence[Member]) -> Iterator[Bank]:
        """The bank of some stages. Those with more steps to go are first."""
        bank = cls(sorted(members, key=lambda member: -member.left))
        bank._take()
        try:
            yield bank
        finally:
            bank._give_back()

    def train(self) -> None:
        """Train all steps. Raises what `on_step` raises."""
        for _ in range(self.members[0].left):
            active = [member for member in self.members if member.stage.step < member.end]
            self._step([member.stage for member in active])
            for member in active:
                member.stage.step += 1
            for member in active:
                member.on_step()

    def _step(self, stages: Sequence[StageTrainer]) -> None:
        """One step of the first heads, those of `stages`."""
        n, batches = len(stages), [stage.order.batch(stage.step) for stage in stages]
        rows = np.concatenate([batch.rows for batch in batches])
        views = np.concatenate([batch.views for batch in batches if batch.views is not None])
        features = stages[0].loader.features.take(rows, views)  # type: ignore[union-attr]
        inputs = stages[0].engine.put(torch.from_numpy(features)).view(n, -1, features.shape[1])
        leaves = stages[0].engine.put(stages[0].leaves[torch.from_numpy(rows)]).view(n, -1)
        logits = torch.baddbmm(self.values["bias"][:n], inputs, self.values["weight"][:n])
        losses, slope = self._slopes(logits, leaves)
        slopes = {
            "weight": torch.bmm(inputs.transpose(1, 2), slope),
            "bias": torch.bmm(self._ones[:n], slope)[:, :1],
        }
        self.steps[:n] += 1
        factors = [
            learning_rate_factor(stage.step, stage.total_steps, stage.spec.optim.warmup) for stage in stages
        ]
        for name, gradient in slopes.items():
            self._update(name, gradient, torch.tensor(factors, device=self.device).view(n, 1, 1))
        for stage, of_stage in zip(stages, losses, strict=True):
            stage.keep(of_stage)

    def _slopes(self, logits: torch.Tensor, leaves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The (n, G) losses of (n, B, padded) logits, and the gradient of their sum, like the logits."""
        n, used = len(logits), logits[..., : self.classes].contiguous().requires_grad_()
        tables = {name: table[:n] for name, table in self._tables.items()}
        losses = vmap(lambda own, *batch: functional_call(self._losses, own, batch))(tables, used, leaves)
        [gradient] = torch.autograd.grad(losses.sum(), used)
        return losses.detach(), nn.functional.pad(gradient, (0, logits.shape[2] - self.classes))

    def _update(self, name: str, gradient: torch.Tensor, factors: torch.Tensor) -> None:
        """AdamW (Loshchilov and Hutter 2019), as torch computes it, with a learning rate for each head:
        torch's has one for all."""
        n, settings = len(gradient), self._settings[name]
        (first, second), rate = settings.betas, settings.peak * factors
        value, mean, square = (part[name][:n] for part in (self.values, self.means, self.squares))
        steps = self.steps[:n].view(n, 1, 1)
        value.mul_(1 - rate * settings.decay)
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        spread = (square.sqrt() / (1 - second**steps).sqrt()).add_(settings.eps)
        value.sub_(rate / (1 - first**steps) * mean / spread)

    def _take(self) -> None:
        """Copy the stages' tensors into the stacks, and put views of these in their place."""
        for number, member in enumerate(self.members):
            state = member.stage.strategy.optimizer.state
            for parameter, name, place in self._places(number, member.stage):
                known = state[parameter]
                for part, key in ((self.means, "exp_avg"), (self.squares, "exp_avg_sq")):
                    view = part[name][place].T
                    if known:
                        view.copy_(known[key].view_as(view))
                self.steps[number] = known["step"] if known else 0.0
                view = self.values[name][place].T
                view.copy_(parameter.detach().view_as(view))
                parameter.data = view.reshape(parameter.shape) if name == "bias" else view
                state[parameter] = self._state(number, name, place, parameter)

    def _state(
        self, number: int, name: str, place: tuple[object, ...], parameter: nn.Parameter
    ) -> dict[str, torch.Tensor]:
        moments = (self.means[name][place].T, self.squares[name][place].T)  # type: ignore[index]
        mean, square = (moment.view(parameter.shape) if name == "bias" else moment for moment in moments)
        return {"step": self.steps[number], "exp_avg": mean, "exp_avg_sq": square}

    def _give_back(self) -> None:
        """Give the stages tensors of their own again."""
        for number, member in enumerate(self.members):
            state = member.stage.strategy.optimizer.state
            for parameter, _, _ in self._places(number, member.stage):
                parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
                state[parameter] = {
                    key: value.clone(memory_format=torch.contiguous_format)
                    for key, value in state[parameter].items()
                }

    @staticmethod
    def _places(
        number: int, stage: StageTrainer
    ) -> Iterator[tuple[nn.Parameter, str, tuple[int, slice, slice]]]:
        """Each parameter of a stage's heads, the stack that has it, and where."""
        start = 0
        for head, width in zip(stage.model.heads, stage.widths, strict=True):
            for name in ("weight", "bias"):
                yield getattr(head, name), name, (number, slice(None), slice(start, start + width))
            start += width


@dataclass(frozen=True)
class _Settings:
    peak: float
    """Highest learning rate."""
    decay: float
    betas: tuple[float, float]
    eps: float


def _settings(groups: Sequence[dict[str, object]], parameter: nn.Parameter) -> _Settings:
    """Those of the parameter's group in an optimiser."""
    [group] = [one for one in groups if any(parameter is other for other in one["params"])]  # type: ignore[attr-defined]
    return _Settings(group["peak"], group["weight_decay"], group["betas"], group["eps"])  # type: ignore[arg-type]
