"""`leukotree bench`: how fast training and its parts are on this machine, their limits, and which setting to
change.

`leukotree.bench` measures the parts, on every rank. This module adds the cost of a trial and makes a report.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import sys
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.bench import trial_cost
from hpc.bench.advice import Setup, Speeds, advice, shares
from hpc.bench.phantoms import phantoms
from hpc.launching.devices import gpu_count
from hpc.launching.ranks import in_ranks
from hpc.studies.study import RUNS
from hpc.tables import align
from leukotree import config
from leukotree.errors import InputError
from leukotree.progress import say
from leukotree.runtime import Runtime
from leukotree.spec import PLAIN, RunSpec
from leukotree.spec import load as load_spec

if TYPE_CHECKING:
    from leukotree.bench.measure import Measured
    from leukotree.bench.setting import Row

PARTS = ("loader", "step", "all-reduce", "checkpoint", "trial")
PHANTOMS = {"patients": 28, "per_patient": 8}
"""The images that are drawn where no spec is given."""


@dataclasses.dataclass(frozen=True)
class Report:
    """The measurements, the machine and the settings, and the advice."""

    machine: dict[str, Any]
    setup: dict[str, Any]
    rows: list[Row]
    shares: dict[str, float]
    bottleneck: str | None
    advice: list[str]

    def as_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        rows = [{**dataclasses.asdict(row), "share": row.share} for row in self.rows]
        return {**dataclasses.asdict(self), "rows": rows}

    def lines(self) -> list[str]:
        """The machine, the settings, the table and the bottleneck, for people."""
        gpus = "".join(f", {gpu}" for gpu in self.machine["gpus"])
        lines = [
            f"{self.machine['cores']} cores, {self.machine['processor']}{gpus}, "
            f"torch {self.machine['torch']}",
            ", ".join(f"{name} {value}" for name, value in self.setup.items()),
            "",
            *_table(self.rows),
        ]
        if self.shares:
            times = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
            lines += ["", f"time of a run: {times}"]
        bottleneck = f"bottleneck: {self.bottleneck}, " if self.bottleneck else ""
        return [*lines, *(bottleneck * (number == 0) + line for number, line in enumerate(self.advice))]


def parts(only: str | None) -> list[str]:
    """The parts in a comma-separated list, in their usual order; all for None. Raises InputError for an
    unknown one."""
    named = list(PARTS) if only is None else only.split(",")
    for name in named:
        if name not in PARTS:
            raise InputError(f"--only: no measurement {name!r}; known: {', '.join(PARTS)}")
    return [name for name in PARTS if name in named]


def bench(
    path: str | None,
    overrides: Iterable[str],
    *,
    only: Collection[str],
    ranks: int,
    runtime: Runtime,
    seconds: float,
    size: int,
) -> Report:
    """Measure the parts `only`, about `seconds` each. Raises InputError for bad input.

    `path` is a RunSpec in YAML. Without it a small model is measured on phantoms of `size` pixels. They are
    drawn into a temporary folder, unless an override names shards.
    """
    import torch

    from leukotree.training import plan

    with tempfile.TemporaryDirectory(prefix="leukotree-bench-") as name:
        scratch = Path(name)
        spec = load_spec(path, overrides) if path else _default(list(overrides), scratch, size, runtime)
        if spec.variant in PLAIN:
            raise InputError(f"variant: {spec.variant} has no steps to measure; use flat")
        plan.check(spec, ranks)  # bad input is one line here, and the failure of a rank later
        measured = _measured(spec, only, ranks, runtime, seconds, scratch)
        rows = measured.rows
        if "trial" in only:
            if sys.stderr.isatty():
                say("leukotree bench: trial")
            rows = [*rows, trial_cost.trial(runtime, scratch)]
    gpus = [torch.cuda.get_device_name(index) for index in range(gpu_count(runtime))]
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor(),
        "gpus": gpus,
        "torch": torch.__version__,
    }
    setup = _setup(spec, measured, len(gpus), cache=runtime.cache is not None)
    speeds = _speeds(rows, spec.optim.batch_size)
    bottleneck, lines = advice(speeds, setup)
    return Report(machine, _described(spec, measured), rows, shares(speeds, setup), bottleneck, lines)


def _measured(
    spec: RunSpec, only: Collection[str], ranks: int, runtime: Runtime, seconds: float, scratch: Path
) -> Measured:
    from leukotree.bench import measure

    runs = next(folder for folder in (RUNS, *RUNS.parents) if folder.is_dir())
    arguments = (spec, sorted(only), seconds, runs, scratch)
    if ranks == 1:
        return measure.measure(*arguments, runtime)
    measured: Measured = in_ranks(measure.measure, *arguments, runtime=runtime, ranks=ranks)
    return measured


def _default(overrides: list[str], scratch: Path, size: int, runtime: Runtime) -> RunSpec:
    """A spec that suits a laptop, with the overrides. Its phantoms are drawn now."""
    changes = config.parse_overrides(overrides)
    small = {
        "backbone.name": "test_vit.r160_in1k",
        "optim.epochs": 16,
        "engine.precision": "bf16" if gpu_count(runtime) else "fp32",
    }
    spec = RunSpec().override({**small, **changes})  # before the drawing, which takes time
    if "data.shards" in changes:
        return spec
    return spec.override({"data.shards": str(phantoms(scratch / "phantoms", size, **PHANTOMS))})


def processor() -> str:
    """The processor's model, as the system names it."""
    text = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    names = {re.sub(r"\s+", " ", name) for name in re.findall(r"model name\s*: (.*)", text)}
    return ", ".join(sorted(names)) or platform.processor() or platform.machine()


def _described(spec: RunSpec, measured: Measured) -> dict[str, Any]:
    return {
        "variant": spec.variant,
        "backbone": spec.backbone.name,
        "size": measured.size,
        "images": measured.images,
        "batch": spec.optim.batch_size,
        "precision": spec.engine.precision,
        "compile": spec.engine.compile,
        "device": measured.device,
        "ranks": measured.ranks,
        "workers": measured.workers,
        "threads": measured.threads,
    }


def _setup(spec: RunSpec, measured: Measured, gpus: int, cache: bool) -> Setup:
    return Setup(
        cores=len(os.sched_getaffinity(0)),
        gpus=gpus,
        device=measured.device,
        ranks=measured.ranks,
        workers=measured.workers,
        threads=measured.threads,
        cache=cache,
        batch_size=spec.optim.batch_size,
        precision=spec.engine.precision,
        compile=spec.engine.compile,
        steps=spec.optim.steps_before(1, measured.images),  # of the first stage, which trains on all
        epochs=spec.optim.epochs,
    )


def _speeds(rows: list[Row], batch: int) -> Speeds:
    by_name = {row.what: row for row in rows}
    seconds = {name: row.seconds for name, row in by_name.items()}
    limit = by_name["step"].limit if "step" in by_name else None
    return Speeds(
        step=seconds.get("step"),
        bare=batch / limit if limit else None,
        loader=seconds.get("loader"),
        cached=seconds.get("loader, cached"),
        exchange=seconds.get("all-reduce"),
        held=seconds.get("checkpoint, held up"),
        written=seconds.get("checkpoint, written"),
        trial=seconds.get("trial"),
    )


def _table(rows: list[Row]) -> list[str]:
    cells = [("what", "measured", "limit", "share", "unit", "the limit is")]
    cells += [
        (row.what, _short(row.measured), _short(row.limit), _short(row.share), row.unit, row.limit_is)
        for row in rows
    ]
    return align([list(line) for line in cells])


def _short(value: float | None) -> str:
    """A number with three digits, or with all digits before the point."""
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"
