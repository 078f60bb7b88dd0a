"""Inner validation of an arm: predictions for the images outside a test fold, by models that did not see
them.

Thresholds, temperatures and prediction sets are fitted on it, never on the test fold. Its models have the
chosen values. They trained on fewer images than the model of the outer fold.
"""

from __future__ import annotations

from leukotree.errors import InputError
from leukotree.report import scores
from leukotree.report.summary import Arm, StudySummary, Validation, trained_tree
from leukotree.taxonomy import Taxonomy


def by_fold(summary: StudySummary, arm: Arm) -> dict[int, Validation]:
    """Test fold -> inner validation, for the folds of the arm's runs that have it."""
    return {
        fold: inner
        for fold, runs in scores.by_fold(arm.runs).items()
        if (inner := validation(summary, arm, fold, runs[0].taxonomy))
    }


def validation(summary: StudySummary, arm: Arm, fold: int, taxonomy: Taxonomy) -> Validation | None:
    """The inner validation of a fold: by the chosen trial of its search, or by `leukotree folds STUDY
    --inner`.

    None without either, for a cell of a grid, and for another tree than the runs have. A search that used
    the fold's images gives none. Raises InputError where an image of the fold is in it.
    """
    if arm.cell is not None:
        return None
    search = summary.search(arm.variant, fold)
    inner = search.validation if search is not None and search.test_fold == fold else None
    inner = inner or summary.inner_validation(arm.variant, fold)
    if inner is None:
        return None
    run = next(run for run in arm.runs if run.test_fold == fold)
    if seen := set(run.images["key"]).intersection(inner.images["key"]):
        raise InputError(
            f"{arm.name}: image {min(seen)!r} of test fold {fold} is in its inner folds; run the sweep again"
        )
    same = inner.taxonomy.ordered_as(taxonomy) and trained_tree(inner).ordered_as(trained_tree(run))
    return inner if same else None
