"""RunSpec: all settings that change the result of one run, and no others.

Where it runs, and on how many processes (`--on`, `--ranks`, `--site`), is not in the spec. So the same spec
is the same run everywhere. Its hash names the run's folder. Running it again continues it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from leukotree import tree_choice, yamlfile
from leukotree.config import Strict, merge, parse, parse_overrides
from leukotree.errors import InputError

Variant = Literal["flat", "base", "multilabel", "ensemble", "logistic", "neighbours"]
TRAINED: tuple[Variant, ...] = ("flat", "base", "multilabel", "ensemble")
"""Variants that are trained in steps."""
PLAIN: tuple[Variant, ...] = ("logistic", "neighbours")
"""Variants that are fitted at once to the stored features of a frozen backbone."""
VARIANTS: tuple[Variant, ...] = (*TRAINED, *PLAIN)
COMPARED: tuple[Variant, ...] = ("flat", "base", "multilabel")
"""The variants of a study that does not name its own."""
OF_LEAVES: tuple[Variant, ...] = ("flat", "ensemble", *PLAIN)
"""Variants whose models have one softmax over the leaves, and no decision of the tree."""
MODEL_PER_DECISION: tuple[Variant, ...] = ("base", "ensemble")
"""Variants with as many models as the tree has decisions."""
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


class InnerFold(Strict):
    """One fold of an inner cross-validation within the outer training folds. The others are trained on."""

    folds: int = Field(3, ge=2)
    """Number of inner folds."""
    fold: int = Field(0, ge=0)
    """The inner fold that is scored."""
    seed: int = Field(0, ge=0)
    """Seed of the deal of the patients to the inner folds. Re-runs of a search can have deals of their own,
    see `search.rerun_splits`."""

    @model_validator(mode="after")
    def _in_range(self) -> InnerFold:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist among {self.folds} folds")
        return self


class DataSpec(Strict):
    shards: str = "data/phantom"
    """Folder written by `leukotree pack`, relative to the current folder; or the address of one: `https`,
    `http`, `s3`, `gs`, `hf`, or `pipe:COMMAND` with `{}` for the name of a file."""
    order: Literal["all", "window"] = "all"
    """The order of training in an epoch. `all`: a permutation of all images. `window`: the shards in random
    order, and a permutation of the images within each `window` shards, so that few shards are needed at a
    time. It is another order, and so another result."""
    window: int = Field(8, ge=1)
    """`order: window`: the number of shards whose images are mixed."""
    repeat: int = Field(0, ge=0, lt=1000)
    """The deal of the patients to folds. 0: that of the shards. 1, 2, ...: further deals of the same images,
    written by `leukotree pack --repeats`."""
    test_fold: int = Field(0, ge=0)
    """The outer fold that is never trained on."""
    inner: InnerFold | None = None
    """None: train on all other folds, and score the test fold once. Set: the test fold is not used."""
    all_folds: bool = False
    """Train on all folds, and score nothing: a model for use, by `leukotree refit`. There is then no test
    fold, and `test_fold` and `inner` keep their defaults."""

    @model_validator(mode="after")
    def _fits(self) -> DataSpec:
        if self.all_folds and (self.test_fold or self.inner is not None):
            raise ValueError("all_folds: leaves no fold to score; leave out test_fold and inner")
        if self.order != "window" and self.window != DataSpec.model_fields["window"].default:
            raise ValueError("window: has an effect only with order: window; leave it out")
        return self


class AugmentSpec(Strict):
    crop_scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.8, 1.0)
    """Area of the random resized crop as a share of the image: [smallest, largest]."""
    flips: bool = True
    """Horizontal and vertical flips. A smear has no upright direction."""
    turns: bool = True
    """Also rotations by 90 degrees: with the flips all eight symmetries of the square. They cost about a
    tenth of the loader's rate."""
    jitter: float = Field(0.1, ge=0, le=1)
    """Largest relative change of brightness, contrast and saturation."""
    stain: float = Field(0.0, ge=0, le=1)
    """Largest relative change of the concentration of each stain, and largest shift of its optical
    density."""
    views: int | None = Field(None, ge=0, le=1000)
    """`backbone.train: head`: how many augmented views an image has in the whole training. Epoch e shows view
    e modulo `views`, the same for all runs of a data set, so the backbone computes the features of each image
    and view once. 0: the image as it is, in every epoch. None: each epoch draws new views, and the backbone
    runs in each step."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentSpec:
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError("crop_scale: the first value is above the second; swap them")
        return self


class LoraSpec(Strict):
    rank: int = Field(8, ge=1)
    """`train: lora`: rank of an adapter."""
    alpha: float = Field(16.0, gt=0)
    """`train: lora`: an adapter is multiplied by alpha / rank."""
    targets: Literal["attention", "mlp", "both"] = "both"
    """`train: lora`: the layers with an adapter: those of the attention, those of the perceptron of each
    block, or both where a model has both. ConvNeXt has no attention."""


class BackboneSpec(Strict):
    name: str = "vit_small_patch16_384"
    """A timm model, `hf-hub:OWNER/MODEL` (also with `@REVISION`) or `local-dir:FOLDER`; `leukotree train`
    refuses a name that timm does not have."""
    weights: str | None = None
    """None (random), "hub" (the pretrained weights of the name: those of timm, of the repository or of the
    folder), `package:NAME`, or the path of a .pt, .pth or .safetensors file."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth rate. Its random numbers depend on the micro batches of each rank, so that results
    depend on the number of ranks."""
    train: Literal["all", "head", "last", "lora"] = "all"
    """What trains beside the heads. `all`: the backbone. `head`: nothing of the backbone, no weight and no
    statistic of it changes. `last`: its last blocks and what follows them. `lora`: low-rank adapters in its
    layers (Hu et al. 2022), on weights that stay as they are."""
    last: int = Field(1, ge=1)
    """`train: last`: how many of the last blocks train."""
    lora: LoraSpec = LoraSpec()
    """`train: lora`: the adapters."""


class LossSpec(Strict):
    kind: Literal["focal", "conditional", "soft", "marginal"] = "focal"
    """`focal`: focal loss at each head, over the images whose leaf is below its decision. `conditional`:
    -log p(child | parent), summed over an image's path. `soft`: cross-entropy with targets softened by the
    distance in the tree. `marginal`: cross-entropy at each depth of the tree, where P(node) is the sum of its
    leaves."""
    gamma: float = Field(2.0, ge=0)
    """Focal exponent (`focal`); 0 is cross-entropy."""
    tau: float = Field(0.5, ge=0, le=1)
    """Class weight alpha = (inverse frequency in the training images)^tau, scaled to mean 1 among the
    children of a decision. In every kind it multiplies the loss of its child. 0: all weights are 1."""
    normalisation: Literal["defined", "all"] = "defined"
    """What the loss of a decision is a mean over. `defined`: the images whose leaf is below it. `all`: all
    images of the batch. The same in `base`, and with `focal` in `flat`."""
    beta: float = Field(10.0, gt=0)
    """`soft`: targets are proportional to exp(-beta * distance / largest distance). A large beta is
    cross-entropy."""
    weighting: Literal["fixed", "hxe", "uncertainty"] = "fixed"
    """Weights of the levels. `fixed`: those of `level_weights`. `hxe`: exp(-hxe_alpha * (height - 1)) for
    each decision; its height is the number of edges to the deepest leaf below it. `uncertainty`: learned with
    the model (Kendall et al. 2018)."""
    level_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """`fixed`: one number per level, from the root down. None: 1 for each."""
    hxe_alpha: float = Field(0.0, ge=0)
    """`hxe`: 0 gives all decisions the weight 1. Larger values give coarse decisions less weight (Bertinetto
    et al. 2020)."""
    variance_lr: float = Field(0.01, gt=0)
    """`uncertainty`: peak learning rate of the log variances, with the warm-up and the cosine of the
    others."""
    isolation: Literal["shared", "chained", "detached", "branched", "projected"] = "shared"
    """The parameters that each level's loss trains in `multilabel`. `shared`: the whole backbone. `chained`:
    as `shared`, and a head also gets the detached probabilities of the decision above it. `detached`: only
    the loss of the level `leader` trains the backbone. `branched`: each level has the last `branch_blocks`
    blocks of its own, and the level `leader` trains the blocks before. `projected`: `surgery` changes
    gradients of the backbone that conflict."""
    leader: int = Field(1, ge=1)
    """`detached`, `branched`: the level whose loss trains the shared blocks. The root is level 1."""
    branch_blocks: int = Field(1, ge=1)
    """`branched`: how many of the last blocks each level has of its own."""
    surgery: Literal["pcgrad", "cagrad", "upgrad"] = "upgrad"
    """`projected`: the method (Yu et al. 2020; Liu et al. 2021; Quinton and Rey 2024)."""

    @model_validator(mode="after")
    def _fits(self) -> LossSpec:
        if self.isolation != "shared" and self.kind not in ("focal", "conditional"):
            fix = "use kind focal or conditional, or shared"
            raise ValueError(f"isolation: {self.kind} has no loss per level to isolate; {fix}")
        if self.isolation == "projected" and self.weighting == "uncertainty":
            raise ValueError(
                "weighting: uncertainty does not work with isolation projected; use fixed or hxe"
            )
        if self.level_weights is not None and (self.weighting != "fixed" or not any(self.level_weights)):
            raise ValueError("level_weights: needs weighting fixed, and one weight above 0; or give null")
        if self.kind == "soft" and (self.weighting != "fixed" or self.level_weights is not None):
            raise ValueError("weighting: soft has one loss for all levels; use fixed without level_weights")
        return self


def value_of(spec: RunSpec, key: str) -> Any:
    """The value of a dotted key of a run spec, such as `loss.kind`."""
    return functools.reduce(getattr, key.split("."), spec)


@lru_cache(maxsize=256)  # asked for each cell of a grid
def default_of(key: str) -> Any:
    """The default of a dotted key of a run spec, such as `loss.kind`."""
    return value_of(RunSpec.model_construct(), key)  # a check of a spec may ask: without a check


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
    groups: dict[str, type[Strict]] = {
        "loss": LossSpec,
        "optim": OptimSpec,
        "engine": EngineSpec,
        "plain": PlainSpec,
    }
    keys = [f"{name}.{key}" for name, group in groups.items() for key in group.model_fields]
    return tuple(key for key in ("data.order", "data.window", *keys) if key not in EFFECT_IN[variant])


def without_effect(variant: str, spec: RunSpec, changes: Mapping[str, Any]) -> dict[str, Any]:
    """As `without_effect_in`, and also the keys that have no effect beside the other settings of the run.
    `changes`: dotted values that replace those of `spec`."""
    keys = [key for key, (other, values) in NEEDS.items() if _value(spec, changes, other) not in values]
    if variant in OF_LEAVES and _value(spec, changes, "loss.kind") == "focal":
        keys.append("loss.normalisation")  # one decision, which all images are below
    idle = {key: default_of(key) for key in keys} | without_effect_in(variant)
    return idle if tree_has_effect(variant, spec.loss, changes) else idle | {TREE: None}


def _value(spec: RunSpec, changes: Mapping[str, Any], key: str) -> Any:
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


class OptimSpec(Strict):
    lr: float = Field(1e-4, gt=0)
    """Peak learning rate of the backbone (AdamW)."""
    head_lr_multiplier: float = Field(1.0, gt=0)
    """Learning rate of the heads, as a multiple of `lr`."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled weight decay. Biases and norms have none."""
    batch_size: int = Field(32, ge=1)
    """Global batch in images: micro batch x ranks x accumulation."""
    epochs: int = Field(80, ge=1)
    """Passes over the training images, for each stage. With `steps`: the equal parts of the training, after
    each of which the run is saved, and in a search scored."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps of each stage. None: as many as `epochs` passes take, so that a stage of `base` with
    few images has few steps."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly. A cosine to zero follows."""
    clip: float | None = Field(None, gt=0)
    """Largest gradient norm. None: no clipping."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Learning rate of a layer of the backbone, as a share of that of the layer above it. timm says which
    parameters are a layer. 1: all layers have the rate `lr`."""

    def steps_before(self, epoch: int, images: int) -> int:
        """How many steps the first `epoch` epochs of a stage with so many images take together."""
        if self.steps is not None:
            return epoch * self.steps // self.epochs
        return -(-epoch * images // self.batch_size)

    @model_validator(mode="after")
    def _fits(self) -> OptimSpec:
        if self.steps is not None and self.steps < self.epochs:
            raise ValueError(
                f"steps: {self.steps} steps cannot be divided into {self.epochs} epochs, the parts after "
                f"which a run is saved; use at least {self.epochs} steps, or fewer epochs"
            )
        return self


class EngineSpec(Strict):
    strategy: Literal["ddp", "zero0", "zero1", "zero2", "zero3"] = "ddp"
    """How ranks work together: `ddp`, or DeepSpeed with a ZeRO stage. From stage 1 on the optimiser's state
    is split between the ranks, from stage 2 on also the gradients, in stage 3 also the weights."""
    offload: bool = False
    """ZeRO 1 to 3: keep the optimiser's state in the memory of the CPU, in stage 3 also the weights."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """`bf16`: autocast of the forward pass. Weights stay fp32."""
    micro_batch: int | None = Field(None, ge=1)
    """Images per rank and forward pass. None: the whole share of the rank. With a smaller number gradients
    are accumulated."""
    bucket_mb: float = Field(25.0, ge=1)
    """`ddp`: MiB of gradients that ranks exchange at once. A smaller bucket is sent sooner. A larger one uses
    a slow link better."""
    compile: bool = False
    """torch.compile the model (ddp only)."""

    @model_validator(mode="after")
    def _fits(self) -> EngineSpec:
        if self.offload and self.strategy in ("ddp", "zero0"):
            fix = "use zero1, zero2 or zero3, or false"
            raise ValueError(f"offload: {self.strategy} splits no state that could be moved; {fix}")
        if self.compile and self.strategy != "ddp":
            raise ValueError(f"compile: does not work with {self.strategy}; use ddp, or false")
        return self


class PlainSpec(Strict):
    """The settings of `logistic` and `neighbours`."""

    c: float = Field(1.0, gt=0)
    """`logistic`: the inverse of the strength of the L2 penalty, as `C` of scikit-learn, on standardised
    features. A view of an image weighs 1 / `augment.views`, so that a value means the same for any number of
    views."""
    k: int = Field(20, ge=1)
    """`neighbours`: how many training images vote."""
    temperature: float = Field(0.07, gt=0)
    """`neighbours`: a vote weighs exp(cosine similarity / temperature). 0.07 is that of DINO (Caron et al.
    2021)."""


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
            if functools.reduce(getattr, key.split("."), self) != default:
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
