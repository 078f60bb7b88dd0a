"""Searches in virtual time: epochs until the chosen configuration is among the best 2 % of the table.

    python tests/bench/search.py [--seeds 30] [--slots 1 8 32] [--only recorded] [--workers 1]

This suite's own queue, sampler and scheduler against Ray Tune's ASHA with random search, and Optuna's TPE
with its Hyperband pruner, on the same curves with the same rungs. `recorded`: a surrogate of the curves of
real runs in results/curves; its held-out error is printed. `synthetic`: a landscape per seed, whose truth is
known. Nothing is trained, so the figures hold on any machine. A replay that has ended is kept in `--folder`
and not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import problems
import strategies
from pairs import ROOT, Comparison, parser, save
from replay import Strategy, epochs_until_good
from tqdm import tqdm

CURVES = ROOT / "results" / "curves" / "curves.parquet"
SLOTS = (1, 8, 32)
SEEDS = 30
LIMIT = 2000
"""Epochs after which a replay gives up."""
SYNTHETIC = "synthetic"
OURS = "LeukoTree"
RIVALS = {"Ray Tune, random and ASHA": 0.5, "Optuna, TPE and Hyperband": 0.8}
"""Rival -> the most that our epochs may be of its epochs."""


class Replay(NamedTuple):
    """One search to replay."""

    problem: str
    strategy: str
    slots: int
    seed: int
    table: Path


def replay(one: Replay) -> int:
    """The epochs of a replay."""
    if one.problem == SYNTHETIC:
        problem: problems.Problem = problems.Synthetic(one.seed)
    else:
        problem = problems.recorded(one.table)[one.problem]
    # memory: a record waits for its disk at each line
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        strategy = _strategy(one, Path(folder))
        return epochs_until_good(strategy, problem, one.seed, one.slots, LIMIT)


def _strategy(one: Replay, folder: Path) -> Strategy:
    if one.strategy == OURS:
        return strategies.Suite(one.seed, folder)
    if one.strategy.startswith("Ray"):
        return strategies.RandomAsha(one.seed)
    return strategies.OptunaTpe(one.seed)


def replayed(wanted: Iterable[Replay], folder: Path, workers: int) -> dict[Replay, int]:
    """The epochs of all replays. Those that `folder` knows are not done again."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {one: folder / f"{one.problem}-{one.strategy}-{one.slots}-{one.seed}.json" for one in wanted}
    missing = [one for one, file in files.items() if not file.exists()]
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        found = pool.map(replay, missing) if pool else map(replay, missing)
        for one, epochs in tqdm(zip(missing, found, strict=True), total=len(missing), unit="replay"):
            files[one].write_text(json.dumps(epochs))
    return {one: json.loads(file.read_text()) for one, file in files.items()}


def compared(known: dict[Replay, int], problem: str, slots: int, seeds: int, table: Path) -> list[Comparison]:
    """Ours beside each rival."""

    def of(strategy: str) -> list[float]:
        return [float(known[Replay(problem, strategy, slots, seed, table)]) for seed in range(seeds)]

    question = f"search, {problem} curves, {slots} slot{'s' * (slots > 1)}"
    return [
        Comparison(
            question, OURS, rival, "epochs", {"ratio": f"<= {goal}"}, of(OURS), of(rival), unpaired=True
        )
        for rival, goal in RIVALS.items()
    ]


def options() -> argparse.Namespace:
    made = parser(__doc__ or "")
    made.add_argument("--seeds", type=int, default=SEEDS, help="replays of each (default %(default)s)")
    made.add_argument("--slots", type=int, nargs="+", default=SLOTS, help="default: 1 8 32")
    made.add_argument("--only", choices=("recorded", SYNTHETIC), help="default: both")
    made.add_argument("--workers", type=int, default=1, help="processes (default %(default)s)")
    made.add_argument("--table", type=Path, default=CURVES, help="recorded curves (default %(default)s)")
    made.add_argument("--folder", type=Path, help="where replays are kept (default: a temporary one)")
    return made.parse_args()


def names(table: Path, only: str | None) -> list[str]:
    """The problems. Prints the held-out error of each surrogate."""
    found = [] if only == "recorded" else [SYNTHETIC]
    for name, problem in problems.recorded(table).items() if only != SYNTHETIC else ():
        found.append(name)
        print(f"surrogate of {name}: {problem.told()}", flush=True)
    return found


def main() -> None:
    given = options()
    chosen = names(given.table, given.only)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        comparisons = []
        for problem in chosen:
            for slots in given.slots:
                wanted = [
                    Replay(problem, strategy, slots, seed, given.table)
                    for strategy in (OURS, *RIVALS)
                    for seed in range(given.seeds)
                ]
                known = replayed(wanted, folder, given.workers)
                comparisons += compared(known, problem, slots, given.seeds, given.table)
                for comparison in comparisons[-len(RIVALS) :]:
                    print(comparison.line(), flush=True)
    if not given.no_save:
        save("search", comparisons)


if __name__ == "__main__":
    main()
