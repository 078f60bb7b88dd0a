"""Training steps of a ViT-Tiny at 224 px, batch 8, fp32: ours against a bare PyTorch loop, and `multilabel`
against `flat`.

Ours is a StageTrainer with its loader on packed phantoms, the default augmentation, focal loss, schedule and
bookkeeping. The bare loop has the same network, fused AdamW, channels last and cross-entropy, on normalised
float batches that lie in memory. Torch has one thread in both: as beside a GPU, one core computes and another
one decodes.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pairs import Measure, arguments, compare, save

from hpc.bench.phantoms import phantoms
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.distributed.engine import Engine
from leukotree.models.classifier import build, parameter_groups
from leukotree.models.stages import stages
from leukotree.spec import RunSpec, Variant
from leukotree.training.plan import plan_stage
from leukotree.training.stage_trainer import StageTrainer

SIZE, BATCH, STEPS = 224, 8, 7
"""Seven steps are one epoch of the phantoms below."""
ENGINE = Engine(0, 1, torch.device("cpu"))


def ours(spec: RunSpec, variant: Variant, loader: Loader) -> Measure:
    spec = spec.override({"variant": variant})
    dataset = loader.dataset
    [stage] = stages(variant, dataset.taxonomy)
    trainer = StageTrainer(spec, plan_stage(spec, stage, np.arange(len(dataset)), dataset), ENGINE, loader)
    trainer.begin()

    def measure() -> float:
        began = time.perf_counter()
        trainer.train_until(trainer.step + STEPS)
        trainer.collect()
        return STEPS * BATCH / (time.perf_counter() - began)

    return measure


def bare(spec: RunSpec, dataset: Dataset) -> Measure:
    [stage] = stages("flat", dataset.taxonomy)
    model = build(spec, stage, SIZE).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, spec), fused=True)
    images = [torch.randn(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last) for _ in range(STEPS)]
    targets = torch.arange(BATCH) % len(dataset.taxonomy.leaves)

    def measure() -> float:
        began = time.perf_counter()
        for batch in images:
            F.cross_entropy(model(batch), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        return STEPS * BATCH / (time.perf_counter() - began)

    return measure


def main() -> None:
    options = arguments(__doc__ or "")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset.open(phantoms(Path(folder), SIZE, folds=2, patients=14, per_patient=4))
        spec = RunSpec().override(
            {
                "backbone.name": "vit_tiny_patch16_224",
                "optim": {"batch_size": BATCH, "epochs": 10_000},
                "engine.precision": "fp32",
            }
        )
        with Loader(dataset, workers=1) as loader:
            flat, multilabel = (ours(spec, variant, loader) for variant in ("flat", "multilabel"))
            comparisons = [
                compare(
                    "Training step of `flat`, ViT-Tiny at 224 px",
                    ("LeukoTree", flat),
                    ("bare loop", bare(spec, dataset)),
                    unit="images/s",
                    goals={"ratio": ">= 0.97"},
                    pairs=options.pairs,
                ),
                compare(
                    "Training step of `multilabel`",
                    ("`multilabel`", multilabel),
                    ("`flat`", flat),
                    unit="images/s",
                    goals={"ratio": ">= 0.97"},
                    pairs=options.pairs,
                ),
            ]
    if not options.no_save:
        save("step", comparisons)


if __name__ == "__main__":
    main()
