"""What is explained: each decision on the path that a run decides for an image, and the path as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leukotree.explain import layers
from leukotree.explain.layers import Layer
from leukotree.explain.wrapped import Outputs
from leukotree.models.classifier import Classifier
from leukotree.models.stages import Stage
from leukotree.spec import OF_LEAVES, Variant
from leukotree.taxonomy import Taxonomy

PATH = ""
"""The place of a decision's name for the path as a whole. No node has an empty name."""


@dataclass(frozen=True, eq=False)
class View:
    """A model of a run, seen at one of its layers."""

    module: Outputs
    layer: Layer
    decisions: frozenset[str]
    """The decisions that depend on the layer."""


@dataclass(frozen=True)
class Target:
    """What a map explains."""

    decision: str
    """A decision, or PATH."""
    node: str
    """The child that is decided; for PATH the leaf."""
    columns: tuple[int, ...]
    """The sum of these columns of `Outputs` is explained: the conditional logit of the child, or the log
    p(child | parent) along the path."""
    edges: tuple[int, ...]
    """The product of the probabilities of these edges is the target's probability."""
    views: tuple[int, ...]
    """Where maps are made. Those of several views are averaged."""


def views(
    variant: Variant,
    taxonomy: Taxonomy,
    stages: Sequence[Stage],
    models: Sequence[Classifier],
    size: int | None = None,
) -> list[View]:
    """The views of a run's models, for images of size x size pixels (see `layers.find`).

    `flat` and `multilabel` have one. `base` has one for each decision, that of the model which decides it.
    `ensemble` has one for each member, and all of them decide everything. With isolation `branched` there is
    one for each level, in its branch. Raises InputError as `layers.find`.
    """
    found = []
    for stage, model in zip(stages, models, strict=True):
        module = Outputs(variant, taxonomy, stage, model)
        if not len(model.branches):
            decided = taxonomy.decisions if variant in OF_LEAVES else stage.heads
            found.append(View(module, layers.find(model.backbone, size=size), frozenset(decided)))
        for level, branch in zip(sorted(set(stage.levels.values())), model.branches, strict=False):
            of_level = frozenset(name for name, own in stage.levels.items() if own == level)
            found.append(View(module, layers.find(model.backbone, branch), of_level))
    return found


def targets(taxonomy: Taxonomy, leaf: str, seen: Sequence[View]) -> list[Target]:
    """The targets of an image whose decided leaf is `leaf`: its decisions from the root on, then the path.

    A node with one child decides nothing and is left out.
    """
    path = [node for node in taxonomy.path(leaf) if taxonomy.parent_of[node] in taxonomy.decisions]
    edges = [taxonomy.edges.index(node) for node in path]
    found = [
        Target(
            decision := taxonomy.parent_of[node],
            node,
            (edge,),
            (edge,),
            tuple(place for place, view in enumerate(seen) if decision in view.decisions),
        )
        for node, edge in zip(path, edges, strict=True)
    ]
    everywhere = tuple(sorted({place for target in found for place in target.views}))
    columns = tuple(len(taxonomy.edges) + edge for edge in edges)
    return [*found, Target(PATH, leaf, columns, tuple(edges), everywhere)]
