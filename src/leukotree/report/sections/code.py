"""Texts about the code of a study's runs: which commits made them, and which runs were continued on other
code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from leukotree.records import origin, runfolder, searchfolder
from leukotree.report.blocks import Text, plural
from leukotree.report.summary import Run, StudySummary


def texts(summary: StudySummary) -> list[Text]:
    """Each commit with its number of runs, then a warning for each run that several commits made, and one for
    such a search. Empty where no run recorded its code."""
    of_runs = {run.name: of_run(run) for run in summary.runs}
    counts = Counter(name for codes in of_runs.values() for name in dict.fromkeys(codes))
    texts = []
    if counts:
        listed = "; ".join(f"`{name}` ({plural(count, 'run')})" for name, count in sorted(counts.items()))
        texts.append(Text(f"Code: {listed}."))
    changed = [(f"Run `{name}`", codes) for name, codes in of_runs.items() if len(codes) > 1]
    roots = {run.folder.parent for run in summary.runs}
    roots |= {
        searchfolder.study_of(search.folder)
        for folds in summary.searches.values()
        for search in folds.values()
    }
    for root in sorted(roots):
        if len(codes := searchfolder.code_of(root)) > 1:
            changed.append(("The search", codes))
    return texts + [
        Text(f"{subject} was continued on other code: {_in_order(codes)}.", "warning")
        for subject, codes in changed
    ]


def of_run(run: Run) -> list[str]:
    """The code of a run: one name, or several where it was continued on other code. A run of an older version
    recorded it in env.json alone."""
    commit = run.environment.get("commit")
    return runfolder.code_of(run.folder) or ([origin.name({"commit": str(commit)})] if commit else [])


def _in_order(codes: Sequence[str]) -> str:
    return ", then ".join(f"`{code}`" for code in codes)
