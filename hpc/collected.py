"""The finished runs of a study, as its report reads them: those that the study expects, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leukotree.errors import InputError

if TYPE_CHECKING:
    from hpc.studies.study import Study
    from leukotree.report.summary import StudySummary


def summary(plan: Study) -> StudySummary:
    """The content of a study's folder.

    Raises InputError as `leukotree.report.collect.collect`, where a search could have seen its test fold, and
    where runs or searches have other data or settings than today.
    """
    from leukotree.report.collect import collect

    expected, cells = expected_runs(plan)
    fields = plan.model_dump(mode="json")
    return collect(plan.root, fields, expected, cells, typed=plan.typed, inner=inner_runs(plan))


def expected_runs(plan: Study) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(runs with chosen values, cells of the grid) that a report expects. Cells count once the grid was
    begun. A grid without a search expects no other runs, unless somebody ran them."""
    from hpc.launching import stale
    from hpc.search import choice
    from hpc.studies import cells
    from leukotree.report.arms import check_primary

    chosen = choice.chosen(plan, partial=True)
    expected, grid = plan.expected(chosen), cells.expand(plan) if plan.has_grid else []
    if line := stale.at_another_path(plan.root, [*plan.fold_specs(chosen), *(cell.spec for cell in grid)]):
        raise InputError(line)
    if not plan.has_grid:
        return expected, []
    rows = cells.rows(grid)
    check_primary(plan.model_dump(mode="json"), rows)  # also where the grid has not begun
    if not plan.search.trials:
        of_grid = {row["run_name"] for row in rows}
        others = [row["run_name"] for row in expected if row["run_name"] not in of_grid]
        if not any((plan.root / name).exists() for name in others):
            return [], rows
    return expected, rows if (plan.root / cells.FILE).exists() else []


def inner_runs(plan: Study) -> list[dict[str, Any]]:
    """One row {variant, repeat, test_fold, run_name} for each run of `leukotree folds STUDY --inner`, whether
    it is there or not."""
    from hpc.search import choice

    return [
        {
            "variant": spec.variant,
            "repeat": spec.data.repeat,
            "test_fold": spec.data.test_fold,
            "run_name": spec.run_name,
        }
        for spec in plan.inner_specs(choice.chosen(plan, partial=True))
    ]
