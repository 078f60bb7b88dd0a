"""How often studies of two equal arms find a difference, by thousands of simulated studies.

    python -m tests.truth.simulated [--share S] [--only NAME ...]   (continues an earlier call)

Each study goes through the real search, choice and verdict with made-up learning curves, see
`tests.truth.simulation`. What its searches chose is kept in data/simulated/. The folder results/simulated/
gets rates.csv, power.csv and the README with both tables.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from leukotree.files import append_lines, read_json_lines, write_atomic
from tests.truth.simulation import Design, Found, Judged, Rate, World, judge, rate, search, spread

ROOT = Path(__file__).parents[2]
WORK = ROOT / "data" / "simulated"
RESULTS = ROOT / "results" / "simulated"
EQUAL = World(shift=0.0)
MIRRORED = World()
OVERLAP = 0.0112
"""`World.patients` with which, without a search, two fold-wise differences have a correlation of 0.2, as the
theory of Nadeau and Bengio assumes for five folds."""
DIFFERENCES = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1)
"""True differences of the table of power."""


@dataclass(frozen=True)
class Scenario:
    """Studies of one kind."""

    world: World
    design: Design
    studies: int
    """Studies of this kind."""

    @property
    def arms(self) -> str:
        return "own optimum" if self.world.shift else "same optimum"


def _scenarios() -> dict[str, Scenario]:
    """Name -> scenario. Numbers of studies are such that the interval of a rate of 3 % ends below 5 %."""
    scenarios = {}
    for name, world in (("own", MIRRORED), ("same", EQUAL)):
        for trials in (5, 20):
            for draws in ("shared", "fold"):
                design = Design(trials=trials, draws=draws)
                studies = 1000 if world.shift else 300
                scenarios[f"{name}-{trials}-{draws}"] = Scenario(world, design, studies)
    for trials in (5, 20):
        design = Design(trials=trials, draws="one search")
        scenarios[f"own-{trials}-one"] = Scenario(MIRRORED, design, 1000)
    return scenarios


SCENARIOS = _scenarios()
DRAWS = {
    "shared": "the same for all folds (0.1.0)",
    "fold": "own draws of each fold",
    "one search": "one search",
}

HEAD = """# How often do studies of two equal arms find a difference?

Simulated studies: two arms, five outer folds, a search with {space} keys for each arm and fold. Nothing is
trained. The score of a configuration after an epoch is made up; the sampler, the record of the search,
ASHA, the choice and the verdict are those of LeukoTree. Both arms are equal in truth, so `better` and
`worse` are false verdicts:

"""
RULE = """
*Same optimum*: both arms respond to the keys in the same way. *Own optimum*: the response of one arm is
that of the other, turned around, so that each arm has other best values and is as good as the other.
*Draws*: before, all folds drew the same configurations; now each fold draws its own, the same for both
arms. *One search*: `search.nested: false`. *False*: the share of studies with the verdict `better` or
`worse`, with its 95 % interval (Wilson). *SD*: of the difference between folds, within a study.
*Correlation*: of the differences of two folds, over studies. The verdict takes at most {theory} into
account.

With the same draws in all folds, one of five draws suits one arm better by luck, and does so in every
fold. The spread between folds does not show it. With own draws it is part of the spread.

In the last rows the scores of outer folds have a correlation of 0.2 apart from the searches, as much as the
test of Nadeau and Bengio assumes. The searches of the folds are independent, so the differences correlate
less. The trained studies of [`results/phantom`](../phantom/README.md) have a correlation of 0.09 (48
studies, 8 folds).

## Power

The share of studies with the verdict `better`, by the true difference in macro F1. One search of each
study serves all differences.

"""
SIZES = """
## The sizes

All scores are macro F1. `leukotree plan` asks for such numbers.

| what | size |
| --- | ---: |
{sizes}

The searches are those of the first DeepAPL study: its space, TPE after 10 random trials, ASHA with a grace
of 3 of 12 epochs. Two trials run at once. Ray's own loop is left out: its scheduler is asked directly. The
text of `World` in `tests/truth/simulation.py` says what each size is, and where it comes from.

Made by `python -m tests.truth.simulated` ({studies} searched studies).
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the studies of each kind (default %(default)s)"
    )
    parser.add_argument("--only", nargs="*", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    searched(options.only, options.share, options.workers)
    write(RESULTS, {name: stored(name) for name in SCENARIOS})


def searched(names: list[str], share: float, workers: int) -> None:
    """Search the studies that are not stored. Kinds take turns, so that an early end leaves some of each."""
    tasks = []
    for name in names:
        known = {found.number for found in stored(name)}
        wanted = range(max(2, round(share * SCENARIOS[name].studies)))
        tasks += [(number, name) for number in wanted if number not in known]
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers, mp_context=context) as pool,
        tqdm(total=len(tasks), unit="study", mininterval=10) as bar,
    ):
        for done in as_completed([pool.submit(_search, name, number) for number, name in sorted(tasks)]):
            name, found = done.result()
            append_lines(_file(name), [json.dumps(found._asdict())])
            bar.update()


def _search(name: str, number: int) -> tuple[str, Found]:
    scenario = SCENARIOS[name]
    return name, search(scenario.world, scenario.design, number)


def _file(name: str) -> Path:
    return WORK / f"{name}.jsonl"


def stored(name: str) -> list[Found]:
    """The stored studies of a kind, by their number. They must have been searched by this code: remove the
    folder after a change of the simulation."""
    rows = {row["number"]: Found(**row) for row in read_json_lines(_file(name))}
    return [rows[number] for number in sorted(rows)]


def write(out: Path, found: dict[str, list[Found]]) -> None:
    """Replace the files of the results."""
    rates, power = [], []
    for name, studies in found.items():
        if not studies:
            continue
        scenario = SCENARIOS[name]
        worlds = {"as trained": scenario.world}
        if scenario.design.draws == "fold":
            worlds["overlap"] = replace(scenario.world, patients=OVERLAP)
        for kind, world in worlds.items():
            rates.append(
                {"kind": kind or "as trained", **_false(scenario, [judge(one, world) for one in studies])}
            )
        if scenario.design.draws == "fold":
            power.append(_power(scenario, studies))
    table = pd.DataFrame(rates).sort_values("kind", kind="stable")
    write_atomic(out / "rates.csv", table.round(5).to_csv(index=False))
    write_atomic(out / "power.csv", pd.DataFrame(power).round(5).to_csv(index=False))
    write_atomic(out / "README.md", _page(table, pd.DataFrame(power), sum(map(len, found.values()))))


def _false(scenario: Scenario, judged: list[Judged]) -> dict[str, object]:
    """A row of rates.csv."""
    wrong, sizes = rate(judged, "better", "worse"), spread(judged, scenario.design.folds)
    return {
        "arms": scenario.arms,
        "trials": scenario.design.trials,
        "draws": DRAWS[scenario.design.draws],
        "studies": wrong.studies,
        "false": wrong.share,
        "low": wrong.low,
        "high": wrong.high,
        "equivalent": rate(judged, "equivalent").share,
        "sd": sizes.sd,
        "correlation": sizes.correlation,
    }


def _power(scenario: Scenario, studies: list[Found]) -> dict[str, object]:
    """A row of power.csv: the share of `better` for each true difference, with its interval."""
    row: dict[str, object] = {
        "arms": scenario.arms,
        "trials": scenario.design.trials,
        "studies": len(studies),
    }
    for difference in DIFFERENCES:
        found = rate([judge(one, scenario.world, difference) for one in studies], "better")
        row |= {
            f"{difference:g}": found.share,
            f"{difference:g} low": found.low,
            f"{difference:g} high": found.high,
        }
    return row


def _page(rates: pd.DataFrame, power: pd.DataFrame, studies: int) -> str:
    from tests.truth.simulation import SPACE

    heads = ["arms", "trials", "draws", "studies", "false", "SD", "correlation"]
    lines = [f"| {' | '.join(heads)} |", "| --- | ---: | --- " + "| ---: " * 4 + "|"]
    for row in rates.to_dict("records"):
        wrong = _percent(Rate(0, 0, row["false"], row["low"], row["high"]))
        draws = row["draws"] + (", correlation at the limit" if row["kind"] == "overlap" else "")
        numbers = [wrong, f"{row['sd']:.3f}", f"{row['correlation']:.2f}"]
        cells = [row["arms"], str(row["trials"]), draws, str(row["studies"]), *numbers]
        lines.append(f"| {' | '.join(cells)} |")
    heads = ["arms", "trials", "studies", *(f"{difference:g}" for difference in DIFFERENCES)]
    powers = [f"| {' | '.join(heads)} |", "| --- " + "| ---: " * (len(heads) - 1) + "|"]
    for row in power.to_dict("records"):
        shares = [
            _percent(Rate(0, 0, row[key], row[f"{key} low"], row[f"{key} high"]))
            for key in (f"{difference:g}" for difference in DIFFERENCES)
        ]
        powers.append(f"| {' | '.join([row['arms'], str(row['trials']), str(row['studies']), *shares])} |")
    sizes = [f"| `{name}` | {value} |" for name, value in vars(MIRRORED).items()]
    return (
        HEAD.format(space=len(SPACE))
        + "\n".join(lines)
        + "\n"
        + RULE.format(theory="0.2")
        + "\n".join(powers)
        + "\n"
        + SIZES.format(sizes="\n".join(sizes), studies=studies)
    )


def _percent(found: Rate) -> str:
    return f"{100 * found.share:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
