"""What commands cost on a study of ten thousand runs, each measured whole, as a process. Asserts nothing.

    python -m tests.scale.many [--runs N] [--seeds N] [--variants N] [--folder DIR] [--skip VERB ...]

One small study of phantom images is trained: one run of each variant and fold. The folders of N runs of a
grid over three axes are copies of these records, with the values and the seed of their own spec. Files that
are the same in all of them are links. For `status` some runs are at work, have failed, or wait; for `report`
all are done.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpc.studies import cells, study
from leukotree import yamlfile
from leukotree.records import runfolder
from leukotree.spec import RunSpec

FOLDS = 5
VARIANTS = ("flat", "multilabel", "base", "ensemble")
OF_RUN = (runfolder.SPEC, runfolder.STATUS, runfolder.PREDICTIONS)
"""What is written for each run. All other files are the same in all copies."""
STATES = ("running", "failed", "waiting", *["done"] * 7)


def fields(name: str, size: argparse.Namespace, axes: dict[str, list[float]]) -> dict[str, Any]:
    base = {
        "data": {"shards": "data/ph"},
        "backbone": {"name": "test_vit"},
        "optim": {"epochs": 2, "batch_size": 32},
        "engine": {"precision": "fp32"},
    }
    return {
        "study": name,
        "base": base,
        "variants": list(VARIANTS[: size.variants]),
        "folds": {"outer": FOLDS},
        "seeds": list(range(size.seeds)),
        "search": {"trials": 0},
        "grid": axes,
    }


def axes(cells: int) -> dict[str, list[float]]:
    """Three axes with at least so many combinations."""
    side = max(1, round(cells ** (1 / 3)))
    third = math.ceil(cells / side**2)
    return {
        "loss.tau": [round(place / side, 6) for place in range(side)],
        "optim.weight_decay": [round(0.01 * place, 6) for place in range(side)],
        "optim.lr": [round(1e-4 * (1 + place), 6) for place in range(third)],
    }


def command(*words: str, quiet: bool = True) -> None:
    subprocess.run(
        [sys.executable, "-m", "hpc.cli", *words], check=True, stdout=subprocess.DEVNULL if quiet else None
    )


def make(size: argparse.Namespace) -> int:
    """Write data, the study's file and the folders of its runs, all done. Returns their number."""
    command("phantom", "images", "--patients", "70", "--per-patient", "4", "--size", "64")
    command("pack", "images/manifest.csv", "data/ph", "--size", "48", "--folds", str(FOLDS))
    one = argparse.Namespace(variants=size.variants, seeds=1)
    Path("one.yaml").write_text(yamlfile.dump(fields("one", one, {"loss.tau": [0.5]})))
    command("grid", "one.yaml", "--on", "inline")
    templates = {
        (spec.variant, spec.data.test_fold): folder
        for folder in Path("results/runs/one").glob("*-*")
        for spec in [runfolder.read_spec(folder)]
    }
    count = max(1, size.runs // (FOLDS * size.seeds * size.variants))
    Path("many.yaml").write_text(yamlfile.dump(fields("many", size, axes(count))))
    plan = study.load("many.yaml")
    grid = cells.expand(plan)[: size.runs]
    root = plan.root
    root.mkdir(parents=True)
    shutil.copy("results/runs/one/declared.yaml", root)
    cells.write(root, grid)
    predictions = {
        place: pd.read_parquet(folder / runfolder.PREDICTIONS) for place, folder in templates.items()
    }
    for number, cell in enumerate(grid):
        place = cell.spec.variant, cell.spec.data.test_fold
        copy(templates[place], root / cell.run_name, cell.spec)
        disturbed(predictions[place], number).to_parquet(
            root / cell.run_name / runfolder.PREDICTIONS, index=False
        )
    return len(grid)


def copy(template: Path, folder: Path, spec: RunSpec) -> None:
    """A run folder with the records of another one, under its own spec."""
    folder.mkdir()
    for path in template.rglob("*"):
        target = folder / path.relative_to(template)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif path.name not in OF_RUN:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
    shutil.copy(template / runfolder.STATUS, folder)
    (folder / runfolder.SPEC).write_text(spec.dump())


def disturbed(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Predictions with some noise, which differ between runs. They are at most 0, but no distributions."""
    rng = np.random.default_rng(seed)
    columns = [name for name in map(str, frame) if name.startswith("logp:")]
    noise = rng.normal(scale=0.3, size=(len(frame), len(columns)))
    changed = np.minimum(frame[columns].to_numpy() + noise, 0).astype(np.float32)
    return frame.assign(**{name: changed[:, place] for place, name in enumerate(columns)})


def spread_states(root: Path) -> None:
    """Give the runs of a study different states, in turn."""
    for number, folder in enumerate(sorted(root.glob("*-*"))):
        state, path = STATES[number % len(STATES)], folder / runfolder.STATUS
        if state == "waiting":
            shutil.rmtree(folder)
            continue
        status = json.loads(path.read_text())
        if state == "running":
            status = {"state": "running", "epoch": 1, "epochs": 2, "heartbeat": time.time() + 3600}
        elif state == "failed":
            more = {"kind": "nan", "message": "the model diverged: its outputs are NaN"}
            status = {"state": "failed", "epoch": 1, "epochs": 2, "heartbeat": time.time(), **more}
        path.unlink()
        path.write_text(json.dumps(status))


def measured(*words: str) -> None:
    """Run a command, and print what it took as a process."""
    with tempfile.TemporaryFile("w+") as log:
        began = time.perf_counter()
        command = [sys.executable, "-m", "hpc.cli", *words]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        _, code, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        log.seek(0)
        said = log.read()
    cpu, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10
    print(
        f"{' '.join(words):<40} {wall:7.1f} s  {cpu:7.1f} s of a core  {memory:7.0f} MB  exit {code >> 8}",
        flush=True,
    )
    if code:
        print(said[-2000:])


MEASURED: tuple[Sequence[str], ...] = (
    ("grid", "many.yaml", "--dry-run"),
    ("status", "many"),
    ("status", "many.yaml"),
    ("status", "many", "--json"),
    ("report", "many.yaml"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {"runs": 10_000, "seeds": 1, "variants": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="an empty folder to work in, which stays")
    parser.add_argument("--skip", nargs="*", default=[], metavar="VERB")
    size = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    with tempfile.TemporaryDirectory() as temporary:
        home = size.folder or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        os.chdir(home)
        # In a process of its own: a command would inherit the peak of this one's memory.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(f"{pool.apply(make, (size,)):,} runs in {home}", flush=True)
        for words in MEASURED:
            if words[0] not in size.skip:
                measured(*words)
        spread_states(Path("results/runs/many"))
        print("one run in ten at work, failed and waiting each:", flush=True)
        for words in MEASURED[:4]:
            measured(*words)
        os.chdir("/")


if __name__ == "__main__":
    main()
