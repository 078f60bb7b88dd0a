"""The cost of a trial beside its training: `leukotree sweep` against Ray Tune with its defaults.

Both run the same trials (two inner folds of a tiny model on small phantoms, two epochs, scored after each)
one after another on one slot of one core, and report after each epoch. By default a trial of Ray Tune is a
function in a new process, which imports torch and timm, opens the data and builds its models. LeukoTree's
resets a process that has done so. The cost is the time from the end of the trial before to the end of this
one, without the seconds of training that its runs recorded: scores, checkpoints and predictions count too. A
slot's first trial is left out on both sides. Each side is the median of its trials.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from pairs import arguments, compare, save
from ray import tune

from hpc.bench import trial_cost
from hpc.search import cluster
from hpc.search.sweep import sweep
from hpc.search.trial_place import TrialPlace
from hpc.studies.study import Study
from leukotree.config import parse
from leukotree.data import phantom
from leukotree.data.pack import pack
from leukotree.runtime import Runtime

TRIALS = 4
RUNTIME = Runtime(device="cpu", threads=1, quiet=True)


def study(shards: Path, name: str) -> Study:
    fields = {
        "study": name,
        "base": {
            "data": {"shards": str(shards)},
            "backbone": {"name": "test_vit"},
            "optim": {"epochs": 2, "batch_size": 16},
            "engine": {"precision": "fp32"},
        },
        "variants": ["flat"],
        "folds": {"outer": 2, "inner": 2},
        "search": {
            "nested": False,
            "trials": TRIALS,
            "scheduler": "none",
            "space": {"optim.lr": {"loguniform": [1e-4, 1e-2]}},
        },
    }
    return parse(Study, fields, "bench")


def ours(shards: Path, name: str) -> float:
    plan = study(shards, name)
    sweep(plan, TrialPlace(concurrency=1), RUNTIME)
    return median(trial_cost.overheads(plan, plan.search_ids[0]))


def default(shards: Path, name: str) -> float:
    """A function that trains and reports, as the examples of Ray Tune have it."""
    place = Path.cwd() / name
    with cluster.connect(None):
        trainable = tune.with_parameters(train_trial, plan=study(shards, name), runs=place / "runs")
        grid = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={"optim.lr": tune.loguniform(1e-4, 1e-2)},
            tune_config=tune.TuneConfig(
                metric="macro_f1", mode="max", num_samples=TRIALS, max_concurrent_trials=1
            ),
            run_config=tune.RunConfig(storage_path=str(place / "ray"), verbose=0),
        ).fit()
        results = [grid[index].metrics or {} for index in range(len(grid))]
    trials = sorted((metrics["ended"], place / "runs" / metrics["trial_id"]) for metrics in results)
    return median(trial_cost.beyond_training(trials))


def train_trial(config: dict[str, Any], plan: Study, runs: Path) -> None:
    from leukotree.training import run

    for row in run.lockstep(
        plan.trial_specs("flat", config, 0), runs / tune.get_context().get_trial_id(), RUNTIME
    ):
        tune.report({"epoch": row["epoch"], "macro_f1": row["macro_f1"], "ended": time.time()})


def median(costs: list[float]) -> float:
    assert len(costs) == TRIALS - 1
    return statistics.median(costs)


def main() -> None:
    options = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # run folders lie below the current one
        manifest = phantom.write(Path("images"), patients=28, per_patient=6, size=64)
        shards = Path("shards").absolute()
        pack(manifest, shards, folds=2, size=48)
        names = iter(f"s{number}" for number in range(1000))
        comparison = compare(
            "A trial beyond its training",
            ("LeukoTree", lambda: ours(shards, next(names))),
            ("Ray Tune's default", lambda: default(shards, next(names))),
            unit="s",
            goals={"ratio": "<= 0.17", "ours": "< 0.5", "other": "> 3"},
            pairs=options.pairs,
            warmup=False,
        )
    if not options.no_save:
        save("trial", [comparison])


if __name__ == "__main__":
    main()
