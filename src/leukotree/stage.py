"""One model of a run and its training: optimiser, schedule, the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from leukotree import losses, seeds
from leukotree.data import augment
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Batch, TrainOrder, train_batches
from leukotree.engine import Engine, Runtime, without_sync
from leukotree.errors import InputError, RunFailed
from leukotree.model import Stage, build, normalisation, parameter_groups
from leukotree.spec import RunSpec


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at a step: a linear rise over `warmup * total` steps, then half a cosine to 0."""
    rise = round(warmup * total)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


class StageTrainer:
    """Trains one `Stage` on the samples that give it a loss, all training rows for `flat` and `multilabel`."""

    def __init__(self, spec: RunSpec, stage: Stage, dataset: Dataset, rows: np.ndarray, engine: Engine, runtime: Runtime) -> None:
        self.spec, self.stage, self.dataset, self.engine, self.runtime = spec, stage, dataset, engine, runtime
        mine = rows[stage.trains_on[dataset.leaf_ids[rows]]]
        self.order = TrainOrder(mine, spec.optim.batch_size, seeds.integer(spec.seed, f"stage/{stage.name}"))
        self.widths = [len(classes) for classes in stage.heads.values()]
        self.alphas = [engine.put(alpha) for alpha in _alphas(spec, stage, dataset, mine)]
        self.targets = torch.from_numpy(stage.targets[dataset.leaf_ids])
        self.model = build(spec, stage, dataset.size).to(engine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean, self.std = (engine.put(value) for value in normalisation(self.model))
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, spec), fused=True)
        self.wrapped = engine.wrap(torch.compile(self.model) if spec.engine.compile else self.model)  # type: ignore[arg-type]

    @property
    def total_steps(self) -> int:
        return self.order.steps_before(self.spec.optim.epochs)

    def train_epoch(self, epoch: int, on_step: Callable[[int], None]) -> list[dict[str, Any]]:
        """Train the steps of one epoch; one row of metrics for each. Raises RunFailed if a loss is not finite."""
        # Seeding here makes an epoch a function of the spec: a resume needs no saved generator state.
        torch.manual_seed(seeds.integer(self.spec.seed, f"torch/{self.stage.name}", epoch, self.engine.rank))
        self.wrapped.train()
        steps = range(self.order.steps_before(epoch), self.order.steps_before(epoch + 1))
        batches = train_batches(
            self.dataset, self.order, steps, rank=self.engine.rank, world=self.engine.world,
            micro=self.spec.engine.micro_batch, workers=self.runtime.workers, pin=self.engine.pin,
        )  # fmt: skip
        parts, rates = [], []
        for step, (rows, micros) in zip(steps, batches, strict=True):
            rates.append(self._set_learning_rate(step))
            parts.append(self._step(rows, micros))
            on_step(step)
        return self._rows(epoch, steps, parts, rates)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float images in [0, 1] on the device -> (B, K) float32 logits."""
        with self.engine.autocast(self.spec.engine):
            return self.model((images - self.mean) / self.std).float()

    def state(self, optimizer: bool = True) -> dict[str, Any]:
        """Tensors and plain values that `load` takes back."""
        state = {"model": self.model.state_dict()}
        return {**state, "optimizer": self.optimizer.state_dict()} if optimizer else state

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])

    def _step(self, rows: np.ndarray, micros: list[Batch]) -> torch.Tensor:
        """One optimiser step; this rank's part of the global batch's loss, left on the device."""
        counts = self.engine.put((self.targets[torch.from_numpy(rows)] >= 0).sum(dim=0))
        total = torch.zeros((), device=self.engine.device)
        for number, batch in enumerate(micros):
            with without_sync(self.wrapped, skip=number < len(micros) - 1):
                loss = self._loss(batch, counts)
                (loss * self.engine.world).backward()  # DDP divides the sum of gradients by the number of ranks
            total += loss.detach()
        if self.spec.optim.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.optim.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _loss(self, batch: Batch, counts: torch.Tensor) -> torch.Tensor:
        assert batch.numbers is not None
        images = self.engine.put(batch.images).float().div_(255)
        images = augment.apply(images, self.engine.put(batch.numbers), self.spec.augment)
        targets = self.engine.put(self.targets[torch.from_numpy(batch.rows)])
        with self.engine.autocast(self.spec.engine):
            logits = self.wrapped((images - self.mean) / self.std)
        return losses.masked_focal(logits.float(), targets, self.widths, counts, self.spec.loss.gamma, self.alphas)

    def _set_learning_rate(self, step: int) -> float:
        factor = learning_rate_factor(step, self.total_steps, self.spec.optim.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        return self.spec.optim.lr * factor

    def _rows(self, epoch: int, steps: range, parts: list[torch.Tensor], rates: list[float]) -> list[dict[str, Any]]:
        """Metric rows of an epoch. The one place where losses leave the device and meet those of the other ranks."""
        mine = torch.stack(parts).double().cpu().numpy() if parts else np.zeros(0)
        summed = np.sum(self.engine.gather(mine), axis=0)
        for step, loss, rate in zip(steps, summed, rates, strict=True):
            if not math.isfinite(loss):
                raise RunFailed(f"the loss of {self.stage.name} is {loss} at step {step} with learning rate {rate:.3g}")
        return [
            {"kind": "step", "stage": self.stage.name, "epoch": epoch, "step": step, "loss": float(loss), "lr": rate}
            for step, loss, rate in zip(steps, summed, rates, strict=True)
        ]


def _alphas(spec: RunSpec, stage: Stage, dataset: Dataset, rows: np.ndarray) -> list[torch.Tensor]:
    """A (K,) float32 weight vector per head, from the training rows that reach it."""
    targets = stage.targets[dataset.leaf_ids[rows]]
    alphas = []
    for column, (head, classes) in enumerate(stage.heads.items()):
        counts = np.bincount(targets[targets[:, column] >= 0, column], minlength=len(classes))
        if not counts.all():
            missing = classes[int(np.argmin(counts))]
            raise InputError(f"{dataset.folder}: no training image of {missing!r} for the decision {head!r}; use fewer folds")
        alphas.append(torch.from_numpy(losses.class_weights(counts, spec.loss.tau)).float())
    return alphas
