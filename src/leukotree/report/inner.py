"""Inner validation of an arm: predictions for the images outside a test fold, by models that did not see
them.

Thresholds, temperatures and prediction sets are fitted on it, never on the test fold. Its models are those of
the chosen trial. They trained on fewer images than the model of the outer fold.
"""

from __future__ import annotations

from leukotree.report import scores
from leukotree.report.summary import Arm, StudySummary, Validation
from leukotree.taxonomy import Taxonomy


def by_fold(summary: StudySummary, arm: Arm) -> dict[int, Validation]:
    """Test fold -> inner validation, for the folds of the arm's runs that have it."""
    return {
        fold: inner
        for fold, runs in scores.by_fold(arm.runs).items()
        if (inner := validation(summary, arm, fold, runs[0].taxonomy))
    }


def validation(summary: StudySummary, arm: Arm, fold: int, taxonomy: Taxonomy) -> Validation | None:
    """The inner validation of a fold's search. None without it, where the search used the fold's images, and
    for another tree than the runs have."""
    search = summary.search(arm.variant, fold) if arm.cell is None else None
    if search is None or search.test_fold != fold or search.validation is None:
        return None
    inner = search.validation
    # The order of the leaves counts, so the items are compared as lists.
    same = list(inner.taxonomy.parent_of.items()) == list(taxonomy.parent_of.items())
    return inner if same else None
