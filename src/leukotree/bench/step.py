"""The complete training step, beside a bare loop of the same model and optimiser."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from leukotree.bench.clock import Work, in_turn
from leukotree.bench.setting import Row, Setting
from leukotree.data.stream import Loader
from leukotree.training.stage_trainer import StageTrainer

ENDLESS = 10**6
"""Number of epochs: more than are measured."""


def measure(setting: Setting) -> list[Row]:
    """The speed of a StageTrainer's steps: loading, augmentation, loss, schedule, exchange of gradients."""
    spec = setting.spec.override({"optim.epochs": ENDLESS, "optim.steps": None})
    cache = setting.open_cache() if setting.cache else None
    with Loader(setting.dataset, workers=setting.workers, cache=cache, pin=setting.engine.pin) as loader:
        trainer = StageTrainer(spec, setting.stage, setting.engine, loader)
        trainer.begin()
        step, bare = in_turn(setting.engine, [partial(_train, trainer), _bare_loop(setting)], setting.seconds)
    batch = spec.optim.batch_size
    return [Row("step", "images/s", batch / step, batch / bare, "bare loop on tensors of the device", step)]


def _train(trainer: StageTrainer, count: int) -> None:
    """Train `count` more steps."""
    trainer.train_until(trainer.step + count)


def _bare_loop(setting: Setting) -> Work:
    """Forward pass, cross-entropy, backward pass and optimiser on normalised batches on the device.

    Ranks exchange nothing, so the cost of their exchange shows in the step.
    """
    spec, engine, size = setting.spec, setting.engine, setting.dataset.size
    plain, optimizer = setting.network()
    model = torch.compile(plain.train()) if spec.engine.compile else plain.train()
    micro = spec.engine.micro_batch or setting.share
    images = torch.randn(micro, 3, size, size, device=engine.device).to(memory_format=torch.channels_last)
    targets = torch.arange(micro, device=engine.device) % sum(
        len(classes) for classes in setting.stage.stage.heads.values()
    )

    def work(count: int) -> None:
        for _ in range(count):
            for _ in range(setting.share // micro):
                with engine.autocast(spec.engine):
                    logits = model(images)
                F.cross_entropy(logits.float(), targets).backward()
            optimizer.step()
            optimizer.zero_grad()

    return work
