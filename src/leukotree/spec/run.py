"""RunSpec: the fields of one run, their checks, and the hash that names its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from leukotree import tree_choice, yamlfile
from leukotree.config import Strict, merge, parse, parse_overrides
from leukotree.errors import InputError
from leukotree.spec.effect import NEEDS, REFUSED, default_of, tree_has_effect, value_of, without_effect_in
from leukotree.spec.groups import (
    AugmentSpec,
    BackboneSpec,
    DataSpec,
    EngineSpec,
    LossSpec,
    OptimSpec,
    PlainSpec,
)
from leukotree.spec.variants import PLAIN, Variant


class RunSpec(Strict):
    """One run: a variant, its data, model, loss, optimiser and engine. Every field has a default."""

    variant: Variant = "multilabel"
    """`flat`: one softmax over the leaves. `base`: a model for each decision. `multilabel`: one model with a
    loss per level. `ensemble`: as many flat models as `base` has, each with as many steps as the model of
    `base` that it stands beside; their leaf probabilities are averaged. `logistic` and `neighbours`: a
    logistic regression, and a vote of the nearest training images, on the stored features of a frozen
    backbone."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the initial weights, the order and the augmentation, each with its own stream."""
    tree: str | None = None
    """The label tree: None (that of the data set), `paper`, the path of a YAML file (relative to the current
    folder), or `permuted:SEED` (the tree of the data set with its leaves permuted). It has the leaves of the
    data: a larger tree is pruned to them."""
    data: DataSpec = DataSpec()
    augment: AugmentSpec = AugmentSpec()
    backbone: BackboneSpec = BackboneSpec()
    loss: LossSpec = LossSpec()
    optim: OptimSpec = OptimSpec()
    engine: EngineSpec = EngineSpec()
    plain: PlainSpec = PlainSpec()

    @field_validator("tree", mode="before")
    @classmethod
    def _one_form(cls, value: Any) -> str | None:
        return tree_choice.parse(value)

    @model_validator(mode="after")
    def _fits(self) -> RunSpec:
        self._check_effect()
        self._check_what_trains()
        if self.variant == "base" and self.loss.kind in ("soft", "marginal"):
            raise ValueError(
                f"loss.kind: {self.loss.kind} needs all leaves in one model; base has one per decision"
            )
        if self.variant == "base" and self.loss.weighting == "uncertainty":
            raise ValueError(
                "loss.weighting: uncertainty weighs levels of one model; base has a model per decision"
            )
        if self.engine.strategy != "ddp":
            for key, value in (("isolation", "projected"), ("weighting", "uncertainty")):
                if getattr(self.loss, key) == value:
                    problem = f"{value} does not work with {self.engine.strategy}"
                    raise ValueError(f"loss.{key}: {problem}; use engine.strategy ddp")
        return self

    def _check_effect(self) -> None:
        """Raises ValueError for a key that has no effect in the variant, and where the variant lacks its
        features."""
        if self.tree is not None and not tree_has_effect(self.variant, self.loss):
            beside = "" if self.variant in PLAIN else f" with loss.kind {self.loss.kind}"
            raise ValueError(f"tree: has no effect in {self.variant}{beside}; leave it out")
        for key, default in without_effect_in(self.variant).items():
            if self.variant == "multilabel" and key.startswith("plain."):
                continue  # the base of a study is a multilabel, and has the settings of all variants
            if value_of(self, key) != default:
                raise ValueError(f"{key}: has no effect in {self.variant}; leave it out")
        if self.variant in PLAIN and (self.backbone.train != "head" or self.augment.views is None):
            raise ValueError(
                f"variant: {self.variant} is fitted to stored features; set backbone.train to head, and "
                "augment.views to the number of views, or to 0"
            )

    def _check_what_trains(self) -> None:
        """Raises ValueError where a key concerns weights that do not train."""
        for key in REFUSED:
            other, values = NEEDS[key]
            if (given := value_of(self, other)) not in values and value_of(self, key) != default_of(key):
                raise ValueError(
                    f"{key}: has no effect with {other} {given}; leave it out, or set {other} to "
                    f"{' or '.join(values)}"
                )
        if self.backbone.train == "head" and self.loss.isolation not in ("shared", "chained"):
            raise ValueError(
                f"loss.isolation: {self.loss.isolation} isolates levels in the backbone, which "
                "backbone.train head does not train; use shared or chained, or train more"
            )
        blocks = self.loss.branch_blocks
        if (
            self.backbone.train == "last"
            and self.loss.isolation == "branched"
            and self.backbone.last < blocks
        ):
            raise ValueError(
                f"backbone.last: {self.backbone.last} leaves blocks of the branches frozen; use at least "
                f"loss.branch_blocks, {blocks}"
            )

    @cached_property
    def hash(self) -> str:
        """12 hex digits of the fields that differ from their defaults. So a new field with a default changes
        no name. The run folder stores all fields; a run with other stored fields is refused."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        return _digest(json.dumps(fields, sort_keys=True))

    @property
    def run_name(self) -> str:
        return f"{self.variant}-{self.hash}"

    @property
    def epochs(self) -> int:
        """The parts of the training, after each of which the run is saved. A variant of PLAIN has one."""
        return 1 if self.variant in PLAIN else self.optim.epochs

    @property
    def on_features(self) -> bool:
        """Whether it trains on stored features: heads on a frozen backbone, with fixed views. An ensemble of
        random backbones does not: each member has a backbone of its own."""
        alike = self.variant != "ensemble" or self.backbone.weights is not None
        return self.backbone.train == "head" and self.augment.views is not None and alike

    def __copy__(self) -> RunSpec:
        return _without_hash(super().__copy__())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> RunSpec:
        return _without_hash(super().__deepcopy__(memo))

    def dump(self) -> str:
        """All fields as YAML."""
        return yamlfile.dump(self.model_dump(mode="json"))

    def placed(self, places: Iterable[tuple[int, int, int]]) -> Iterator[RunSpec]:
        """The same run at each place (repeat, test fold, seed). Nothing is checked again. The hashes are
        computed from one list of fields, since a grid has ten thousands of runs."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        of_data = {name: value for name, value in fields.pop("data", {}).items() if name not in _PLACE}
        others = json.dumps(of_data)
        texts = {name: json.dumps(value, sort_keys=True) for name, value in fields.items()}
        for repeat, test_fold, seed in places:
            data, text = _placed_data(self.data, others, repeat, test_fold)
            placed = self.model_copy(update={"seed": seed, "data": data})
            of_place = {"data": text, "seed": str(seed) if seed else ""}
            placed.__dict__["hash"] = _digest(_object(texts | of_place))
            yield placed

    def override(self, changes: Mapping[str, Any]) -> RunSpec:
        """A copy with dotted keys set, e.g. {"optim.lr": 1e-3}. Raises InputError for an unknown key or a bad
        value."""
        return parse(RunSpec, merge(self.model_dump(mode="json"), changes), "override")


_PLACE = ("repeat", "test_fold")
"""The fields of `data`, with the default 0, that differ between the places of a run."""


def _digest(fields: str) -> str:
    """`RunSpec.hash` of the fields that differ from their defaults, as JSON with sorted keys."""
    return hashlib.sha256(fields.encode()).hexdigest()[:12]


def _object(values: Mapping[str, str]) -> str:
    """A JSON object with sorted keys as `json.dumps` writes it, from the texts of its values. A value without
    a text is left out."""
    return "{" + ", ".join([f'"{name}": {values[name]}' for name in sorted(values) if values[name]]) + "}"


@lru_cache(maxsize=4096)  # the cells of a grid have the same data
def _placed_data(data: DataSpec, others: str, repeat: int, test_fold: int) -> tuple[DataSpec, str]:
    """The data at a place, and the JSON of its fields that differ from their defaults; "" without one.
    `others`: the JSON of those fields that the place does not decide."""
    numbers = {"repeat": repeat, "test_fold": test_fold}
    fields = json.loads(others) | {name: number for name, number in numbers.items() if number}
    return data.model_copy(update=numbers), json.dumps(fields, sort_keys=True) if fields else ""


def _without_hash(spec: RunSpec) -> RunSpec:
    """A copy that may get other fields: its hash is computed again."""
    spec.__dict__.pop("hash", None)
    return spec


def load(path: str | Path, overrides: Iterable[str] = ()) -> RunSpec:
    """A RunSpec from a YAML file and `key=value` overrides. Raises InputError naming the file or override."""
    tree = yamlfile.load(path)
    tree = {} if tree is None else tree
    if not isinstance(tree, Mapping):
        raise InputError(f"{path}: expected a mapping of keys, got {type(tree).__name__}")
    if "study" in tree:
        verbs = f"use `leukotree sweep {path}` or `leukotree grid {path}`"
        raise InputError(f"{path}: is a study, not the spec of a run; {verbs}")
    changes = parse_overrides(overrides)
    try:
        json.dumps(tree)
    except (TypeError, ValueError):
        raise InputError(f"{path}: a spec may only have texts, numbers, lists and mappings") from None
    return parse(RunSpec, merge(tree, changes), str(path))
