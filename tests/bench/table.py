"""results/bench/*.json -> results/bench/README.md: all comparisons in one table, then the figures of GPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pairs import RESULTS, Comparison

SCRIPTS = (
    "loader",
    "step",
    "levers",
    "ranks",
    "zero",
    "trial",
    "sweep",
    "search",
    "pack",
    "start",
    "checkpoint",
)
"""The scripts, in the order of the table."""
HEAD = """# How fast it is

Each row compares two things in one run, in turn (`make bench` measures them again, `tests/bench/` has the
scripts). The ratio is LeukoTree over the other: the median of the pairs, and in brackets the lowest and the
highest. Absolute figures hold for one machine on one day.
"""
GPUS = """## With a GPU

`python tests/bench/gpu.py` measures a machine with GPUs in about 25 minutes: steps of ViT-S/16 at 384 px, two
ranks, the exchange of gradients, features and a search of ten minutes. It adds a table to this page.
"""
NO_GPU = "No GPU was at hand until now: every figure on this page is of a CPU.\n"


def main() -> None:
    text = page(RESULTS)
    (RESULTS / "README.md").write_text(text)
    print(text)


def page(folder: Path) -> str:
    """The page of the stored results in a folder."""
    rows, details = [], []
    for script in SCRIPTS:
        path = folder / f"{script}.json"
        if not path.exists():
            continue
        stored = json.loads(path.read_text())
        details.append(f"* `{script}`: {_where(stored)}")
        for fields in stored["comparisons"]:
            rows.append(_row(Comparison(**{key: value for key, value in fields.items() if key != "ratios"})))
    columns = ("question", "ours", "other", "unit", "ratio", "goal", "met")
    table = _table(columns, rows)
    cards = [
        stored for path in sorted(folder.glob("*.json")) if "card" in (stored := json.loads(path.read_text()))
    ]
    gpus = [line for stored in cards for line in _card(stored)] or [NO_GPU]
    return "\n".join([HEAD, *table, "", "Measured on:", "", *details, "", GPUS, *gpus])


def _table(columns: tuple[str, ...], rows: list[str]) -> list[str]:
    return [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|", *rows]


def _where(stored: dict[str, Any]) -> str:
    told = f"; {stored['remark']}" if "remark" in stored else ""
    return f"{stored['machine']}; {stored['measured']}, commit {stored['commit']}{told}"


def _row(comparison: Comparison) -> str:
    medians, ratios = comparison.medians, comparison.ratios
    spread = f"{min(ratios):.3g} to {max(ratios):.3g}, n={len(comparison.a)}"
    ratio = f"**{medians['ratio']:.3g}** ({spread})"
    goals = "; ".join(f"{name} {goal}" for name, goal in comparison.goals.items()) or "none"
    missed = "; ".join(comparison.missed)
    verdict = "-" if not comparison.goals else f"no: {missed}" if missed else "yes"
    ours, other = f"{comparison.ours}: {medians['ours']:.4g}", f"{comparison.other}: {medians['other']:.4g}"
    cells = (comparison.question, ours, other, comparison.unit, ratio, goals, verdict)
    return f"| {' | '.join(cells)} |"


def _card(stored: dict[str, Any]) -> list[str]:
    """The lines of what gpu.py measured on a card."""
    rows = []
    for row in stored["rows"]:
        mfu = "-" if row["mfu"] is None else f"{row['mfu']:.1%}"
        rows.append(f"| {row['what']} | {row['value']:.4g} | {row['unit'] or '-'} | {mfu} | {row['note']} |")
    peaks = ", ".join(f"{value / 1e12:g} in {kind}" for kind, value in stored["peak_flops"].items() if value)
    mfu = (
        f"MFU is the share of the maker's TFLOP/s: {peaks}."
        if peaks
        else "MFU is not given: `PEAKS` in `leukotree.training.throughput` has no peak of this card."
    )
    title = f"### {stored['card']}"
    facts = f"{_where(stored)}; {stored['cards']} of these cards, torch {stored['torch']}. {mfu}"
    return [title, "", facts, "", *_table(("what", "measured", "unit", "MFU", "beside it"), rows), ""]


if __name__ == "__main__":
    main()
