"""What the report of a large made-up study costs. Prints a table; asserts nothing.

    python -m tests.scale.report [--variants N] [--folds N] [--seeds N] [--images N] [--patients N]

By default 3 variants, 5 outer folds, 3 seeds, 4,000 test images in each fold, 500 patients, the paper's tree,
and a search for each variant and fold whose best trials have left their predictions.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leukotree.records import searchfolder
from leukotree.report import collect, page
from leukotree.spec import TRAINED, RunSpec
from leukotree.taxonomy import Taxonomy
from tests.helpers import study_results

TREE = Taxonomy.paper()
INNER, TRIALS, KEPT = 3, 20, 3
"""Inner folds, trials of a search, and how many of the best trials have left their predictions."""


def images(fold: int, n: int, patients: int) -> pd.DataFrame:
    """n images of a fold. A patient has cells of one to three leaves."""
    rng = np.random.default_rng(fold)
    patient = rng.integers(0, patients, n)
    own = rng.integers(0, len(TREE.leaves), (patients, 3))
    leaf = own[patient, rng.integers(0, 3, n)]
    return pd.DataFrame(
        {
            "key": [f"f{fold}-{i:06}" for i in range(n)],
            "patient": [f"p{fold}-{one:04}" for one in patient],
            "source": np.where(patient % 3 == 0, "lab-b", "lab-a"),
            "fold": fold,
            "leaf": np.array(TREE.leaves)[leaf],
        }
    )


def predict(folder: Path, frame: pd.DataFrame, seed: Sequence[int], skill: float) -> None:
    """The predictions of a run on these images."""
    rng = np.random.default_rng(seed)
    true = pd.Index(TREE.leaves).get_indexer(pd.Index(frame["leaf"]))
    logits = rng.normal(size=(len(frame), len(TREE.edges))) + skill * TREE.path_matrix[true]
    for columns in TREE.columns.values():
        logits[:, columns] -= np.logaddexp.reduce(logits[:, columns], axis=1, keepdims=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "taxonomy.json").write_text(json.dumps(TREE.nested()))
    columns_of = {f"logp:{edge}": logits[:, i].astype(np.float32) for i, edge in enumerate(TREE.edges)}
    frame.assign(**columns_of).to_parquet(folder / "predictions.parquet")


def make(root: Path, size: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write the study's folder. Returns the fields of its file and the expected runs."""
    variants = TRAINED[: size.variants]
    study = study_results.STUDY | {
        "variants": list(variants),
        "folds": {"outer": size.folds, "inner": INNER},
        "seeds": list(range(size.seeds)),
        "search": study_results.STUDY["search"] | {"nested": True, "trials": TRIALS},
    }
    frames = [images(fold, size.images, max(size.patients // size.folds, 1)) for fold in range(size.folds)]
    expected = study_results.expected_runs(size.folds, range(size.seeds), variants)
    for row in expected:
        place = [row["test_fold"], row["seed"], TRAINED.index(row["variant"])]
        folder = study_results.write_run(root, row, study_results.images_of_fold(0))
        predict(folder, frames[row["test_fold"]], place, 1.5 + 0.2 * place[-1])
        spec = {
            "variant": row["variant"],
            "seed": row["seed"],
            "data": {"test_fold": row["test_fold"]},
        }
        (folder / "spec.yaml").write_text(RunSpec.model_validate(spec).dump())
    for variant in variants:
        for fold in range(size.folds):
            search(searchfolder.search_folder(root, variant, fold), variant, fold, frames)
    return study, expected


def search(folder: Path, variant: str, fold: int, frames: Sequence[pd.DataFrame]) -> None:
    """A finished search beside one outer fold."""
    rng = np.random.default_rng(fold)
    values = {
        "loss.gamma": rng.uniform(0, 5, TRIALS),
        "optim.lr": 10 ** rng.uniform(-6, -3, TRIALS),
        "optim.batch_size": rng.choice([16, 32, 64], TRIALS),
        "macro_f1": np.linspace(0.9, 0.5, TRIALS),
    }
    chosen = {key: float(column[0]) for key, column in values.items() if key != "macro_f1"}
    chosen["optim.batch_size"] = int(chosen["optim.batch_size"])
    study_results.write_search(folder, variant, chosen, pd.DataFrame(values), trial=0)
    others = pd.concat([frame for place, frame in enumerate(frames) if place != fold])
    for trial in range(KEPT):
        for inner in range(INNER):
            part = others.iloc[inner::INNER].reset_index(drop=True)
            predict(folder / "runs" / f"{trial:05}" / f"{variant}-{inner}", part, [fold, trial, inner], 1.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in {"variants": 3, "folds": 5, "seeds": 3, "images": 4000, "patients": 500}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--profile", action="store_true", help="list the functions that take longest")
    size = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        study, expected = make(root / "runs", size)
        profile = cProfile.Profile()
        began = time.perf_counter()
        profile.enable()
        summary = collect.collect(root / "runs", study, expected)
        collected = time.perf_counter()
        page.write(summary, root / "out")
        profile.disable()
        ended = time.perf_counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"collect {collected - began:.1f} s, write {ended - collected:.1f} s, {memory:.2f} GiB at most")
    _sections(pstats.Stats(profile))
    if size.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)


def _sections(stats: Any) -> None:
    """Print the time of each function that `page` calls for a section."""
    rows = []
    for (file, _, name), (*_, callers) in stats.stats.items():
        for (caller, _, of), (*_, cumulative) in callers.items():
            if Path(caller).name == "page.py" and of in ("_sections", "write") and "report" in file:
                rows.append((cumulative, f"{Path(file).stem}.{name}"))
    for seconds, name in sorted(rows, reverse=True):
        if seconds > 0.05:
            print(f"{seconds:8.2f} s  {name}")


if __name__ == "__main__":
    main()
