"""The training of one model of a run: order of images, schedule, step."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from leukotree import seeds
from leukotree.data import augment
from leukotree.data.feature_stream import FeatureLoader
from leukotree.data.order import TrainOrder, Windows
from leukotree.data.stream import Batch, Loader
from leukotree.data.views import Views
from leukotree.distributed import strategies
from leukotree.distributed.engine import Engine
from leukotree.errors import RunFailed
from leukotree.models import streams
from leukotree.models.classifier import build, normalisation
from leukotree.spec import RunSpec
from leukotree.training import throughput
from leukotree.training.plan import StagePlan


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Learning rate at a step, as a share of its peak: a linear rise over `warmup * total` steps, then half a
    cosine to 0."""
    rise = round(warmup * total)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


class StageTrainer:
    """Trains one stage on the images that give it a loss: all training images but for `base`."""

    def __init__(
        self,
        spec: RunSpec,
        plan: StagePlan,
        engine: Engine,
        loader: Loader | FeatureLoader,
        version: int = seeds.NEWEST,
    ) -> None:
        """version: of the random numbers, see `streams`."""
        stage, dataset = plan.stage, loader.dataset
        self.spec, self.stage, self.engine, self.loader = spec, stage, engine, loader
        self.plan = plan
        self.streams = streams.Streams(spec, stage, version)
        self.order = TrainOrder(
            plan.rows,
            spec.optim.batch_size,
            self.streams.order,
            spec.augment,
            dataset.size,
            plan.among,
            version=version,
            windows=Windows(dataset.shard_ids, spec.data.window) if spec.data.order == "window" else None,
            views=Views.of(spec.augment, dataset.size, drawn=not isinstance(loader, FeatureLoader)),
        )
        self.widths = [len(classes) for classes in stage.heads.values()]
        self.objective = plan.objective.to(engine.device)
        self.leaves = torch.from_numpy(dataset.leaf_ids)
        stored = loader.width if isinstance(loader, FeatureLoader) else None
        model = build(spec, stage, dataset.size, self.objective.levels, version, stored)
        self.model = model.to(engine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean, self.std = (engine.put(value) for value in normalisation(self.model))
        self.strategy = strategies.choose(self.model, spec, engine)
        if engine.world > 2:
            micro = spec.engine.micro_batch or spec.optim.batch_size // engine.world
            shape = (3, dataset.size, dataset.size) if stored is None else (stored,)
            inputs = torch.zeros(micro, *shape, device=engine.device)
            self.strategy.rehearse(inputs if stored else inputs.to(memory_format=torch.channels_last))
        self.step = 0
        """The next step, which is the number of steps done."""
        self.stall_s = 0.0
        """Seconds in which `train_until` waited for data."""
        self._losses: list[torch.Tensor] = []
        self._trained = 0
        self._batches: Iterator[tuple[np.ndarray, list[Batch]]] = iter(())

    def steps_before(self, epoch: int) -> int:
        """How many steps the first `epoch` epochs take together."""
        return self.plan.steps_before(epoch, self.spec.optim)

    @property
    def total_steps(self) -> int:
        return self.steps_before(self.spec.optim.epochs)

    @property
    def forward_flops(self) -> int | None:
        """FLOPs of one image's forward pass; None where they cannot be counted, and on stored
        features."""
        if isinstance(self.loader, FeatureLoader):
            return None
        return throughput.of_model(self.model, self.spec, self.loader.dataset.size)

    def begin(self) -> None:
        """Start decoding the images of the next step and of all later ones."""
        self._batches = self.loader.train(
            self.order,
            range(self.step, self.total_steps),
            rank=self.engine.rank,
            world=self.engine.world,
            micro=self.spec.engine.micro_batch,
        )

    def train_until(self, end: int, on_step: Callable[[], None] = lambda: None) -> None:
        """Train the steps before `end` that are not done, without waiting for the device."""
        self.strategy.train()
        while self.step < end:
            self.engine.seed(self.streams.step(self.step, self.engine.rank))
            began = time.perf_counter()
            rows, micros = next(self._batches)
            self.stall_s += time.perf_counter() - began
            self.keep(self._step(rows, micros))
            self.step += 1
            on_step()

    def keep(self, losses: torch.Tensor) -> None:
        """Keep the (G,) losses of a step for `collect`."""
        self._losses.append(losses)
        self._trained += 1

    def take_steps(self) -> int:
        """How many steps were trained since the last call."""
        trained, self._trained = self._trained, 0
        return trained

    def evaluating(self) -> contextlib.AbstractContextManager[None]:
        """The context for `logits`: `model` is whole and in evaluation mode. Every rank enters it."""
        return self.strategy.evaluating()

    def collect(self) -> np.ndarray:
        """(k, G) this rank's part of the losses of the k steps since the last call, by level.

        It waits for the device.
        """
        losses, self._losses = self._losses, []
        return torch.stack(losses).double().cpu().numpy() if losses else self.no_losses

    @property
    def no_losses(self) -> np.ndarray:
        """(0, G): the losses of no step."""
        return np.zeros((0, len(self.objective.levels)))

    def inputs(self, batch: Batch) -> torch.Tensor:
        """(B, 3, H, W) model inputs of a batch, on the device; augmented in training. Stored features are the
        inputs themselves, (B, F)."""
        if isinstance(self.loader, FeatureLoader):
            return self.engine.put(batch.images)
        numbers = None if batch.numbers is None else self.engine.put(batch.numbers)
        return augment.to_input(
            self.engine.put(batch.images), numbers, self.spec.augment, self.mean, self.std
        )

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) `inputs` -> (B, K) float32 logits."""
        with self.engine.autocast(self.spec.engine):
            return self.model(inputs).float()

    def losses(
        self, logits: torch.Tensor, leaves: torch.Tensor, counts: torch.Tensor, share: float
    ) -> torch.Tensor:
        """(G,) losses of a micro batch with (B,) leaves; other arguments as in `Objective.forward`."""
        values: torch.Tensor = self.objective(
            logits, self.engine.put(leaves), counts, self.model.log_variance, share
        )
        return values

    def state(self, optimizer: bool = True) -> dict[str, Any]:
        """Tensors and plain values that `load` takes."""
        return {"step": self.step, **self.strategy.state(optimizer)}

    def load(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.strategy.load(state)

    def close(self) -> None:
        """Release memory. Nothing can be trained after it."""
        self.strategy.close()

    def check(self, losses: np.ndarray) -> None:
        """Raises RunFailed if one of the (k, G) losses of the last k steps is not finite.

        They are summed over the ranks.
        """
        for step, loss in enumerate(losses.sum(axis=1).tolist(), self.step - len(losses)):
            if not math.isfinite(loss):
                keys = self.loader.dataset.index["key"].iloc[self.order.batch(step).rows].tolist()
                rate = self._rate(step)
                where = (
                    f"the loss of {self.stage.name} is {loss} at step {step} with learning rate {rate:.3g}"
                )
                more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
                details = {"stage": self.stage.name, "step": step, "lr": rate, "keys": keys}
                raise RunFailed(f"{where}, on {', '.join(keys[:8])}{more}", "nan", details)

    def metrics(self, epoch: int, losses: np.ndarray) -> list[dict[str, Any]]:
        """A row for each step of an epoch, from their (k, G) losses summed over the ranks.

        With more than one level a row also has the loss of each.
        """
        rows = []
        for step, parts in enumerate(losses.tolist(), self.steps_before(epoch)):
            row = {
                "kind": "step",
                "stage": self.stage.name,
                "epoch": epoch,
                "step": step,
                "loss": sum(parts),
                "lr": self._rate(step),
            }
            levels = {str(level): part for level, part in zip(self.objective.levels, parts, strict=True)}
            rows.append({**row, "levels": levels} if len(parts) > 1 else row)
        return rows

    def _step(self, rows: np.ndarray, micros: list[Batch]) -> torch.Tensor:
        """Do one optimiser step; (G,) this rank's part of the global batch's losses, on the device."""
        counts = self.objective.counts(self.engine.put(self.leaves[torch.from_numpy(rows)]))
        total = torch.zeros(len(self.objective.levels), device=self.engine.device)
        for number, batch in enumerate(micros):
            with self.strategy.micro_batch(last=number == len(micros) - 1):
                logits = self.strategy.forward(self.inputs(batch))
                losses = self.losses(
                    logits, self.leaves[torch.from_numpy(batch.rows)], counts, len(batch.rows) / len(rows)
                )
                self.strategy.backward(losses)
            total += losses.detach()
        if not self.strategy.update(
            learning_rate_factor(self.step, self.total_steps, self.spec.optim.warmup)
        ):
            total += math.nan  # `check` reports the step and its batch
        return total

    def _rate(self, step: int) -> float:
        """Learning rate of the backbone at a step."""
        return self.spec.optim.lr * learning_rate_factor(step, self.total_steps, self.spec.optim.warmup)
