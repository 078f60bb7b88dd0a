"""How often studies find what is true: many studies on phantom images whose truth is known.

    python -m tests.truth.rates [--draws N] [--only NAME ...]        (continues what an earlier call has done)

Each draw is a study with new patients, folds and weights. It follows the steps of a user: phantom images,
`pack`, the runs of all outer folds, and the comparison of the report. Its row is kept in data/truth/. The
folder results/phantom/ gets rates.csv, verdicts.png and the README with the rates. A call continues from
both, so another machine can go on. Rows of runs whose arms were not paired are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from leukotree import seeds
from leukotree.files import write_atomic
from leukotree.runtime import Runtime
from tests.truth.scenarios import LEAVES, SCENARIOS, Scenario
from tests.truth.tables import write

if TYPE_CHECKING:
    from leukotree.report.summary import StudySummary

ROOT = Path(__file__).parents[2]
WORK = ROOT / "data" / "truth"
RESULTS = ROOT / "results" / "phantom"
STREAMS = "streams"
"""Column: how the runs drew their numbers, see `leukotree.seeds`."""
FIRST = 100
"""Number of the first draw. Earlier draws were used to choose the scenarios, and do not count for the
rates."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=20, help="studies of each scenario (default 20)")
    parser.add_argument(
        "--only", nargs="*", choices=list(SCENARIOS), default=list(SCENARIOS), help="scenarios to draw"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="studies at once (default: the cores)"
    )
    options = parser.parse_args()
    kept = _committed()
    known = {(row["scenario"], row["draw"]) for row in kept}
    tasks = [
        (name, draw)
        for draw in range(FIRST, FIRST + options.draws)
        for name in options.only
        if (name, draw) not in known and not _row(name, draw).exists()
    ]
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(options.workers, mp_context=context) as pool,
        tqdm(total=len(tasks), unit="study") as bar,
    ):
        for _ in pool.map(_study, tasks):
            bar.update()
    rows = [
        json.loads(path.read_text()) for name in SCENARIOS for path in sorted(WORK.glob(f"{name}-*.json"))
    ]
    rows = [row for row in rows if (row["scenario"], row["draw"]) not in known]
    write(RESULTS, pd.DataFrame([*kept, *rows]))


def _committed() -> list[dict[str, Any]]:
    """The rows of rates.csv whose runs drew their numbers as runs of today do."""
    path = RESULTS / "rates.csv"
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame({STREAMS: []})
    if STREAMS not in rows:
        return []
    paired = rows[rows[STREAMS] >= seeds.PAIRED]
    return [
        {str(key): value for key, value in row.items() if not pd.isna(value)}
        for row in paired.to_dict(orient="records")
    ]


def _row(name: str, draw: int) -> Path:
    return WORK / f"{name}-{draw:04d}.json"


def _study(task: tuple[str, int]) -> None:
    """Draw one study, run it, and keep the comparison of the report."""
    import torch

    torch.set_num_threads(1)
    name, draw = task
    scenario, place = SCENARIOS[name], WORK / f"{name}-{draw:04d}"
    place.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(place):
        _pack(scenario, draw)
        result = _compare(scenario, draw)
    row = {"scenario": name, "draw": draw, STREAMS: seeds.NEWEST, **result}
    write_atomic(_row(name, draw), json.dumps(row) + "\n")
    shutil.rmtree(place)


def _pack(scenario: Scenario, draw: int) -> None:
    """Patients of this draw in shards. The draw's number is the seed, so that scenarios share their patients'
    slides."""
    from PIL import Image

    from leukotree.data.pack import pack
    from leukotree.data.phantom.dataset import Plan, render

    plan = Plan(scenario.patients * len(LEAVES), max(scenario.images.values()), scenario.size, draw)
    rows = [row for row in plan.rows() if row.image < scenario.images[row.leaf]]
    for row in rows:
        image, _ = render(plan, row)
        Path(row.files[0]).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(row.files[0], "JPEG", quality=95, subsampling=0)
    columns = {
        "image": [row.files[0] for row in rows],
        "leaf": [row.leaf for row in rows],
        "patient": [row.patient_id for row in rows],
        "source": "phantom",
        "group": "patient",
    }
    pd.DataFrame(columns).to_csv("manifest.csv", index=False)
    pack(
        Path("manifest.csv"),
        Path("shards"),
        folds=scenario.folds,
        size=scenario.size,
        seed=draw,
        taxonomy=scenario.taxonomy(draw),
        workers=1,
    )


def _compare(scenario: Scenario, draw: int) -> dict[str, Any]:
    """The row of the primary comparison, and what the report concludes about the tree."""
    from hpc.launching import runs
    from hpc.launching.place import Place
    from hpc.search import choice
    from hpc.studies import cells, study
    from leukotree.config import parse
    from leukotree.report.collect import collect
    from leukotree.report.sections import comparison
    from tests.truth import one_feature  # noqa: F401 - registers its backbone

    plan = parse(study.Study, scenario.study(draw), "truth")
    runtime = Runtime(device="cpu", threads=1, workers=1, quiet=True)
    if scenario.permuted:
        grid = cells.expand(plan)
        runs.run_many([cell.spec for cell in grid], plan.root, Place(), runtime=runtime)
        summary = collect(plan.root, plan.model_dump(mode="json"), [], cells.rows(grid))
    else:
        chosen = choice.chosen(plan)  # a study without a search: the values of its base
        runs.run_many(plan.fold_specs(chosen), plan.root, Place(), runtime=runtime)
        summary = collect(plan.root, plan.model_dump(mode="json"), plan.expected(chosen))
    (row,) = comparison.compare(summary)
    parts = dict(zip(("p_worse", "p_same", "p_better"), row.probabilities or (), strict=False))
    numbers = {key: getattr(row, key) for key in ("mean", "p_holm", "detectable")}
    return {"verdict": row.verdict, **numbers, **parts, **_of_trees(summary)}


def _of_trees(summary: StudySummary) -> dict[str, Any]:
    """What the report says about the tree beside permuted ones; {} without them."""
    from leukotree.report import placed_trees

    return {
        key: value
        for one in placed_trees.place(summary)
        for key, value in {
            "answer": one.answer,
            "against_permuted": one.against_permuted.verdict,
            "mean_permuted": one.against_permuted.mean,
            "permuted_against_flat": one.permuted_against_flat and one.permuted_against_flat.verdict,
            "rank": one.place.rank,
        }.items()
    }


if __name__ == "__main__":
    main()
