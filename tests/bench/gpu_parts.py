"""What gpu.py measures, each on the ranks of a job: steps, features, rounding, a study."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml

from leukotree.bench.clock import in_turn
from leukotree.bench.measure import measure
from leukotree.bench.setting import Row
from leukotree.data import augment
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.distributed.engine import Engine, start
from leukotree.models.classifier import Classifier, build, build_empty, normalisation
from leukotree.models.stages import stages
from leukotree.records import searchfolder
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training import costs, throughput

NO_TF32 = 1e-5
"""Relative errors of fp32 are below it; those of TF32, which has 10 bits, are near 1e-3."""
SAVING = 120.0
"""Seconds that a study has to save after its time is over."""


@dataclass(frozen=True)
class Rounding:
    """Largest errors of fp32 against fp64, relative to the largest value."""

    matmul: float
    convolution: float


@dataclass(frozen=True)
class Study:
    """What a search did within its time."""

    seconds: float
    trials: int
    """That have reported a score."""
    reports: int
    """Epochs of all trials; each trains all inner folds."""
    macro_f1: dict[str, float]
    """Variant -> the best score of a trial."""
    complete: bool


def forward_flops(spec: RunSpec, dataset: Dataset) -> int | None:
    """FLOPs of an image's forward pass through the first model; None where they cannot be counted."""
    [first, *_] = stages(spec.variant, dataset.taxonomy)
    [model] = build_empty(spec, [(first, None)], dataset.size)
    return throughput.of_model(model, spec, dataset.size)


def utilisation(
    spec: RunSpec, dataset: Dataset, images_per_s: float, peak: float | None, passes: int = costs.STEP["all"]
) -> float | None:
    """Model FLOPs of so many images per second as a share of `peak`, the FLOP/s of all devices together.

    passes: the cost of an image in forward passes. None where FLOPs or the peak are not known.
    """
    flops = forward_flops(spec, dataset)
    return passes * images_per_s * flops / peak if flops and peak else None


def parts(spec: RunSpec, only: list[str], seconds: float, scratch: Path, runtime: Runtime) -> list[Row]:
    """`leukotree bench` on this rank: of the parts `only`. Every rank calls it."""
    return measure(spec, only, seconds, scratch, scratch, runtime).rows


def rounding(runtime: Runtime) -> Rounding:
    """The errors of products and convolutions in a rank."""
    with start(runtime) as rank:
        return Rounding(*(_error(rank.device, work) for work in (torch.matmul, partial(F.conv2d, padding=1))))


def _error(device: torch.device, work: Any) -> float:
    shapes = ((512, 512), (512, 512)) if work is torch.matmul else ((8, 64, 28, 28), (64, 64, 3, 3))
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(*shape, generator=random, dtype=torch.float64) for shape in shapes)
    exact = work(a, b)
    rounded = work(a.float().to(device), b.float().to(device)).double().cpu()
    return float((rounded - exact).abs().max() / exact.abs().max())


def features(
    model: Classifier, loader: Loader, rows: np.ndarray, batch: int, rank: Engine, spec: RunSpec
) -> Iterator[torch.Tensor]:
    """(B, F) features of the frozen backbone for the rows of this rank, on its device."""
    mean, std = (rank.put(value) for value in normalisation(model))
    with torch.inference_mode():
        for images in loader.evaluate(rows, batch, rank=rank.rank, world=rank.world):
            pixels = augment.to_input(rank.put(images.images), None, spec.augment, mean, std)
            with rank.autocast(spec.engine):
                yield model.backbone(pixels).float()


def feature_pass(spec: RunSpec, batch: int, seconds: float, runtime: Runtime) -> float:
    """Images per second, of all ranks, of the backbone's features of a data set. Every rank calls it."""
    dataset = Dataset.open(spec.data.shards)
    [stage, *_] = stages(spec.variant, dataset.taxonomy)
    with start(runtime) as rank:
        workers = rank.default_workers() if runtime.workers is None else runtime.workers
        with Loader(dataset, workers=workers, pin=rank.pin) as loader:
            model = build(spec, stage, dataset.size).eval().requires_grad_(False)
            model = model.to(rank.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

            def work(count: int) -> None:
                for _ in range(count):
                    for values in features(model, loader, np.arange(len(dataset)), batch, rank, spec):
                        last = values
                last.sum().item()

            [took] = in_turn(rank, [work], seconds)
    return len(dataset) / took


def study(place: Path, settings: dict[str, Any], limit: float, device: str) -> Study:
    """Search the study in the folder `place` for at most `limit` seconds; then it saves and ends."""
    (place / "study.yaml").write_text(yaml.safe_dump(settings))
    words = [sys.executable, "-m", "hpc.cli", "sweep", "study.yaml", "--device", device]
    began = time.perf_counter()
    with open(place / "sweep.log", "w") as log:
        process = subprocess.Popen(words, cwd=place, stdout=log, stderr=subprocess.STDOUT)
        with _ended(process):
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                code = process.wait(SAVING)
    seconds = time.perf_counter() - began
    if code not in (0, 75):
        raise SystemExit(f"the study ended with code {code}: {(place / 'sweep.log').read_text()[-2000:]}")
    best: dict[str, float] = {}
    trials = reports = 0
    for searches in searchfolder.find(
        place / "results" / "runs" / settings["study"], one_study=True
    ).values():
        for folder in searches:
            rows = searchfolder.read_history(folder)
            trials, reports = trials + len({row["trial"] for row in rows}), reports + len(rows)
            variant = searchfolder.variant_of(folder)
            best[variant] = max([best.get(variant, 0.0), *(row["macro_f1"] for row in rows)])
    return Study(seconds, trials, reports, best, complete=code == 0)


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
