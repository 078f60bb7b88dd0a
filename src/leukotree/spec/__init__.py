"""RunSpec: all settings that change the result of one run, and no others.

Where it runs, and on how many processes (`--on`, `--ranks`, `--site`), is not in the spec. So the same spec
is the same run everywhere. Its hash names the run's folder. Running it again continues it.
"""

from leukotree.spec.effect import (
    NEEDS,
    TREE,
    default_of,
    tree_has_effect,
    value_of,
    without_effect,
    without_effect_in,
)
from leukotree.spec.groups import (
    AugmentSpec,
    BackboneSpec,
    DataSpec,
    EngineSpec,
    InnerFold,
    LoraSpec,
    LossSpec,
    OptimSpec,
    PlainSpec,
)
from leukotree.spec.run import RunSpec, load
from leukotree.spec.variants import (
    COMPARED,
    MODEL_PER_DECISION,
    OF_LEAVES,
    PLAIN,
    TRAINED,
    VARIANTS,
    Variant,
)

__all__ = [
    "COMPARED",
    "MODEL_PER_DECISION",
    "NEEDS",
    "OF_LEAVES",
    "PLAIN",
    "TRAINED",
    "TREE",
    "VARIANTS",
    "AugmentSpec",
    "BackboneSpec",
    "DataSpec",
    "EngineSpec",
    "InnerFold",
    "LoraSpec",
    "LossSpec",
    "OptimSpec",
    "PlainSpec",
    "RunSpec",
    "Variant",
    "default_of",
    "load",
    "tree_has_effect",
    "value_of",
    "without_effect",
    "without_effect_in",
]
