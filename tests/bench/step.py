"""Training steps at 224 px, fp32, on a CPU: a rank of LeukoTree against a bare PyTorch loop in the default
environment, and `multilabel` against `flat`.

Ours is a StageTrainer of a rank as `leukotree train` starts it, with its loader on packed phantoms, the
default augmentation, focal loss, schedule and bookkeeping. The bare loop has the same network, fused AdamW,
channels last and cross-entropy, on a normalised float batch that lies in memory. Each is a process of its
own, in short turns: what differs is also how a process deals with its memory.

With one thread of torch one core computes and another one decodes, as beside a GPU. With two threads the two
cores do both.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from apart import comparisons, in_turn, serve, workers
from pairs import Comparison, parser, save

from hpc.bench.phantoms import phantoms
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.distributed import engine
from leukotree.models.classifier import build, parameter_groups
from leukotree.models.stages import stages
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec, Variant
from leukotree.training.plan import plan_stage
from leukotree.training.stage_trainer import StageTrainer

SIZE = 224
LITE0, TINY = "tf_efficientnet_lite0", "vit_tiny_patch16_224"
AS_FAST = {"speed": {"ratio": ">= 0.97"}}
MEMORY = {"memory": {"ratio": "<= 1.5"}}


@dataclass(frozen=True)
class Work:
    """What a process does in a turn: `steps` training steps."""

    shards: str
    model: str
    batch: int
    threads: int
    steps: int
    bare: bool = False
    variant: Variant = "flat"
    precision: str = "fp32"
    channels_last: bool = True
    """Of the bare loop."""

    @property
    def spec(self) -> RunSpec:
        return RunSpec().override(
            {
                "variant": self.variant,
                "backbone.name": self.model,
                "optim": {"batch_size": self.batch, "epochs": 10_000},
                "engine.precision": self.precision,
            }
        )

    @property
    def images(self) -> int:
        return self.batch * self.steps

    @property
    def words(self) -> list[str]:
        """The words of its process after `python`."""
        return [__file__, "--work", json.dumps(asdict(self))]


def against(
    question: str,
    ours: tuple[str, Work, Mapping[str, str]],
    other: tuple[str, Work, Mapping[str, str]],
    pairs: int,
    goals: Mapping[str, dict[str, str]],
) -> list[Comparison]:
    """Two (name, work, variables of its environment) in turn."""
    with workers((ours[1].words, ours[2]), (other[1].words, other[2])) as (one, two):
        segments = in_turn(one, two, pairs)
    return comparisons(question, (ours[0], other[0]), segments, ours[1].images, goals)


def ours(work: Work) -> None:
    dataset = Dataset.open(work.shards)
    [stage] = stages(work.variant, dataset.taxonomy)
    runtime = Runtime(device="cpu", threads=work.threads)
    with engine.start(runtime) as rank, Loader(dataset, workers=1) as loader:
        trainer = StageTrainer(
            work.spec, plan_stage(work.spec, stage, np.arange(len(dataset)), dataset), rank, loader
        )
        trainer.begin()

        def steps() -> None:
            trainer.train_until(trainer.step + work.steps)
            trainer.collect()

        serve(steps)


def bare(work: Work) -> None:
    torch.set_num_threads(work.threads)
    taxonomy = Dataset.open(work.shards).taxonomy
    [stage] = stages("flat", taxonomy)
    memory = torch.channels_last if work.channels_last else torch.contiguous_format
    model = build(work.spec, stage, SIZE).to(memory_format=memory).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, work.spec), fused=True)
    batch = torch.randn(work.batch, 3, SIZE, SIZE).to(memory_format=memory)
    targets = torch.arange(work.batch) % len(taxonomy.leaves)

    def steps() -> None:
        for _ in range(work.steps):
            F.cross_entropy(model(batch), targets).backward()
            optimizer.step()
            optimizer.zero_grad()

    serve(steps)


def questions(shards: Path, pairs: int) -> list[Comparison]:
    """Every comparison of this script."""
    beside = Work(str(shards), TINY, batch=8, threads=1, steps=4)
    measured = against(
        "Training step of `flat`, ViT-Tiny at 224 px",
        ("LeukoTree", beside, {}),
        ("bare loop", replace(beside, bare=True), {}),
        pairs,
        AS_FAST,
    )
    measured += against(
        "Training step of `multilabel`",
        ("`multilabel`", replace(beside, variant="multilabel"), {}),
        ("`flat`", beside, {}),
        pairs,
        AS_FAST,
    )
    for name, model, goal in (("EfficientNet-Lite0", LITE0, ">= 1.4"), ("ViT-Tiny", TINY, ">= 0.97")):
        work = Work(str(shards), model, batch=32, threads=2, steps=1)
        measured += against(
            f"Step of `flat`, {name}, batch 32, two threads",
            ("LeukoTree", work, {}),
            ("bare loop", replace(work, bare=True), {}),
            pairs,
            {"speed": {"ratio": goal}, **MEMORY},
        )
    return measured


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--work", help="for its own processes")
    options = arguments.parse_args()
    if options.work:
        work = Work(**json.loads(options.work))
        (bare if work.bare else ours)(work)
        return
    with tempfile.TemporaryDirectory() as folder:
        shards = phantoms(Path(folder), SIZE, folds=2, patients=14, per_patient=4)
        measured = questions(shards, options.pairs)
    if not options.no_save:
        save("step", measured)


if __name__ == "__main__":
    main()
