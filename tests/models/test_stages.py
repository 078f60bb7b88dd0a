"""The models that each variant trains."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from leukotree.models.stages import stages
from leukotree.spec import VARIANTS
from leukotree.taxonomy import Taxonomy
from tests.helpers.trees import trees


def test_the_variants_train_what_the_paper_says() -> None:
    tree = Taxonomy.paper()
    assert [len(stages(variant, tree)) for variant in VARIANTS] == [1, 4, 1, 4, 1, 1]
    chronic = stages("base", tree)[3]
    assert [leaf for leaf, trains in zip(tree.leaves, chronic.trains_on, strict=True) if trains] == [
        "CLL",
        "CML",
    ]
    assert len(stages("multilabel", tree)[0].heads) == 4


@given(trees())
def test_an_ensemble_has_a_flat_model_for_each_model_of_base(tree: Taxonomy) -> None:
    [flat], base, members = (stages(variant, tree) for variant in ("flat", "base", "ensemble"))
    assert [member.decision for member in members] == [stage.name for stage in base]
    assert len({member.name for member in members}) == len(members)
    for number, member in enumerate(members, 1):
        assert member.heads == flat.heads
        assert member.member == number
        assert np.array_equal(member.targets, flat.targets)
