"""The values of a model for use are those of a fold, chosen without a score."""

from __future__ import annotations

import pytest

from hpc.studies import refit
from hpc.studies.study import Study
from leukotree.config import parse
from leukotree.errors import InputError

SPACE = {
    "optim.lr": {"loguniform": [1e-5, 1e-1]},
    "loss.gamma": {"uniform": [0, 5]},
    "optim.batch_size": {"choice": [16, 32]},
}


def study(**fields: object) -> Study:
    base = {"study": "s", "variants": ["flat", "base"], "search": {"trials": 4, "space": SPACE}}
    return parse(Study, {**base, "folds": {"outer": 3}, "seeds": [5, 6], **fields}, "test")


def values(lr: float, gamma: float, batch: int) -> dict[str, object]:
    return {"optim.lr": lr, "loss.gamma": gamma, "optim.batch_size": batch}


def test_the_medoid_is_measured_on_the_axes_of_the_search() -> None:
    """In lr alone: distances of 1e-4 to 1e-5 and 1e-2 are 1/4 and 2/4 of the axis, so it is in the middle."""
    plan = study()
    chosen = {0: values(1e-2, 1, 16), 1: values(1e-4, 1, 16), 2: values(1e-5, 1, 16)}
    assert refit.medoid(plan.space("flat"), chosen) == 1
    by_choice = {0: values(1e-4, 1, 32), 1: values(1e-4, 1.5, 16), 2: values(1e-4, 0.5, 16)}
    assert refit.medoid(plan.space("flat"), by_choice) == 1
    assert refit.medoid(plan.space("flat"), {2: values(1e-4, 1, 16), 1: values(1e-4, 1, 16)}) == 1


def test_a_refit_is_the_run_of_that_fold_on_all_folds_and_the_first_seed() -> None:
    plan = study()
    chosen = {0: values(1e-2, 1, 16), 1: values(1e-4, 1, 16), 2: values(1e-5, 1, 16)}
    [one] = refit.refits(plan, {"flat": chosen, "base": chosen}, ["flat"])
    expected = plan.spec("flat", chosen[1], 0, 5).model_dump()
    expected["data"]["all_folds"] = True
    assert one.spec.model_dump() == expected
    assert (one.fold, one.same, one.folds) == (1, 1, 3)
    assert "the values of fold 1" in one.line(plan)


def test_one_choice_for_all_is_said() -> None:
    plan = study(search={"trials": 0})
    [one, _] = refit.refits(plan, {name: {0: {}, 1: {}, 2: {}} for name in ("flat", "base")}, plan.variants)
    assert one.line(plan) == "flat: the values of all outer folds"


def test_another_variant_is_refused() -> None:
    with pytest.raises(InputError, match="--variant multilabel: the study has flat, base"):
        refit.refits(study(), {}, ["multilabel"])


def test_a_study_cannot_say_all_folds_itself() -> None:
    with pytest.raises(InputError, match=r"base\.data\.all_folds"):
        study(base={"data": {"all_folds": True}})
    space = {"data.all_folds": {"choice": [True, False]}}
    with pytest.raises(InputError, match="cannot be varied"):
        study(search={"trials": 4, "space": space})


def test_values_that_no_cell_of_a_grid_has_are_refused() -> None:
    def refused(**fields: object) -> None:
        plan = study(search={"trials": 0}, grid={"loss.gamma": [0, 3]}, **fields)
        chosen = {name: {0: {}, 1: {}, 2: {}} for name in plan.variants}
        refit.require_cells(plan, refit.refits(plan, chosen, plan.variants))

    with pytest.raises(
        InputError, match=r"flat would have the values of `base`, .*such as base.loss.gamma=0$"
    ):
        refused()
    refused(base={"loss": {"gamma": 3}})
    plan = study(grid={"loss.gamma": [0, 3]})  # a search chooses its own
    chosen = {name: {0: values(1e-3, 1, 16)} for name in plan.variants}
    refit.require_cells(plan, refit.refits(plan, chosen, plan.variants))
