"""The training step after a checkpoint against a plain step: ViT-Tiny at 224 px, batch 8, fp32, a checkpoint
of 69 MB.

A Trainer saves after every epoch of seven steps, on this machine's disk. The step after a save is all that
passes from the end of an epoch's last step to the end of the next epoch's first one: the copy of the state,
what the thread that writes it takes from the cores, the step itself. A plain step is the median of the five
steps at the end of an epoch. Torch has one thread, so that one core computes as beside a GPU, and what goes
on beside it shares the others.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from pairs import arguments, compare, save

from hpc.bench.phantoms import phantoms
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.distributed.engine import Engine
from leukotree.records.runfolder import RunFolder
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training.part import Part
from leukotree.training.trainer import Trainer

SIZE, BATCH = 224, 8


class Timed(Trainer):
    """Notes when each step ended."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ends: list[float] = []

    def _on_step(self, stage: Part) -> None:
        super()._on_step(stage)
        self.ends.append(time.perf_counter())

    def durations(self) -> list[float]:
        """Train an epoch; seconds of its steps, the first one from the end of the epoch before."""
        self.ends = self.ends[-1:] or [time.perf_counter()]
        self.epoch(evaluate=False)
        return [after - before for before, after in zip(self.ends[:-1], self.ends[1:], strict=True)]


def main() -> None:
    options = arguments(__doc__ or "")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        shards = phantoms(Path(place), SIZE, folds=2, patients=28, per_patient=4)
        spec = RunSpec().override(
            {
                "data.shards": str(shards),
                "backbone.name": "vit_tiny_patch16_224",
                "optim": {"batch_size": BATCH, "epochs": 1000},
                "engine.precision": "fp32",
            }
        )
        folder = RunFolder(Path(place), spec)
        folder.path.mkdir()
        engine = Engine(0, 1, torch.device("cpu"))
        with (
            Loader(Dataset.open(spec.data.shards), workers=engine.default_workers()) as loader,
            Timed(spec, folder, loader, engine, Runtime(quiet=True)) as trainer,
        ):
            trainer.resume()
            comparison = compare(
                "Step after a checkpoint",
                ("after a save", lambda: trainer.durations()[0]),
                ("plain step", lambda: statistics.median(trainer.durations()[-5:])),
                unit="s",
                goals={"ratio": "<= 1.5"},
                pairs=options.pairs,
            )
    if not options.no_save:
        save("checkpoint", [comparison])


if __name__ == "__main__":
    main()
