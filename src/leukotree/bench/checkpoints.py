"""Saving a checkpoint: how long training waits for it, and how fast the file is written."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from leukotree.bench.clock import Work, in_turn
from leukotree.bench.setting import Row, Setting
from leukotree.distributed.engine import Engine
from leukotree.training import checkpoint


def measure(setting: Setting) -> list[Row]:
    """The main rank's snapshot and its file; no rows on other ranks.

    The limit of the snapshot is one copy of as many bytes from the device. The limit of the file, with hash,
    fsync and rename, is a plain file of as many bytes with fsync in the same folder.
    """
    if not setting.engine.is_main:
        return []
    alone = dataclasses.replace(setting, engine=Engine(0, 1, setting.engine.device))
    model, optimizer = alone.network()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # before it the optimiser has no state
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    snapshot = checkpoint.snapshot(state)
    size = sum(tensor.nbytes for tensor in _tensors(state))
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=setting.runs) as folder:
        waited, copied = in_turn(
            alone.engine, [_snapshots(state, snapshot), _copies(alone.engine, size)], setting.seconds
        )
        written, plain = in_turn(
            alone.engine, [_saves(Path(folder), snapshot), _files(Path(folder), size)], setting.seconds
        )
    megabytes = size / 1e6
    return [
        Row(
            "checkpoint, held up",
            "s",
            waited,
            copied,
            f"one copy of {megabytes:.3g} MB from the device",
            waited,
        ),
        Row(
            "checkpoint, written",
            "MB/s",
            megabytes / written,
            megabytes / plain,
            f"plain file and fsync in {setting.runs}",
            written,
        ),
    ]


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for part in inner for tensor in _tensors(part)]


def _snapshots(state: dict[str, Any], before: dict[str, Any]) -> Work:
    def work(count: int) -> None:
        for _ in range(count):
            checkpoint.snapshot(state, before)

    return work


def _copies(engine: Engine, size: int) -> Work:
    source = torch.zeros(size, dtype=torch.uint8, device=engine.device)
    target = torch.zeros(size, dtype=torch.uint8, pin_memory=engine.pin)

    def work(count: int) -> None:
        for _ in range(count):
            target.copy_(source)

    return work


def _saves(folder: Path, state: dict[str, Any]) -> Work:
    def work(count: int) -> None:
        for number in range(count):
            checkpoint.save(folder / "checkpoints", number, state)

    return work


def _files(folder: Path, size: int) -> Work:
    content = memoryview(os.urandom(min(size, 2**20)))  # so that no disk can compress it

    def work(count: int) -> None:
        for number in range(count):
            with open(folder / f"plain{number % 2}", "wb") as file:
                for start in range(0, size, len(content)):
                    file.write(content[: size - start])
                file.flush()
                os.fsync(file.fileno())

    return work
