"""A run that one of its ranks interrupts, by a signal at a drawn moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training import checkpoint
from leukotree.training import run as train
from leukotree.training.stage_trainer import StageTrainer
from leukotree.training.trainer import Trainer

PLACES: dict[str, tuple[Any, str]] = {
    "training": (Trainer, "_on_step"),
    "evaluation": (StageTrainer, "logits"),
    "saving": (checkpoint, "_sync"),  # three times in each save, on the main rank only
}
WEIGHTS = {"training": 10, "evaluation": 3, "saving": 7}
BLOWS = ("kill one", "kill all", "SIGTERM", "SIGUSR2")


@dataclass(frozen=True)
class Blow:
    """An interruption, by a rank that passes a place for the n-th time."""

    how: str
    where: str
    after: int
    rank: int
    """Of the rank that strikes."""
    to_launcher: bool
    """A signal goes to the launcher, as a scheduler's does, or to this rank alone."""

    @classmethod
    def draw(cls, numbers: random.Random, ranks: int) -> Blow:
        where = numbers.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        rank = 0 if where == "saving" else numbers.randrange(ranks)
        return cls(numbers.choice(BLOWS), where, numbers.randrange(1, 5), rank, numbers.random() < 0.5)

    def strike(self) -> None:
        if self.how == "kill all":
            for sibling in _siblings():
                os.kill(sibling, signal.SIGKILL)
        if self.how.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        launcher = multiprocessing.parent_process()
        assert launcher is not None
        assert launcher.pid is not None
        os.kill(launcher.pid if self.to_launcher else os.getpid(), signal.Signals[self.how])


def _siblings() -> list[int]:
    """The other ranks: what the server forked that forked this one."""
    server = os.getppid()
    pids = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return [int(pid) for pid in pids if int(pid) != os.getpid()]


def run(spec: RunSpec, root: Path, blow: Blow | None, runtime: Runtime) -> None:
    """Train a run, scored after each epoch, until it ends or the blow falls."""
    if blow is not None and blow.rank == int(os.environ["RANK"]):
        owner, name = PLACES[blow.where]
        setattr(owner, name, _struck(getattr(owner, name), blow))
    for _ in train.lockstep([spec], root, runtime):
        pass


def _struck(function: Callable[..., Any], blow: Blow) -> Callable[..., Any]:
    passed = 0

    def wrapper(*arguments: Any, **options: Any) -> Any:
        nonlocal passed
        passed += 1
        if passed == blow.after:
            blow.strike()
        return function(*arguments, **options)

    return wrapper
