"""`leukotree bench`: what training and its parts reach on this machine, each beside its limit, and which
setting to change.

The science measures itself (`leukotree.bench`, on every rank); here the cost of a trial joins it, and a table
is made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.bench.advice import Setup, Speeds, advice, shares
from hpc.launching.devices import gpu_count
from hpc.launching.ranks import in_ranks
from hpc.studies.study import RUNS, SearchId, Study
from hpc.tables import align
from leukotree import config
from leukotree import spec as specs
from leukotree.errors import InputError
from leukotree.progress import say
from leukotree.records import runfolder, searchfolder
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    from leukotree.bench.measure import Measured
    from leukotree.bench.setting import Row

PARTS = ("loader", "step", "all-reduce", "checkpoint", "trial")
PHANTOMS = {"patients": 28, "per_patient": 8}
"""The images that are drawn where no spec is named."""
TRIALS = 5
BUDGET = 0.5
"""Seconds that a trial may take beyond its training, on a slot that has done one before."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What was measured where, and what follows from it."""

    machine: dict[str, Any]
    setup: dict[str, Any]
    rows: list[Row]
    shares: dict[str, float]
    bottleneck: str | None
    advice: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        rows = [{**dataclasses.asdict(row), "share": row.share} for row in self.rows]
        return {**dataclasses.asdict(self), "rows": rows}

    def lines(self) -> list[str]:
        """The machine, the setting, the table, the bottleneck."""
        gpus = "".join(f", {gpu}" for gpu in self.machine["gpus"])
        lines = [
            f"{self.machine['cores']} cores, {self.machine['processor']}{gpus}, torch {self.machine['torch']}",
            ", ".join(f"{name} {value}" for name, value in self.setup.items()),
            "",
            *_table(self.rows),
        ]
        if self.shares:
            lines += [
                "",
                "time of a run: " + ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items()),
            ]
        named = f"bottleneck: {self.bottleneck}, " if self.bottleneck else ""
        return [*lines, *(named * (number == 0) + line for number, line in enumerate(self.advice))]


def parts(only: str | None) -> list[str]:
    """The parts that a comma-separated list names, all for None. Raises InputError for an unknown one."""
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
    """Measure the parts `only`, about `seconds` each.

    `path` is a RunSpec in YAML; without it a small model is measured on phantoms of `size` pixels, drawn into
    a temporary
    folder unless an override names shards. Raises InputError for bad input.
    """
    import torch

    from leukotree.training import plan

    with tempfile.TemporaryDirectory(prefix="leukotree-bench-") as name:
        scratch = Path(name)
        spec = specs.load(path, overrides) if path else _default(list(overrides), scratch, size, runtime)
        plan.check(spec, ranks)  # here, so that bad input is one line and not the end of some rank
        measured = _measured(spec, only, ranks, runtime, seconds, scratch)
        rows = measured.rows
        if "trial" in only:
            if sys.stderr.isatty():
                say("leukotree bench: trial")
            rows = [*rows, trial(runtime, scratch)]
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
    asked = (spec, sorted(only), seconds, runs, scratch)
    if ranks == 1:
        return measure.measure(*asked, runtime)
    found: Measured = in_ranks(measure.measure, *asked, runtime=runtime, ranks=ranks)
    return found


def _default(overrides: list[str], scratch: Path, size: int, runtime: Runtime) -> RunSpec:
    """A spec for a laptop, on phantoms drawn now, as the overrides change it."""
    changes = config.parse_overrides(overrides)
    small = {
        "backbone.name": "test_vit.r160_in1k",
        "optim.epochs": 16,
        "engine.precision": "bf16" if gpu_count(runtime) else "fp32",
    }
    spec = RunSpec().override({**small, **changes})  # before anything is drawn
    if "data.shards" in changes:
        return spec
    return spec.override({"data.shards": str(phantoms(scratch / "phantoms", size, **PHANTOMS))})


def phantoms(folder: Path, size: int, folds: int = 4, **amounts: int) -> Path:
    """Phantoms drawn and packed at `size` pixels; the folder of their shards."""
    from leukotree.data import phantom
    from leukotree.data.pack import pack

    manifest = phantom.write(folder / "images", size=size, **amounts)
    pack(manifest, folder / "shards", folds=folds, size=size)
    return folder / "shards"


def trial(runtime: Runtime, scratch: Path) -> Row:
    """Seconds of a trial beyond its training, on a slot that has done one before; the median over a tiny
    search."""
    from hpc.search import sweep
    from leukotree.bench.setting import Row

    study = config.parse(
        Study,
        {
            "study": "bench",
            "base": {
                "data": {"shards": str(phantoms(scratch / "tiny", 32, patients=28, per_patient=1))},
                "backbone": {"name": "test_vit"},
                "optim": {"epochs": 1, "batch_size": 7},
                "engine": {"precision": "fp32"},
            },
            "variants": ["flat"],
            "folds": {"outer": 4, "inner": 2},
            "search": {
                "nested": False,
                "algorithm": "random",
                "scheduler": "none",
                "trials": TRIALS,
                "space": {"loss.gamma": {"uniform": [0, 5]}},
            },
        },
        "bench",
    )
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, timm"], check=True)
    imports = time.perf_counter() - began
    with contextlib.chdir(scratch):
        sweep.sweep(study, concurrency=1, runtime=dataclasses.replace(runtime, cache=None, quiet=True))
        seconds = statistics.median(overheads(study, study.search_ids[0]))
    return Row(
        "trial",
        "s",
        seconds,
        BUDGET,
        f"budget; a new process imports torch and timm for {imports:.1f} s",
        seconds,
    )


def overheads(study: Study, search_id: SearchId) -> list[float]:
    """`beyond_training` of a search that had one slot."""
    folder = study.search_folder(search_id)
    ends = {
        row["trial"]: row["seconds"] for row in searchfolder.read_history(folder)
    }  # the last row of a trial stays
    return beyond_training(
        sorted((end, searchfolder.trial_folder(folder, number)) for number, end in ends.items())
    )


def beyond_training(trials: Iterable[tuple[float, Path]]) -> list[float]:
    """What each trial but the first took beyond its training: seconds from the end of the trial before to its
    own end, less those that its runs trained by their own record. So models, scores, checkpoints and
    predictions count, and all of Ray.

    Args:
        trials: (end in seconds, folder of the trial's runs) of trials one after another on a slot.
    """
    costs = []
    for (before, _), (end, runs) in itertools.pairwise(trials):
        rows = [row for run in runs.iterdir() for row in runfolder.read_metrics(run)]
        costs.append(end - before - sum(row["seconds"] for row in rows if row["kind"] == "epoch"))
    return costs


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
        steps=-(-measured.images // spec.optim.batch_size),
        epochs=spec.optim.epochs,
    )


def _speeds(rows: list[Row], batch: int) -> Speeds:
    found = {row.what: row for row in rows}
    seconds = {name: row.seconds for name, row in found.items()}
    limit = found["step"].limit if "step" in found else None
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
    """Three digits, or all before the point."""
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"
