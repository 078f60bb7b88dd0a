"""results/bench/*.json -> results/bench/README.md: every comparison in one table, then the pairs."""

from __future__ import annotations

import json
from pathlib import Path

from pairs import RESULTS, Comparison

SCRIPTS = ("loader", "step", "ranks", "zero", "trial", "sweep", "pack", "start", "checkpoint")
"""The scripts, in the order of the table."""
HEAD = """# How fast it is

Each row compares two things in one run, in turn (`make bench` measures them again, `tests/bench/` has the
scripts). The ratio is LeukoTree over the other: the median of the pairs, and in brackets the lowest and the
highest. Absolute figures hold for one machine on one day.
"""


def main() -> None:
    rows, details = [], []
    for script in SCRIPTS:
        path = RESULTS / f"{script}.json"
        if not path.exists():
            continue
        stored = json.loads(path.read_text())
        details.append(f"* `{script}`: {stored['machine']}; {stored['measured']}, commit {stored['commit']}")
        for fields in stored["comparisons"]:
            rows.append(_row(Comparison(**{key: value for key, value in fields.items() if key != "ratios"})))
    columns = ("question", "ours", "other", "unit", "ratio", "goal", "met")
    table = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|", *rows]
    target: Path = RESULTS / "README.md"
    target.write_text("\n".join([HEAD, *table, "", "Measured on:", "", *details, ""]))
    print("\n".join(table))


def _row(comparison: Comparison) -> str:
    medians, ratios = comparison.medians, comparison.ratios
    spread = f"{min(ratios):.3g} to {max(ratios):.3g}, n={len(ratios)}"
    ratio = f"**{medians['ratio']:.3g}** ({spread})"
    goals = "; ".join(f"{name} {goal}" for name, goal in comparison.goals.items()) or "none"
    missed = "; ".join(comparison.missed)
    verdict = "-" if not comparison.goals else f"no: {missed}" if missed else "yes"
    ours, other = f"{comparison.ours}: {medians['ours']:.4g}", f"{comparison.other}: {medians['other']:.4g}"
    cells = (comparison.question, ours, other, comparison.unit, ratio, goals, verdict)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
