"""A run that one of its ranks interrupts: by a signal, at a drawn place."""

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
KINDS = ("kill one", "kill all", "SIGTERM", "SIGUSR2")


@dataclass(frozen=True)
class Interruption:
    """A signal that a rank sends when it passes a place for the n-th time."""

    how: str
    where: str
    after: int
    rank: int
    """The rank that sends it."""
    to_launcher: bool
    """Whether a signal goes to the launcher, as a scheduler's does, or to this rank alone."""

    @classmethod
    def draw(cls, numbers: random.Random, ranks: int) -> Interruption:
        where = numbers.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        rank = 0 if where == "saving" else numbers.randrange(ranks)
        return cls(numbers.choice(KINDS), where, numbers.randrange(1, 5), rank, numbers.random() < 0.5)

    def send(self) -> None:
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
    """Process ids of the other ranks: the server that forked this one forked them too."""
    server = os.getppid()
    pids = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return [int(pid) for pid in pids if int(pid) != os.getpid()]


def run(spec: RunSpec, root: Path, interruption: Interruption | None, runtime: Runtime) -> None:
    """Train a run, scored after each epoch, until it ends or is interrupted."""
    if interruption is not None and interruption.rank == int(os.environ["RANK"]):
        owner, name = PLACES[interruption.where]
        setattr(owner, name, _interrupted(getattr(owner, name), interruption))
    for _ in train.lockstep([spec], root, runtime):
        pass


def _interrupted(function: Callable[..., Any], interruption: Interruption) -> Callable[..., Any]:
    calls = 0

    def wrapper(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == interruption.after:
            interruption.send()
        return function(*arguments, **options)

    return wrapper
