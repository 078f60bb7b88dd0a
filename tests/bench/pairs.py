"""Speed as a ratio: two things measured in turn in one run, A B A B ..., the ratio taken pair by pair.

A machine's speed drifts; a pair shares its minute, so its ratio holds where a single time does not. Every
script of this folder prints a line per comparison and keeps it in results/bench/<script>.json; table.py joins
those files.
"""

from __future__ import annotations

import argparse
import datetime
import json
import operator
import os
import random
import statistics
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hpc.bench.bench import processor

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "bench"
PAIRS = 5
BUSY = 1.7
"""Runnable threads per core, a mean over five minutes, above which others must have used the machine: no
script has more of its own at a time."""
_COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}

Measure = Callable[[], float]


@dataclass(frozen=True)
class Comparison:
    """The measured pairs of one question."""

    question: str
    ours: str
    other: str
    unit: str
    goals: dict[str, str]
    """`ratio` (ours / other), `ours` or `other` -> its bound, such as ">= 0.97"."""
    a: list[float]
    b: list[float]
    unpaired: bool = False
    """The values of a and b have nothing in common: the ratio is that of their medians, with the central 95 %
    of a bootstrap."""
    ratios: list[float] = field(init=False)

    def __post_init__(self) -> None:
        ratios = _of_medians(self.a, self.b) if self.unpaired else list(map(operator.truediv, self.a, self.b))
        object.__setattr__(self, "ratios", ratios)

    @property
    def medians(self) -> dict[str, float]:
        ours, other = statistics.median(self.a), statistics.median(self.b)
        ratio = ours / other if self.unpaired else statistics.median(self.ratios)
        return {"ratio": ratio, "ours": ours, "other": other}

    @property
    def missed(self) -> list[str]:
        """The goals that the medians do not reach."""
        return [
            f"{name} {goal}" for name, goal in self.goals.items() if not reached(self.medians[name], goal)
        ]

    def line(self) -> str:
        m, low, high = self.medians, min(self.ratios), max(self.ratios)
        goals = "; ".join(f"{name} {goal}" for name, goal in self.goals.items())
        verdict = (
            f"missed {'; '.join(self.missed)}" if self.missed else f"met {goals}" if goals else "no goal"
        )
        return (
            f"{self.question}: {self.ours} {m['ours']:.4g} {self.unit}, "
            f"{self.other} {m['other']:.4g} {self.unit}, "
            f"ratio {m['ratio']:.3g} ({low:.3g} to {high:.3g}, {len(self.a)} pairs): {verdict}"
        )


def _of_medians(a: list[float], b: list[float]) -> list[float]:
    """The central 95 % of the ratio of two medians, from 1000 bootstrap samples."""
    draw = random.Random(0)

    def median(values: list[float]) -> float:
        return statistics.median(draw.choices(values, k=len(values)))

    return sorted(median(a) / median(b) for _ in range(1000))[25:975:949]


def reached(value: float, goal: str) -> bool:
    """Whether a value satisfies a bound such as ">= 0.97"."""
    sign, bound = goal.split()
    return bool(_COMPARISONS[sign](value, float(bound)))


def compare(
    question: str,
    ours: tuple[str, Measure],
    other: tuple[str, Measure],
    *,
    unit: str,
    goals: dict[str, str],
    pairs: int = PAIRS,
    warmup: bool = True,
) -> Comparison:
    """Measure both in turn, `pairs` times, after one uncounted turn of each (unless `warmup` is False), and
    print the line."""
    (our_name, measure_ours), (other_name, measure_other) = ours, other
    if warmup:
        measure_ours(), measure_other()
    a, b = [], []
    for pair in range(pairs):
        first, second = (measure_ours, measure_other) if pair % 2 == 0 else (measure_other, measure_ours)
        one, two = first(), second()
        a.append(one if pair % 2 == 0 else two)
        b.append(two if pair % 2 == 0 else one)
    comparison = Comparison(question, our_name, other_name, unit, goals, a, b)
    print(comparison.line(), flush=True)
    return comparison


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all scripts share."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--pairs", type=int, default=PAIRS, help="pairs per comparison (default %(default)s)")
    made.add_argument("--no-save", action="store_true", help="print only, do not write to results/bench")
    return made


def arguments(description: str) -> argparse.Namespace:
    return parser(description).parse_args()


def save(script: str, comparisons: list[Comparison], remarks: Iterable[str] = ()) -> None:
    """Write the comparisons of a script to results/bench, with their machine and commit."""
    told = list(remarks)
    RESULTS.mkdir(parents=True, exist_ok=True)
    stored = {"measured": datetime.date.today().isoformat(), "commit": commit(), "machine": machine()}
    if (load := os.getloadavg()[1] / len(os.sched_getaffinity(0))) > BUSY:
        told.append(f"others used the machine as well: {load:.1f} runnable threads per core")
    if told:
        stored["remark"] = "; ".join(told)
    stored |= {"comparisons": [asdict(comparison) for comparison in comparisons]}  # type: ignore[dict-item]
    (RESULTS / f"{script}.json").write_text(json.dumps(stored, indent=1) + "\n")


def machine() -> str:
    """Cores and processor model."""
    return f"{len(os.sched_getaffinity(0))} cores, {processor()}"


def commit() -> str:
    """The commit of the measured code. Changed results of earlier scripts do not make it dirty."""
    commit, changed = _git("describe", "--always"), _git("status", "--porcelain", "--", ":!results/bench")
    return f"{commit}-dirty" if changed else commit


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
