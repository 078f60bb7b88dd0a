"""Searches in virtual time: epochs until the chosen configuration is among the best 2 % of the space.

    python tests/bench/search.py [--seeds 30] [--slots 1 8 32] [--only synthetic] [--workers 1]

This suite's own queue, sampler and scheduler against Ray Tune's ASHA with random search, and Optuna's TPE
with its Hyperband pruner, on the same curves with the same rungs. Recorded curves: a surrogate of the curves
of real runs in results/curves; its held-out error is printed. Synthetic curves: a landscape per seed, whose
truth is known. Nothing is trained, so the figures hold on any machine. A replay that has ended is kept in
`--folder` and not done again.
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

import pandas as pd
import problems
import strategies
from pairs import ROOT, Comparison, parser, save
from replay import Strategy, epochs_until_good
from tqdm import tqdm

CURVES = ROOT / "results" / "curves" / "curves.parquet"
SLOTS = (1, 8, 32)
SEEDS = 30
LIMIT = 1000
"""Epochs after which a replay gives up."""
SYNTHETIC = "synthetic"
OURS = "LeukoTree"
RIVALS = {"Ray Tune, random and ASHA": "<= 0.5", "Optuna, TPE and Hyperband": "<= 0.8"}
"""Rival -> the goal of our epochs over its epochs."""


class Replay(NamedTuple):
    """One search to replay."""

    problem: str
    strategy: str
    slots: int
    seed: int
    limit: int
    table: Path


def replay(one: Replay) -> int:
    """The epochs of a replay."""
    if one.problem == SYNTHETIC:
        problem: problems.Problem = problems.Synthetic(one.seed)
    else:
        problem = problems.recorded(one.table, one.problem)
    # memory: a record waits for its disk at each line
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        strategy = _strategy(one, Path(folder))
        return epochs_until_good(strategy, problem, one.seed, one.slots, one.limit)


def _strategy(one: Replay, folder: Path) -> Strategy:
    if one.strategy == OURS:
        return strategies.Suite(one.seed, folder)
    if one.strategy.startswith("Ray"):
        return strategies.RandomAsha(one.seed)
    return strategies.OptunaTpe(one.seed)


def replayed(wanted: Iterable[Replay], folder: Path, workers: int) -> dict[Replay, int]:
    """The epochs of all replays. Those that `folder` knows are not done again."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {one: folder / ("-".join(map(str, one[:-1])) + ".json") for one in wanted}
    missing = [one for one, file in files.items() if not file.exists()]
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        found = pool.map(replay, missing) if pool else map(replay, missing)
        for one, epochs in tqdm(zip(missing, found, strict=True), total=len(missing), unit="replay"):
            files[one].write_text(json.dumps(epochs))
    return {one: json.loads(file.read_text()) for one, file in files.items()}


def compared(problem: str, slots: int, given: argparse.Namespace, folder: Path) -> list[Comparison]:
    """Ours beside each rival, on one problem. Prints a line for each."""
    replays = {
        strategy: [
            Replay(problem, strategy, slots, seed, given.limit, given.table) for seed in range(given.seeds)
        ]
        for strategy in (OURS, *RIVALS)
    }
    known = replayed([one for of_strategy in replays.values() for one in of_strategy], folder, given.workers)
    epochs = {
        strategy: [float(known[one]) for one in of_strategy] for strategy, of_strategy in replays.items()
    }
    question = f"Search, {problem} curves, {slots} slot{'s' * (slots > 1)}"
    comparisons = [
        Comparison(
            question, OURS, rival, "epochs", {"ratio": goal}, epochs[OURS], epochs[rival], unpaired=True
        )
        for rival, goal in RIVALS.items()
    ]
    for comparison in comparisons:
        print(comparison.line(), flush=True)
    return comparisons


def options() -> argparse.Namespace:
    made = parser(__doc__ or "")
    made.add_argument("--seeds", type=int, default=SEEDS, help="replays of each (default %(default)s)")
    made.add_argument("--slots", type=int, nargs="+", default=SLOTS, help="default: 1 8 32")
    made.add_argument(
        "--only", nargs="+", metavar="WORD", help="curves with such a word in their name: synthetic"
    )
    made.add_argument(
        "--limit", type=int, default=LIMIT, help="most epochs of a replay (default %(default)s)"
    )
    made.add_argument("--workers", type=int, default=1, help="processes (default %(default)s)")
    made.add_argument("--table", type=Path, default=CURVES, help="recorded curves (default %(default)s)")
    made.add_argument("--folder", type=Path, help="where replays are kept (default: a temporary one)")
    return made.parse_args()


def names(table: Path) -> list[str]:
    """The problems: "data set, variant" of each recorded one, and the synthetic one."""
    recorded = pd.read_parquet(table, columns=["data", "variant"]).drop_duplicates()
    return [*(f"{row.data}, {row.variant}" for row in recorded.itertuples()), SYNTHETIC]


def main() -> None:
    given = options()
    chosen = [
        name for name in names(given.table) if not given.only or any(word in name for word in given.only)
    ]
    surrogates = {name: problems.recorded(given.table, name) for name in chosen if name != SYNTHETIC}
    remarks = [f"surrogate of {name}: {surrogate.told()}" for name, surrogate in surrogates.items()]
    print(*remarks, sep="\n", end="\n" * bool(remarks), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        comparisons = [
            comparison
            for problem in chosen
            for slots in given.slots
            for comparison in compared(problem, slots, given, given.folder or Path(temporary))
        ]
    if not given.no_save:
        save("search", comparisons, remarks)


if __name__ == "__main__":
    main()
