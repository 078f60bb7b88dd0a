"""Which code the runs of a study were made with, and which of them were continued on other code than they
were begun with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from leukotree.records import origin, runfolder, searchfolder
from leukotree.report.blocks import Text, plural
from leukotree.report.summary import StudySummary


def texts(summary: StudySummary) -> list[Text]:
    """The code with its number of runs, then a warning for each run, and for the search, that several codes
    made. Nothing where no run says."""
    of_runs = {
        run.name: runfolder.code_of(run.folder) or _of_environment(run.environment.get("commit"))
        for run in summary.runs
    }
    counts = Counter(name for codes in of_runs.values() for name in dict.fromkeys(codes))
    found = []
    if counts:
        listed = "; ".join(f"`{name}` ({plural(count, 'run')})" for name, count in sorted(counts.items()))
        found.append(Text(f"Code: {listed}."))
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
    return found + [
        Text(f"{what} was continued on other code: {_then(codes)}.", "warning") for what, codes in changed
    ]


def _of_environment(commit: object) -> list[str]:
    """Of a run of an older version, whose attempts do not say."""
    return [origin.name({"commit": str(commit)})] if commit else []


def _then(codes: Sequence[str]) -> str:
    return ", then ".join(f"`{code}`" for code in codes)
