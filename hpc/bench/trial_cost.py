"""The cost of a trial beyond its training, measured by a tiny search on Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.bench.phantoms import phantoms
from hpc.search import sweep
from hpc.search.trial_place import TrialPlace
from hpc.studies.study import SearchId, Study
from leukotree import config
from leukotree.records import runfolder, searchfolder
from leukotree.runtime import Runtime

if TYPE_CHECKING:
    from leukotree.bench.setting import Row

TRIALS = 5
BUDGET = 0.5
"""Seconds that a trial may take beyond its training, on a slot that has trained one before."""


def trial(runtime: Runtime, scratch: Path) -> Row:
    """Seconds of a trial beyond its training, on a slot that has trained one before: the median over the
    trials of a tiny search."""
    from leukotree.bench.setting import Row

    study = _study(phantoms(scratch / "tiny", 32, patients=28, per_patient=1))
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, timm"], check=True)
    imports = time.perf_counter() - began
    runtime = dataclasses.replace(runtime, cache=None, quiet=True)
    with contextlib.chdir(scratch):
        sweep.sweep(study, TrialPlace(concurrency=1), runtime)
        seconds = statistics.median(overheads(study, study.search_ids[0]))
    limit_is = f"budget; a new process imports torch and timm for {imports:.1f} s"
    return Row("trial", "s", seconds, BUDGET, limit_is, seconds)


def _study(shards: Path) -> Study:
    search = {
        "nested": False,
        "algorithm": "random",
        "scheduler": "none",
        "trials": TRIALS,
        "space": {"loss.gamma": {"uniform": [0, 5]}},
    }
    base = {
        "data": {"shards": str(shards)},
        "backbone": {"name": "test_vit"},
        "optim": {"epochs": 1, "batch_size": 7},
        "engine": {"precision": "fp32"},
    }
    fields = {
        "study": "bench",
        "base": base,
        "variants": ["flat"],
        "folds": {"outer": 4, "inner": 2},
        "search": search,
    }
    return config.parse(Study, fields, "bench")


def overheads(study: Study, search_id: SearchId) -> list[float]:
    """`beyond_training` of a search that had one slot."""
    folder = study.search_folder(search_id)
    # The last row of a trial is its end.
    ends = {row["trial"]: row["seconds"] for row in searchfolder.read_history(folder)}
    return beyond_training(
        sorted((end, searchfolder.trial_folder(folder, number)) for number, end in ends.items())
    )


def beyond_training(trials: Iterable[tuple[float, Path]]) -> list[float]:
    """The seconds of each trial but the first beyond its training: from the end of the trial before to its
    own end, less the seconds of its epochs in its runs' metrics. They include models, scores, checkpoints,
    predictions and all of Ray.

    Args:
        trials: (end in seconds, folder of the trial's runs) of trials one after another on a slot.
    """
    costs = []
    for (before, _), (end, runs) in itertools.pairwise(trials):
        rows = [row for run in runs.iterdir() for row in runfolder.read_metrics(run)]
        costs.append(end - before - sum(row["seconds"] for row in rows if row["kind"] == "epoch"))
    return costs
