"""The figures of a machine with GPUs, in about 25 minutes: results/bench/<card>.json, and its table in
results/bench/README.md.

    python tests/bench/gpu.py                             where the GPUs are
    srun --gpus=2 --cpus-per-gpu=8 python tests/bench/gpu.py
    python tests/bench/gpu.py --device cpu --tiny         whether the script works, without a GPU

It measures training steps of a ViT-S/16 at 384 px whose weights all train, beside a bare loop: in bf16, in
bf16 compiled, and in fp32 with the error that shows that no TF32 rounds it; the loader; with two GPUs two
ranks and the exchange of gradients by NCCL; the features of a frozen backbone; and a search of three variants
that ends after ten minutes. Images are phantoms and weights are random: speed does not depend on them.

MFU: model FLOPs (torch.utils.flop_counter; a step counts as three forward passes) over the peak of the cards,
which is from the makers' data sheets (leukotree.training.throughput.PEAKS).
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_parts
import torch
from pairs import RESULTS, commit, machine

from hpc.bench.phantoms import phantoms
from hpc.launching.ranks import in_ranks, prepare_ranks
from leukotree.data.dataset import Dataset
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training import throughput


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    backbone: str
    size: int
    """Pixels."""
    batch: int
    """Images of a rank and step; features are computed for four times as many."""
    seconds: float
    """Of each measurement."""
    study_s: float
    trials: int
    epochs: int
    patients: int
    per_patient: int


FULL = Scale("vit_small_patch16_384", 384, 64, 20.0, 600.0, trials=12, epochs=10, patients=84, per_patient=12)
TINY = Scale("test_vit", 48, 8, 0.01, 600.0, trials=1, epochs=1, patients=28, per_patient=2)
KINDS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "bf16, compiled": {"precision": "bf16", "compile": True},
    "fp32": {"precision": "fp32"},
}


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    value: float
    unit: str
    mfu: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Bench:
    """What is measured, and on what."""

    scale: Scale
    device: str
    card: str
    cards: int
    shards: Path
    scratch: Path

    @property
    def runtime(self) -> Runtime:
        return Runtime(device=self.device, quiet=True)

    def spec(self, ranks: int = 1, **engine: Any) -> RunSpec:
        return RunSpec().override(
            {
                "variant": "flat",
                "data.shards": str(self.shards),
                "backbone.name": self.scale.backbone,
                "optim": {"batch_size": ranks * self.scale.batch},
                "engine": engine,
            }
        )

    def mfu(self, spec: RunSpec, images_per_s: float, ranks: int = 1, passes: int = 3) -> float | None:
        peak = throughput.named_peak_flops(self.card, spec.engine.precision)
        dataset = Dataset.open(self.shards)
        return gpu_parts.utilisation(spec, dataset, images_per_s, peak and ranks * peak, passes)

    def rows(self) -> Iterator[Row]:
        for kind, engine in KINDS.items():
            if engine.get("compile") and self.device == "cpu":
                continue  # it compiles C++ for a minute
            yield from self.steps(f"step, {kind}", self.spec(**engine), ["step"])
        yield from self.steps("loader", self.spec(), ["loader"])
        if self.cards > 1 or self.device == "cpu":
            two = self.spec(ranks=2, precision="bf16")
            yield from self.steps("step of two ranks, bf16", two, ["step", "all-reduce"], ranks=2)
        yield self.rounding()
        yield self.features()
        yield self.study()

    def steps(self, name: str, spec: RunSpec, parts: list[str], ranks: int = 1) -> Iterator[Row]:
        """Rows of `leukotree bench`."""
        measured = in_ranks(
            gpu_parts.parts, spec, parts, self.scale.seconds, self.scratch, runtime=self.runtime, ranks=ranks
        )
        for row in measured:
            what = name if row.what == "step" else row.what
            mfu = self.mfu(spec, row.measured, ranks) if row.what == "step" else None
            yield Row(what, row.measured, row.unit, mfu, f"{row.limit_is}: {row.limit:.4g}")

    def rounding(self) -> Row:
        errors = in_ranks(gpu_parts.rounding, runtime=self.runtime, ranks=1)
        largest = max(errors.matmul, errors.convolution)
        verdict = "fp32 as it says" if largest < gpu_parts.NO_TF32 else "rounded: TF32 is on"
        return Row("fp32, largest relative error", largest, "", note=verdict)

    def features(self) -> Row:
        spec = self.spec(precision="bf16")
        batch = 4 * self.scale.batch
        speed = in_ranks(
            gpu_parts.feature_pass, spec, batch, self.scale.seconds, runtime=self.runtime, ranks=1
        )
        note = f"batches of {batch}, decoding included"
        return Row(
            "features of a frozen backbone, bf16", speed, "images/s", self.mfu(spec, speed, passes=1), note
        )

    def study(self) -> Row:
        """A search of three variants on all GPUs, for a limited time."""
        done = gpu_parts.study(self.scratch, self._study(), self.scale.study_s, self.device)
        scores = ", ".join(f"{variant} {score:.3f}" for variant, score in done.macro_f1.items())
        end = "complete" if done.complete else "stopped by its time limit"
        note = f"{done.trials} trials in {done.seconds:.0f} s, {end}; best macro-F1 {scores or 'none yet'}"
        return Row("study: epochs of trials per minute", 60 * done.reports / done.seconds, "1/min", note=note)

    def _study(self) -> dict[str, Any]:
        return {
            "study": "gpu",
            "base": {
                "data": {"shards": str(self.shards)},
                "backbone": {"name": self.scale.backbone},
                "optim": {"epochs": self.scale.epochs, "batch_size": self.scale.batch},
                "engine": {"precision": "bf16"},
            },
            "variants": ["flat", "base", "multilabel"],
            "folds": {"outer": 2, "inner": 2},
            "search": {
                "nested": False,
                "trials": self.scale.trials,
                "algorithm": "random",
                "scheduler": "none",
                "space": {"optim.lr": {"loguniform": [1e-4, 1e-3]}},
            },
        }


def main() -> None:
    options = _options()
    prepare_ranks(2)  # each part begins with processes that have imported everything
    scale = TINY if options.tiny else FULL
    on_cpu = options.device == "cpu"
    card = "CPU" if on_cpu else torch.cuda.get_device_name(0)
    with tempfile.TemporaryDirectory(prefix="leukotree-gpu-") as folder:
        place = Path(folder)
        shards = phantoms(place, scale.size, folds=2, patients=scale.patients, per_patient=scale.per_patient)
        bench = Bench(scale, options.device, card, 0 if on_cpu else torch.cuda.device_count(), shards, place)
        known = throughput.named_peak_flops(card, "bf16")
        print(
            f"{card}: " + (f"peak {known / 1e12:g} TFLOP/s in bf16" if known else "no known peak, so no MFU")
        )
        rows = []
        for row in bench.rows():
            rows.append(row)
            print(_line(row), flush=True)
            if options.out:  # what is measured stays where the job ends early
                _save(options.out, bench, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    parser.add_argument(
        "--tiny", action="store_true", help="a small model and short measurements; saves only with --out"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"default: {RESULTS.relative_to(RESULTS.parents[1])}"
    )
    options = parser.parse_args()
    if options.device == "cpu" and not options.tiny:
        parser.exit(2, "gpu.py: --device cpu only tries the script; give --tiny as well\n")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "gpu.py: no GPU here; run it where one is, or try it: --device cpu --tiny\n")
    options.out = options.out or (None if options.tiny else RESULTS)
    return options


def _line(row: Row) -> str:
    mfu = f", MFU {row.mfu:.1%}" if row.mfu is not None else ""
    return f"{row.what}: {row.value:.4g} {row.unit}{mfu} ({row.note})"


def _save(folder: Path, bench: Bench, rows: list[Row]) -> None:
    peaks = {kind: throughput.named_peak_flops(bench.card, kind) for kind in ("bf16", "fp32")}
    stored = {
        "card": bench.card,
        "cards": bench.cards,
        "peak_flops": peaks,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "measured": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "scale": vars(bench.scale),
        "rows": [vars(row) for row in rows],
    }
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", bench.card.lower()).strip("-")
    (folder / f"{name}.json").write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
