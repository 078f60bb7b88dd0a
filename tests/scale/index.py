"""How long a data set of very many images takes to open, to split and to begin: measured, never asserted.

    python -m tests.scale.index FOLDER [--images N] [--patients P] [--order window]

FOLDER gets a data set of N images (default ten million) of P patients. Its shards are sparse files: only the
images of the first batch, and those at the ends of each shard, are written. Each figure is of a process of
its own: the first one on a machine, a later one, and two ranks together.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

FOLDS, PER_SHARD, SIZE, BATCH, LENGTH = 5, 1000, 16, 256, 2048
BLOCK = 512
STRIDE = BLOCK + LENGTH + BLOCK + BLOCK
"""Bytes of a sample: header and image, header and fields."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=10**7)
    parser.add_argument("--patients", type=int, default=20_000)
    parser.add_argument("--order", choices=["shuffle", "window"], default="shuffle")
    parser.add_argument("--process", help=argparse.SUPPRESS)
    options = parser.parse_args()
    spec = _spec(options.folder, options.order, options.process == "inner")
    if options.process:
        print(json.dumps(_measured(spec)))
        return
    if not (options.folder / "dataset.json").exists():
        make(options.folder, options.images, options.patients, spec)
    with tempfile.TemporaryDirectory(dir=options.folder.parent) as scratch:
        environment = {**os.environ, "LEUKOTREE_SCRATCH": scratch}
        for name, kind in (("first on this machine", "outer"), ("later", "outer"), ("inner folds", "inner")):
            _print(name, [_started(options, kind, environment)])
        _print("two ranks", [_started(options, "outer", environment) for _ in range(2)])


def _started(options: argparse.Namespace, kind: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    words = [str(options.folder), "--order", options.order, "--process", kind]
    command = [sys.executable, "-m", "tests.scale.index", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _print(name: str, processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        figures = json.loads(process.communicate()[0])
        print(f"{name:22}", *(f"{key} {value:.2f}" for key, value in figures.items()), sep="  ", flush=True)


def _spec(folder: Path, order: str, inner: bool) -> RunSpec:
    chosen: dict[str, Any] = {"order": order, "window": 8} if order == "window" else {}
    if inner:
        chosen["inner"] = {"folds": 3, "fold": 1}
    return RunSpec().override(
        {"data": {"shards": str(folder), "test_fold": 0, **chosen}, "optim": {"batch_size": BATCH}}
    )


def _measured(spec: RunSpec) -> dict[str, float]:
    """Seconds of each step, and MB of memory of this process alone after each of them.

    Mapped files are not in it: further processes use the same pages.
    """
    from leukotree.data import duplicates, folds
    from leukotree.data.dataset import Dataset
    from leukotree.data.order import TrainOrder, Windows
    from leukotree.data.stream import Loader

    figures: dict[str, float] = {}
    before = _own()

    def note(name: str, began: float) -> None:
        figures[f"{name} s"] = time.perf_counter() - began
        figures[f"{name} MB"] = _own() - before

    began = time.perf_counter()
    dataset = Dataset.open(spec.data.shards)
    note("open", began)
    began = time.perf_counter()
    duplicates.refuse(dataset)
    note("copies", began)
    began = time.perf_counter()
    rows, _ = folds.split(dataset.index, spec.data)
    note("split", began)
    if spec.data.inner:
        return figures
    began = time.perf_counter()
    windows = Windows(dataset.shard_ids, spec.data.window) if spec.data.order == "window" else None
    order = TrainOrder(rows, BATCH, 0, spec.augment, dataset.size, windows=windows)
    with Loader(dataset, workers=0) as loader:
        next(loader.train(order, range(1)))
    note("first batch", began)
    return figures


def _own() -> float:
    """MB of this process that no file and no other process holds."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    [kilobytes] = [line.split()[1] for line in rollup.splitlines() if line.startswith("Anonymous:")]
    return int(kilobytes) * 1024 / 1e6


def make(folder: Path, images: int, patients: int, spec: RunSpec) -> None:
    """Write the data set."""
    import simplejpeg

    from leukotree.data import tarheader

    tree = Taxonomy.paper()
    table = _table(images, patients, tree)
    rows = np.flatnonzero(table["fold"] != 0)
    real = np.unique(np.concatenate([*_first_rows(rows, spec), *_ends(table)]))
    rng = np.random.default_rng(0)
    jpegs = {}
    for row in real.tolist():
        jpeg = simplejpeg.encode_jpeg(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8))
        jpegs[row] = jpeg + bytes(LENGTH - len(jpeg))
    digests = table["sha256"].to_numpy(object)
    for row, jpeg in jpegs.items():
        digests[row] = hashlib.sha256(jpeg).hexdigest()
    table["sha256"] = digests
    folder.mkdir(parents=True)
    for shard, group in table[["shard", "offset", "key"]].iloc[real].groupby("shard"):
        with open(folder / str(shard), "wb") as file:
            for row, offset, key in zip(group.index, group["offset"], group["key"], strict=True):
                file.seek(offset - BLOCK)
                file.write(tarheader.member(f"{key}.jpg", jpegs[row]))
            file.truncate(PER_SHARD * STRIDE + 20 * BLOCK)
    table.to_parquet(folder / "index.parquet", index=False, compression="zstd")
    counts = table["leaf"].value_counts()
    description = {
        "format": 1,
        "taxonomy": tree.nested(),
        "size": SIZE,
        "folds": FOLDS,
        "seed": 0,
        "group": "patient",
        "counts": {leaf: int(counts[leaf]) for leaf in tree.leaves},
        "patients": patients,
    }
    (folder / "dataset.json").write_text(json.dumps(description))


def _table(images: int, patients: int, tree: Taxonomy) -> pd.DataFrame:
    """The index: each fold has an equal share of the patients, each patient has one leaf."""
    numbers = np.arange(images)
    per_fold = -(-images // FOLDS)
    fold, within = numbers // per_fold, numbers % per_fold
    shard, place = within // PER_SHARD, within % PER_SHARD
    of_fold = patients // FOLDS
    patient = fold * of_fold + within * of_fold // per_fold
    rng = np.random.default_rng(1)
    leaf = np.array(tree.leaves)[rng.integers(0, len(tree.leaves), patients)][patient]
    name = pd.Series(patient).map(lambda one: f"patient {one:06d}")
    return pd.DataFrame(
        {
            "key": [f"{number:08d}-cell_of_a_patient" for number in numbers],
            "shard": [f"fold{f}-{s:06d}.tar" for f, s in zip(fold, shard, strict=True)],
            "fold": fold,
            "leaf": leaf,
            "patient": name,
            "source": "a laboratory",
            "sha256": [raw.hex() for raw in np.frombuffer(rng.bytes(32 * images), "V32").tolist()],
            "group": "a laboratory/" + name,
            "offset": place * STRIDE + BLOCK,
            "length": LENGTH,
            "image": [f"cells/{number}.jpg" for number in numbers],
        }
    )


def _ends(table: pd.DataFrame) -> list[np.ndarray]:
    """The first and the last row of each shard."""
    first = np.flatnonzero(table["shard"] != table["shard"].shift())
    return [first, np.append(first[1:], len(table)) - 1]


def _first_rows(rows: np.ndarray, spec: RunSpec) -> list[np.ndarray]:
    """The rows that the loader decodes for the first batch, and ahead of the next ones."""
    from leukotree.data.order import TrainOrder, Windows

    numbers = np.arange(int(rows.max()) + 1) // PER_SHARD
    kinds = (None, Windows(numbers, 8))
    orders = [TrainOrder(rows, BATCH, 0, spec.augment, SIZE, windows=windows) for windows in kinds]
    return [order.batch(step).rows for order in orders for step in range(3)]


if __name__ == "__main__":
    main()
