"""results/bench/*.json -> results/bench/README.md: every comparison in one table, then the pairs."""

from __future__ import annotations

import json
from pathlib import Path

from pairs import RESULTS, Comparison

SCRIPTS = ("loader", "step", "ranks", "zero", "trial", "sweep", "pack", "start", "checkpoint")
"""In the order of the table."""
HEAD = """# How fast it is

Each row compares two things in one run, in turn (`make bench` measures them again, `tests/bench/` has the scripts). The
ratio is ours over the other, the median of the pairs, with the lowest and the highest behind it. Absolute figures are those
of one machine on one day.
"""


def main() -> None:
    rows, details = [], []
    for script in SCRIPTS:
        path = RESULTS / f"{script}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        details.append(f"* `{script}`: {found['machine']}; {found['measured']}, commit {found['commit']}")
        for stored in found["comparisons"]:
            rows.append(_row(Comparison(**{key: value for key, value in stored.items() if key != "ratios"})))
    columns = ("question", "ours", "other", "unit", "ratio", "goal", "met")
    table = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|", *rows]
    target: Path = RESULTS / "README.md"
    target.write_text("\n".join([HEAD, *table, "", "Measured on:", "", *details, ""]))
    print("\n".join(table))


def _row(found: Comparison) -> str:
    medians = found.medians
    ratio = f"**{medians['ratio']:.3g}** ({min(found.ratios):.3g} to {max(found.ratios):.3g}, n={len(found.ratios)})"
    goals = "; ".join(f"{name} {goal}" for name, goal in found.goals.items()) or "none"
    verdict = "-" if not found.goals else "no: " + "; ".join(found.missed) if found.missed else "yes"
    ours, other = f"{found.ours}: {medians['ours']:.4g}", f"{found.other}: {medians['other']:.4g}"
    cells = (found.question, ours, other, found.unit, ratio, goals, verdict)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
