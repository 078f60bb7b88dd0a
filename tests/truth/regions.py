"""How often the regions of a search's answer hold the truth: hundreds of simulated searches.

    python -m tests.truth.regions [--searches N] [--workers W]      (continues an earlier call)

Each search goes through the real sampler, record and early stopping, with made-up learning curves on a
surface whose best configuration is known (`tests.truth.surfaces`). What it says of the best values is kept in
data/simulated/regions.jsonl. The folder results/simulated/ gets regions.csv and regions.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from hpc.search import posterior
from hpc.search.record import Record
from hpc.studies.study import SearchId, Study
from leukotree.evaluation.metrics import wilson
from leukotree.files import append_lines, read_json_lines, write_atomic
from leukotree.stats import optimum
from tests.truth.simulated import RESULTS, WORK
from tests.truth.simulation import RAM, World, learning_curve, run_trials
from tests.truth.surfaces import CUBE, SHAPES, SPACE, Surface

FIRST = 100
"""Number of the first search of each kind. Earlier ones were used to choose the priors, and do not count."""
EPOCHS, TRIALS = 9, 32
SEARCH_ID = SearchId("flat", 0)


class Kind(NamedTuple):
    """A way to search."""

    shape: str
    slots: int
    """Trials that run at once."""
    scheduler: str


KINDS = [
    Kind(shape, slots, scheduler) for shape in SHAPES for slots in (1, 8) for scheduler in ("none", "asha")
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--searches", type=int, default=300, help="in all (default %(default)s)")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    store = WORK / "regions.jsonl"
    known = {(row["shape"], row["slots"], row["scheduler"], row["number"]) for row in read_json_lines(store)}
    rounds = -(-options.searches // len(KINDS))
    tasks = [(kind, FIRST + n) for n in range(rounds) for kind in KINDS]
    tasks = [(kind, number) for kind, number in tasks if (*kind, number) not in known]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        done = as_completed([pool.submit(judged, kind, number) for kind, number in tasks])
        for one in tqdm(done, total=len(tasks), unit="search", mininterval=10):
            append_lines(store, [json.dumps(row) for row in one.result()])
    write(RESULTS, pd.DataFrame(read_json_lines(store)))


def judged(kind: Kind, number: int) -> list[dict[str, Any]]:
    """A row for each key: whether the region holds the best value, and the interval the importance."""
    surface = Surface(kind.shape, number)
    with tempfile.TemporaryDirectory(dir=RAM if RAM.is_dir() else None) as folder:
        record = searched(kind, surface, number, Path(folder))
        found = posterior.optimum(record)
    shares = surface.shares()
    rows = []
    for k, key in enumerate(CUBE.keys):
        region, best = found.region(k), CUBE.value(k, surface.best[k])
        choice = "choice" in SPACE[key]
        low, high = optimum.interval(found.shares[:, k])
        rows.append(
            {
                **kind._asdict(),
                "number": number,
                "key": key,
                "held": bool(best in region.values if choice else _within(key, best, region.values)),
                "mass": region.mass,
                "border": found.border(k),
                "on_border": bool(min(surface.best[k], 1 - surface.best[k]) <= (0 if choice else 0.05)),
                "importance": float(shares[k]),
                "importance_held": bool(low <= shares[k] <= high),
                "width": high - low,
            }
        )
    return rows


def _within(key: str, best: float, ends: tuple[Any, ...]) -> bool:
    near = 1e-9 * abs(best)
    return bool(ends[0] - near <= best <= ends[1] + near)


def searched(kind: Kind, surface: Surface, number: int, folder: Path, noise: float = 1.0) -> Record:
    """A search that has ended. `noise`: of the scores, as a multiple of that of `World`."""
    settings = {"trials": TRIALS, "grace": 3, "scheduler": kind.scheduler, "seed": number, "space": SPACE}
    study = Study.model_validate(
        {
            "study": "simulated",
            "base": {"optim": {"epochs": EPOCHS}},
            "variants": ["flat"],
            "search": settings,
        }
    )
    world, rng = World(), np.random.default_rng((number, 7))
    world = World(trial=noise * world.trial, epoch=noise * world.epoch)

    def curve(chosen: Mapping[str, Any]) -> np.ndarray:
        units = CUBE.units({key: [chosen[key]] for key in CUBE.keys})
        pace = 2 + 4 * float(units[0, 0])  # a higher learning rate learns faster
        return learning_curve(float(surface(units)[0]), pace, EPOCHS, world, rng)

    record = Record(study, SEARCH_ID, folder)
    run_trials(record, SEARCH_ID, curve, kind.slots)
    return record


def write(out: Path, rows: pd.DataFrame) -> None:
    """Replace the files of the results."""
    rows["kind"] = np.where(rows["key"] == "optim.batch_size", "choice", "range")
    parts = {
        "all": rows,
        **{f"shape: {shape}": rows[rows["shape"] == shape] for shape in SHAPES},
        "one at a time": rows[rows["slots"] == 1],
        "8 at once": rows[rows["slots"] == 8],
        "without stopping": rows[rows["scheduler"] == "none"],
        "with ASHA": rows[rows["scheduler"] == "asha"],
    }
    table = pd.DataFrame([_row(name, part) for name, part in parts.items() if len(part)])
    write_atomic(out / "regions.csv", table.round(4).to_csv(index=False))
    write_atomic(out / "regions.md", _page(table))
    print(_page(table))


def _row(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    """Shares of keys whose truth was held, each with its interval."""
    row: dict[str, Any] = {"searches": name, "n": len(rows) // len(SPACE)}
    ranges, choices = (rows[rows["kind"] == kind] for kind in ("range", "choice"))
    for column, part, held in (
        ("ranges", ranges, "held"),
        ("choices", choices, "held"),
        ("importance", rows, "importance_held"),
    ):
        low, high = wilson(int(part[held].sum()), len(part), floor=1) or (0.0, 1.0)
        row |= {column: part[held].mean(), f"{column} low": low, f"{column} high": high}
    row |= {"stated": choices["mass"].mean(), "border": ranges["border"].mean()}
    return {**row, "on border": ranges["on_border"].mean()}


def _page(table: pd.DataFrame) -> str:
    heads = ["searches", "n", "ranges", "choices", "importance"]
    lines = [f"| {' | '.join(heads)} |", "| --- " + "| ---: " * (len(heads) - 1) + "|"]
    for row in table.to_dict("records"):
        shares = [
            f"{100 * row[name]:.1f} % ({100 * row[f'{name} low']:.1f} to {100 * row[f'{name} high']:.1f})"
            for name in ("ranges", "choices", "importance")
        ]
        lines.append(f"| {' | '.join([row['searches'], str(row['n']), *shares])} |")
    whole = table.iloc[0]
    return PAGE.format(
        keys=len(SPACE),
        trials=TRIALS,
        table="\n".join(lines),
        stated=f"{100 * whole['stated']:.0f}",
        border=f"{100 * whole['border']:.0f}",
        on_border=f"{100 * whole['on border']:.0f}",
    )


PAGE = """# How often do the regions of the best values hold the truth?

Simulated searches of {keys} keys and {trials} trials on surfaces whose best configuration is known. Nothing
is trained. The sampler (TPE), the record, early stopping and the posterior are those of LeukoTree. No surface
is a draw of the model that the posterior assumes:

{table}

*Ranges*: how often the 80 % region of a range holds the best value. *Choices*: how often the options of the
region hold the best one; they have a probability of at least 80 %, on average {stated} %. *Importance*: how
often the 90 % interval holds the true share of the variance. Each with its 95 % interval (Wilson), as if the
keys of a search were independent.

The posterior puts the best value of a range on a border with a probability of {border} % on average. It was
there in {on_border} % of the cases. Along a key that hardly matters the score is nearly the same from end to
end: then neither its region nor its border says much, and the report says that its default is good enough.

The importances of searches that stop trials early miss the truth more often: what a stopped trial would have
reached is a guess, and the worse a trial, the earlier it was stopped.

The shapes and their noise are in `tests/truth/surfaces.py` and `tests/truth/regions.py`. Other searches than
these were used to choose the priors.

Made by `python -m tests.truth.regions`.
"""


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
