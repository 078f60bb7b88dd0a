"""Which keys of a run spec have an effect, in which variant and beside which other settings.

A key without an effect keeps its default. So two specs that train the same are one run.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from leukotree.config import Strict
from leukotree.spec.groups import GROUPS, LossSpec, PlainSpec
from leukotree.spec.variants import OF_LEAVES, PLAIN, VARIANTS

_LEVELS = ("isolation", "leader", "branch_blocks", "surgery")
NO_EFFECT_IN: dict[str, tuple[str, ...]] = {
    "flat": _LEVELS,
    "base": (*_LEVELS, "level_weights", "normalisation"),
    "multilabel": (),
    "ensemble": _LEVELS,
}
"""Keys of `loss` that have no effect in a variant. They keep their defaults there. Those of PLAIN follow from
EFFECT_IN."""
EFFECT_IN: dict[str, tuple[str, ...]] = {
    "logistic": ("loss.tau", "engine.precision", "plain.c"),
    "neighbours": ("loss.tau", "engine.precision", "plain.k", "plain.temperature"),
}
"""The keys of `loss`, `optim`, `engine` and `plain` that have an effect in a variant of PLAIN."""
_MOVES = ("all", "last", "lora")
"""Values of `backbone.train` with which weights of the backbone change."""
NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "loss.gamma": ("loss.kind", ("focal",)),
    "loss.beta": ("loss.kind", ("soft",)),
    "loss.hxe_alpha": ("loss.weighting", ("hxe",)),
    "loss.variance_lr": ("loss.weighting", ("uncertainty",)),
    "loss.leader": ("loss.isolation", ("detached", "branched")),
    "loss.branch_blocks": ("loss.isolation", ("branched",)),
    "loss.surgery": ("loss.isolation", ("projected",)),
    "augment.views": ("backbone.train", ("head",)),
    "backbone.drop_path": ("backbone.train", _MOVES),
    "backbone.last": ("backbone.train", ("last",)),
    **{f"backbone.lora.{key}": ("backbone.train", ("lora",)) for key in ("rank", "alpha", "targets")},
    "optim.layer_decay": ("backbone.train", _MOVES),
}
"""Keys that have an effect only with some values of another key: key -> (other key, values)."""
REFUSED = tuple(key for key, (other, _) in NEEDS.items() if other == "backbone.train")
"""Keys of NEEDS that a spec may not set where they have no effect. Older keys may be set there, as stored
specs do."""
TREE = "tree"
"""Key of the label tree. `tree_has_effect` says where it has an effect."""
NO_CHANGES: Mapping[str, Any] = MappingProxyType({})


def value_of(spec: Strict, key: str) -> Any:
    """The value of a dotted key of a run spec, such as `loss.kind`."""
    return functools.reduce(getattr, key.split("."), spec)


@lru_cache(maxsize=256)  # asked for each cell of a grid
def default_of(key: str) -> Any:
    """The default of a dotted key of a run spec, such as `loss.kind`."""
    group, _, rest = key.partition(".")
    return value_of(GROUPS[group](), rest)


def without_effect_in(variant: str) -> dict[str, Any]:
    """Dotted keys of a run spec that have no effect in a variant, with the defaults that they keep there."""
    return {key: default_of(key) for key in _idle_in(variant)}


@lru_cache(maxsize=len(VARIANTS))
def _idle_in(variant: str) -> tuple[str, ...]:
    if variant not in PLAIN:
        return (
            *(f"loss.{key}" for key in NO_EFFECT_IN[variant]),
            *(f"plain.{key}" for key in PlainSpec.model_fields),
        )
    groups = ("loss", "optim", "engine", "plain")
    keys = [f"{name}.{key}" for name in groups for key in GROUPS[name].model_fields]
    return tuple(key for key in ("data.order", "data.window", *keys) if key not in EFFECT_IN[variant])


def without_effect(variant: str, spec: Strict, changes: Mapping[str, Any]) -> dict[str, Any]:
    """As `without_effect_in`, and also the keys that have no effect beside the other settings of the run.
    `changes`: dotted values that replace those of `spec`."""
    keys = [key for key, (other, values) in NEEDS.items() if _value(spec, changes, other) not in values]
    if variant in OF_LEAVES and _value(spec, changes, "loss.kind") == "focal":
        keys.append("loss.normalisation")  # one decision, which all images are below
    idle = {key: default_of(key) for key in keys} | without_effect_in(variant)
    return idle if tree_has_effect(variant, value_of(spec, "loss"), changes) else idle | {TREE: None}


def _value(spec: Strict, changes: Mapping[str, Any], key: str) -> Any:
    return changes[key] if key in changes else value_of(spec, key)


def tree_has_effect(variant: str, loss: LossSpec, changes: Mapping[str, Any] = NO_CHANGES) -> bool:
    """Whether the training of a variant depends on the label tree. `flat` does so only with a loss that has
    the tree in it. An ensemble has a member for each decision. `changes`: as for `without_effect`."""
    used = ("kind", "weighting", "level_weights", "tau", "normalisation")
    values = {key: changes.get(f"loss.{key}", getattr(loss, key)) for key in used}
    if variant in PLAIN:
        return False
    if variant != "flat" or values["kind"] in ("soft", "marginal"):
        return True
    if values["kind"] == "focal":
        return False
    # Unweighted, with equal denominators, `conditional` is the cross-entropy of the leaf.
    weighted = values["weighting"] != "fixed" or values["level_weights"] is not None
    return weighted or values["tau"] != 0 or values["normalisation"] != "all"
