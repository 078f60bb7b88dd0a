"""A sweep of 24 short trials over three variants: `leukotree sweep` against `leukotree train` for each of
their runs in turn.

A trial trains two inner folds for two epochs, on small phantoms with a tiny model, and none is stopped: 48
runs on either side, of the very same specs (the sweep draws at random from a seed). The sweep counts from the
command to its end, the start of Ray included, and scores after each epoch, which `train` does after the last
one only. It has two slots of one core and one thread; each `train` may use both cores. About a minute for the
sweep and five for the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from pairs import arguments, compare, save
from tqdm import tqdm

from leukotree.data import phantom
from leukotree.data.pack import pack

TRIALS, RUNS = 8, 48
STUDY = {
    "study": "bench",
    "base": {
        "data": {"shards": "shards"},
        "backbone": {"name": "test_vit"},
        "optim": {"epochs": 2, "batch_size": 16},
        "engine": {"precision": "fp32"},
    },
    "variants": ["flat", "base", "multilabel"],
    "folds": {"outer": 2, "inner": 2},
    "search": {
        "nested": False,
        "trials": TRIALS,
        "algorithm": "random",
        "scheduler": "none",
        "space": {"optim.lr": {"loguniform": [1e-4, 1e-2]}, "loss.gamma": {"uniform": [0, 5]}},
    },
}


def leukotree(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "hpc.cli", *words, "--device", "cpu"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def fresh(shards: Path, place: Path) -> Iterator[Path]:
    """Folders to work in, one for each measurement."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=place))
        (folder / "shards").symlink_to(shards)
        yield folder


def sweep(folder: Path, specs: Path) -> float:
    """Seconds of the sweep; leaves the specs of its runs in `specs`."""
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    began = time.perf_counter()
    leukotree(folder, "sweep", "study.yaml", "--cpus-per-trial", "1", "--concurrency", "2")
    seconds = time.perf_counter() - began
    specs.mkdir(exist_ok=True)
    for spec in finished(folder):
        (specs / f"{spec.parent.parent.name}-{spec.parent.name}.yaml").write_text(spec.read_text())
    assert len(list(specs.iterdir())) == RUNS, "the sweeps drew different trials"
    return seconds


def one_by_one(folder: Path, specs: Path) -> float:
    """Seconds of a command for each run."""
    began = time.perf_counter()
    for spec in tqdm(sorted(specs.iterdir()), desc="one by one", unit="run"):
        leukotree(folder, "train", str(spec), "--study", spec.name.partition("-")[0])
    seconds = time.perf_counter() - began
    finished(folder)
    return seconds


def finished(folder: Path) -> list[Path]:
    """The spec files of all runs of a folder. Asserts that they are RUNS and all done."""
    specs = list(folder.glob("results/runs/**/spec.yaml"))
    states = [json.loads((spec.parent / "status.json").read_text())["state"] for spec in specs]
    assert states == ["done"] * RUNS, states
    return specs


def main() -> None:
    options = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pack(
            phantom.write(place / "images", patients=28, per_patient=6, size=64),
            place / "packed",
            folds=2,
            size=48,
        )
        folders, specs = fresh(place / "packed", place), place / "specs"
        comparison = compare(
            "A sweep of 24 short trials of three variants",
            ("leukotree sweep", lambda: sweep(next(folders), specs)),
            ("leukotree train, one by one", lambda: one_by_one(next(folders), specs)),
            unit="s",
            goals={"ratio": "<= 0.333"},
            pairs=options.pairs,
            warmup=False,
        )
    if not options.no_save:
        save("sweep", [comparison])


if __name__ == "__main__":
    main()
