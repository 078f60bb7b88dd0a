"""Rows of studies -> results/phantom: rates.csv, verdicts.png and README.md."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd

from leukotree.evaluation.metrics import wilson
from leukotree.files import write_atomic
from tests.truth.scenarios import SCENARIOS

COLOURS = {
    "better": "#1b7837",
    "worse": "#b2182b",
    "equivalent": "#2166ac",
    "inconclusive": "#999999",
    "not estimable": "#dddddd",
}
RIGHT = {"better": "better", "worse": "worse", "equal": "equivalent"}
WRONG = {"better": ("worse", "equivalent"), "worse": ("better", "equivalent"), "equal": ("better", "worse")}
HEAD = """# Does a study find what is true?

Studies on phantom images whose truth is known by construction. They are drawn many times: each draw has new
patients, folds and weights, and follows the steps of a user's study (`pack`, the runs of all outer folds, the
comparison of the report):

"""
TREES = {"helps": "tree helps", "any tree": "any tree helps"}
"""Scenario with permuted trees -> what is true."""
CERTAIN = ("tree helps", "any tree helps", "tree hurts")
"""Answers that claim something."""
OF_TREES = """
## Is it the tree?

Some scenarios also have arms on permuted trees. *Difference*: macro-F1 of the tree minus the mean of the
permuted trees. *Better* and *worse*: verdicts of the tree against this mean. *Right* and *wrong*: what the
report concludes, see [`docs/numbers.md`](../../docs/numbers.md#permuted-trees).

"""
RULE = """
*Difference*: macro-F1 of the challenger minus `flat`, the mean over the draws with its standard error.
*Smallest detectable*: the difference that one such study detects with a probability of 80 %, the median over
the draws. *Right*: the verdict (`{better}`, `{worse}` or `{equal}`) is the truth. *Wrong*: it contradicts the
truth. All other verdicts are inconclusive. Each rate has its 95 % interval (Wilson). The rule is declared in
[`docs/numbers.md`](../../docs/numbers.md#the-verdict): 95 % posterior probability outside of the region
of practical equivalence of 0.01, and a Holm-adjusted p below 0.05. Studies of this size detect differences
of about a tenth, so they cannot show {equal}: for two equal methods they are inconclusive, and wrong in one
of twenty.

![Verdicts of each scenario](verdicts.png)
"""
SCENARIO_HEAD = """
## The scenarios

"""
TAIL = """
Made by `python -m tests.truth.rates --draws {draws}`; `rates.csv` has a row per study.
"""


def write(out: Path, rows: pd.DataFrame) -> None:
    """Replace the three files."""
    rows = rows.sort_values("draw").sort_values(
        "scenario", key=lambda names: names.map(_place), kind="stable"
    )
    write_atomic(out / "rates.csv", rows.round(6).to_csv(index=False))
    write_atomic(out / "verdicts.png", _figure(rows))
    heads = [
        "scenario",
        "truth",
        "draws",
        "difference",
        "smallest detectable",
        "right",
        "inconclusive",
        "wrong",
    ]
    lines = [f"| {' | '.join(heads)} |", "| --- | --- " + "| ---: " * 6 + "|"]
    for name, group in rows.groupby("scenario", sort=False):
        lines.append(f"| {' | '.join(_cells(str(name), group))} |")
    scenarios = [
        f"* `{name}`: `{scenario.challenger}` against `flat`. {scenario.why}"
        for name, scenario in SCENARIOS.items()
    ]
    trees = _of_trees(rows)
    fewest = rows.groupby("scenario")["draw"].nunique().min()
    text = (
        HEAD
        + "\n".join(lines)
        + "\n"
        + RULE.format(**RIGHT)
        + (f"{trees}\n" if trees else "")
        + SCENARIO_HEAD
        + "\n".join(scenarios)
        + "\n"
        + TAIL.format(draws=fewest)
    )
    write_atomic(out / "README.md", text)


def _place(name: str) -> int:
    return list(SCENARIOS).index(name)


def _cells(name: str, group: pd.DataFrame) -> list[str]:
    truth, verdicts, n = SCENARIOS[name].truth, group["verdict"], len(group)
    right, wrong = int((verdicts == RIGHT[truth]).sum()), int(verdicts.isin(WRONG[truth]).sum())
    difference = f"{group['mean'].mean():+.3f} ± {group['mean'].std() / n**0.5:.3f}"
    detectable = f"{group['detectable'].median():.3f}"
    rates = [_rate(k, n) for k in (right, n - right - wrong, wrong)]
    return [f"`{name}`", truth, str(n), difference, detectable, *rates]


def _of_trees(rows: pd.DataFrame) -> str:
    """The table of the scenarios with permuted trees; empty without a row of one."""
    if "answer" not in rows:
        return ""
    heads = ["scenario", "truth", "draws", "difference", "better", "worse", "right", "cannot say", "wrong"]
    lines = [f"| {' | '.join(heads)} |", "| --- | --- " + "| ---: " * 7 + "|"]
    for name, group in rows.dropna(subset="answer").groupby("scenario", sort=False):
        truth, answers, verdicts, n = TREES[str(name)], group["answer"], group["against_permuted"], len(group)
        right = int((answers == truth).sum())
        wrong = int((answers.isin(CERTAIN) & (answers != truth)).sum())
        counts = [int((verdicts == "better").sum()), int((verdicts == "worse").sum())]
        difference = f"{group['mean_permuted'].mean():+.3f} ± {group['mean_permuted'].std() / n**0.5:.3f}"
        rates = [_rate(k, n) for k in (*counts, right, n - right - wrong, wrong)]
        lines.append(f"| {' | '.join([f'`{name}`', truth, str(n), difference, *rates])} |")
    return OF_TREES + "\n".join(lines) if len(lines) > 2 else ""


def _rate(k: int, n: int) -> str:
    low, high = wilson(k, n, floor=1) or (0.0, 1.0)
    return f"{100 * k / n:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def _figure(rows: pd.DataFrame) -> bytes:
    """Each study's mean difference, coloured by its verdict."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.add_subplot()
    for verdict, colour in COLOURS.items():
        some = rows[rows["verdict"] == verdict]
        if len(some):
            places = some["scenario"].map(_place) + (some["draw"] % 10 - 4.5) * 0.05
            axes.scatter(some["mean"], places, s=14, color=colour, label=verdict)
    axes.axvspan(-0.01, 0.01, color="#dddddd", zorder=0)
    axes.set_yticks(range(len(SCENARIOS)), list(SCENARIOS))
    axes.invert_yaxis()
    axes.set_xlabel("macro-F1, challenger minus flat; a point per study; grey: practically the same")
    axes.legend(fontsize=7)
    png = io.BytesIO()
    figure.savefig(png, dpi=110, metadata={"Software": None})
    return png.getvalue()
