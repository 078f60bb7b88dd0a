"""Training steps at 224 px, batch 32, fp32, on two threads of a CPU: a rank of LeukoTree and a bare PyTorch
loop in the default environment.

Each figure is of a process of its own, since what is measured is how a process deals with its memory: a bare
loop gives its activations back to the system at each step, and gets new pages for the next ones. The bare
loop has the same network, fused AdamW, channels last and cross-entropy, on normalised float batches that lie
in memory. LeukoTree also decodes, augments and normalises its images.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pairs import Measure, compare, save

from hpc.bench.phantoms import phantoms
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.distributed import engine
from leukotree.models.classifier import build, parameter_groups
from leukotree.models.stages import stages
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training.plan import plan_stage
from leukotree.training.stage_trainer import StageTrainer

SIZE, BATCH, STEPS, WARM, THREADS = 224, 32, 4, 2, 2
MODELS = {"EfficientNet-Lite0": "tf_efficientnet_lite0", "ViT-Tiny": "vit_tiny_patch16_224"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=3, help="pairs per comparison (default %(default)s)")
    parser.add_argument("--no-save", action="store_true", help="print only, do not write to results/bench")
    parser.add_argument("--process", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        who, model, shards = options.process
        print(json.dumps({"ours": ours, "bare": bare}[who](_spec(model), Dataset.open(shards))))
        return
    with tempfile.TemporaryDirectory() as folder:
        shards = phantoms(Path(folder), SIZE, folds=2, patients=14, per_patient=4)
        comparisons = []
        for name, model in MODELS.items():
            goals = {"ratio": ">= 1.4" if model == "tf_efficientnet_lite0" else ">= 0.97"}
            peaks: dict[str, list[float]] = {"ours": [], "bare": []}
            comparisons.append(
                compare(
                    f"CPU step of `flat`, {name} at {SIZE} px, batch {BATCH}, two threads",
                    ("LeukoTree", _elsewhere("ours", model, shards, peaks)),
                    ("bare loop", _elsewhere("bare", model, shards, peaks)),
                    unit="images/s",
                    goals=goals,
                    pairs=options.pairs,
                    warmup=False,
                )
            )
            stored = {who: iter(values) for who, values in peaks.items()}
            comparisons.append(
                compare(
                    f"Its peak memory, {name}",
                    ("LeukoTree", partial(next, stored["ours"])),
                    ("bare loop", partial(next, stored["bare"])),
                    unit="GB",
                    goals={"ratio": "<= 1.5"},
                    pairs=options.pairs,
                    warmup=False,
                )
            )
    if not options.no_save:
        save("step_cpu", comparisons)


def _elsewhere(who: str, model: str, shards: Path, peaks: dict[str, list[float]]) -> Measure:
    """Images per second of a fresh process; its peak memory in GB is kept."""

    def measure() -> float:
        words = [sys.executable, __file__, "--process", who, model, str(shards)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        speed, gigabytes = json.loads(done.stdout.splitlines()[-1])
        peaks[who].append(gigabytes)
        return float(speed)

    return measure


def _spec(model: str) -> RunSpec:
    return RunSpec().override(
        {
            "backbone.name": model,
            "optim": {"batch_size": BATCH, "epochs": 10_000},
            "engine.precision": "fp32",
        }
    )


def ours(spec: RunSpec, dataset: Dataset) -> tuple[float, float]:
    """(images per second, peak GB) of a rank."""
    [stage] = stages("flat", dataset.taxonomy)
    with engine.start(Runtime(device="cpu", threads=THREADS)) as rank, Loader(dataset, workers=1) as loader:
        plan = plan_stage(spec, stage, np.arange(len(dataset)), dataset)
        trainer = StageTrainer(spec, plan, rank, loader)
        trainer.begin()
        trainer.train_until(WARM)
        trainer.collect()
        began = time.perf_counter()
        trainer.train_until(WARM + STEPS)
        trainer.collect()
        return STEPS * BATCH / (time.perf_counter() - began), _peak()


def bare(spec: RunSpec, dataset: Dataset) -> tuple[float, float]:
    """(images per second, peak GB) of a plain loop."""
    torch.set_num_threads(THREADS)
    [stage] = stages("flat", dataset.taxonomy)
    model = build(spec, stage, SIZE).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, spec), fused=True)
    batch = torch.randn(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    targets = torch.arange(BATCH) % len(dataset.taxonomy.leaves)
    for step in range(WARM + STEPS):
        if step == WARM:
            began = time.perf_counter()
        F.cross_entropy(model(batch), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return STEPS * BATCH / (time.perf_counter() - began), _peak()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
