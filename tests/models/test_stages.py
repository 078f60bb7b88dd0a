"""The models that each variant trains."""

from __future__ import annotations

from leukotree.models.stages import stages
from leukotree.spec import VARIANTS
from leukotree.taxonomy import Taxonomy


def test_the_variants_train_what_the_paper_says() -> None:
    tree = Taxonomy.paper()
    assert [len(stages(variant, tree)) for variant in VARIANTS] == [1, 4, 1]
    chronic = stages("base", tree)[3]
    assert [leaf for leaf, trains in zip(tree.leaves, chronic.trains_on, strict=True) if trains] == [
        "CLL",
        "CML",
    ]
    assert len(stages("multilabel", tree)[0].heads) == 4
