"""ZeRO 1, 2 and 3 against DDP on two ranks, one torch thread each: steps/s, and what a rank holds, for 22-28
M parameters.

Small images and few of them, so that what the strategies do differently (exchange, step, gather) shows beside
what they do alike: with larger ones the ratios come closer to 1. Memory: the bytes of AdamW's moments and of
the weights that lie in a rank's tensors between two steps, and how far its resident memory rose from before
the model was built, in processes of their own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import RESULTS, Comparison, Measure, arguments, compare, save

from hpc.bench.phantoms import phantoms
from hpc.deepspeed import settings
from hpc.launching.ranks import in_ranks
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.distributed.engine import Engine, start
from leukotree.models.stages import stages
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training.plan import plan_stage
from leukotree.training.stage_trainer import StageTrainer

SIZE, BATCH, STEPS, RANKS = 96, 8, 2, 2
MODELS = {"ViT-S/16": "vit_small_patch16_224", "ConvNeXt-T": "convnext_tiny"}
STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
RUNTIME = Runtime(device="cpu", threads=1, workers=0, quiet=True, deepspeed=settings.settings())


def build(backbone: str, strategy: str, loader: Loader, engine: Engine) -> StageTrainer:
    spec = RunSpec().override(
        {
            "backbone.name": backbone,
            "optim": {"batch_size": BATCH, "epochs": 10_000},
            "engine": {"precision": "fp32", "strategy": strategy},
        }
    )
    [stage] = stages("multilabel", loader.dataset.taxonomy)
    rows = np.arange(len(loader.dataset))
    trainer = StageTrainer(spec, plan_stage(spec, stage, rows, loader.dataset), engine, loader)
    trainer.begin()
    return trainer


def steps_per_s(trainer: StageTrainer, engine: Engine) -> Measure:
    def measure() -> float:
        engine.barrier()
        began = time.perf_counter()
        trainer.train_until(trainer.step + STEPS)
        engine.barrier()
        return STEPS / (time.perf_counter() - began)

    return measure


def speed(shards: Path, model: str, pairs: int, runtime: Runtime) -> list[Comparison]:
    """Every rank takes the same turns."""
    comparisons = []
    with start(runtime) as engine, Loader(Dataset.open(shards), workers=0) as loader:
        ddp = steps_per_s(build(MODELS[model], "ddp", loader, engine), engine)
        for strategy in STRATEGIES[1:]:
            trainer = build(MODELS[model], strategy, loader, engine)
            with contextlib.nullcontext() if engine.is_main else contextlib.redirect_stdout(io.StringIO()):
                one = compare(
                    f"Step of {model} at {SIZE} px, batch {BATCH}, {RANKS} ranks",
                    (strategy, steps_per_s(trainer, engine)),
                    ("ddp", ddp),
                    unit="steps/s",
                    goals={},
                    pairs=pairs,
                )
            comparisons.append(one)
    return comparisons


def memory(shards: Path, model: str, strategy: str, runtime: Runtime) -> dict[str, Any]:
    """10^6 bytes of the main rank."""
    with start(runtime) as engine, Loader(Dataset.open(shards), workers=0) as loader:
        if strategy != "ddp":
            os.environ["DS_ACCELERATOR"] = "cpu"
            import deepspeed  # noqa: F401 - its modules are not the model's memory
        before = resident("VmRSS")
        trainer = build(MODELS[model], strategy, loader, engine)
        trainer.train_until(STEPS)
        trainer.collect()
        optimizer = trainer.strategy.optimizer
        moments = {id(value): value for state in optimizer.state.values() for value in state.values()}
        parameters = {
            id(value): value for value in (*trainer.strategy.trained.parameters(), *optimizer.state)
        }
        shares = [value.ds_tensor for value in parameters.values() if hasattr(value, "ds_tensor")]
        return {
            "model": model,
            "strategy": strategy,
            "parameters": sum(value.numel() for value in trainer.model.parameters()),
            "moments_mb": _mb(moments.values()),
            "weights_mb": _mb([*parameters.values(), *shares]),
            "peak_growth_mb": resident("VmHWM") - before,
        }


def _mb(tensors: Any) -> float:
    kept: dict[int, torch.UntypedStorage] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
    return sum(storage.nbytes() for storage in kept.values()) / 1e6


def resident(name: str) -> float:
    """A field of this process's status, in 10^6 bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    options = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as folder:
        shards = phantoms(Path(folder), SIZE, folds=2, patients=14, per_patient=4)
        comparisons = [
            c
            for model in MODELS
            for c in in_ranks(speed, shards, model, options.pairs, runtime=RUNTIME, ranks=RANKS)
        ]
        held = [
            in_ranks(memory, shards, model, name, runtime=RUNTIME, ranks=RANKS)
            for model in MODELS
            for name in STRATEGIES
        ]
    for one in held:
        print(
            "{model}, {strategy}: moments {moments_mb:.0f} MB, weights {weights_mb:.0f} MB, "
            "rose by {peak_growth_mb:.0f} MB".format(**one)
        )
    if not options.no_save:
        save("zero", comparisons)
        path = RESULTS / "zero.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "memory": held}, indent=1) + "\n")


if __name__ == "__main__":
    main()
