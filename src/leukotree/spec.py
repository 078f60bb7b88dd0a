"""RunSpec: everything that decides the bits of one run, and nothing else.

Where and on how many processes it runs (`--on`, `--ranks`, `--site`) stays outside, so the same spec is the
same run everywhere. Its hash names the run's folder; doing it again continues it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from leukotree import yamlfile
from leukotree.config import Strict, merge, parse, parse_overrides
from leukotree.errors import InputError

Variant = Literal["flat", "base", "multilabel"]
VARIANTS: tuple[Variant, ...] = ("flat", "base", "multilabel")
_LEVELS = ("isolation", "leader", "branch_blocks", "surgery")
NO_EFFECT_IN: dict[Variant, tuple[str, ...]] = {
    "flat": _LEVELS,
    "base": (*_LEVELS, "level_weights"),
    "multilabel": (),
}
"""Keys of `loss` that have no effect in a variant. They keep their defaults there."""
NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "loss.gamma": ("loss.kind", ("focal",)),
    "loss.tau": ("loss.kind", ("focal",)),
    "loss.beta": ("loss.kind", ("soft",)),
    "loss.hxe_alpha": ("loss.weighting", ("hxe",)),
    "loss.leader": ("loss.isolation", ("detached", "branched")),
    "loss.branch_blocks": ("loss.isolation", ("branched",)),
    "loss.surgery": ("loss.isolation", ("projected",)),
}
"""Keys that have an effect only with some values of another key: key -> (other key, values)."""


class InnerFold(Strict):
    """One fold of an inner cross-validation inside the outer training folds: train on the others, score this
    one."""

    folds: int = Field(3, ge=2)
    """How many inner folds."""
    fold: int = Field(0, ge=0)
    """The one that is scored."""

    @model_validator(mode="after")
    def _in_range(self) -> InnerFold:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist among {self.folds} folds")
        return self


class DataSpec(Strict):
    shards: str = "data/phantom"
    """Folder that `leukotree pack` wrote, relative to the current folder."""
    test_fold: int = Field(0, ge=0)
    """The outer fold that is never trained on."""
    inner: InnerFold | None = None
    """None: train on all other folds and score the test fold once. Set: the test fold is not touched."""


class AugmentSpec(Strict):
    crop_scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.8, 1.0)
    """Area of the random resized crop, as a share of the image: lowest, highest."""
    flips: bool = True
    """Horizontal and vertical flips: a smear has no up."""
    turns: bool = True
    """Beside flips, right-angle rotations: all eight symmetries of the square, for about a tenth of the
    loader's rate."""
    jitter: float = Field(0.1, ge=0, le=1)
    """Largest relative change of brightness, contrast and saturation."""
    stain: float = Field(0.0, ge=0, le=1)
    """Largest relative change of the concentration of each stain, and largest shift of its optical
    density."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentSpec:
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError("crop_scale: the lowest value stands first")
        return self


class BackboneSpec(Strict):
    name: str = "vit_small_patch16_384"
    """A timm model; `leukotree train` refuses a name that timm does not have."""
    weights: str | None = None
    """None (random), "hub" (timm's pretrained weights), or the path of a .pt, .pth or .safetensors file."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth rate. Its draws follow the shapes of a rank's micro batches: with it, ranks change the
    bits."""


class LossSpec(Strict):
    kind: Literal["focal", "conditional", "soft", "marginal"] = "focal"
    """`focal`: at each head, over the images that are defined there. `conditional`: -log p(child | parent)
    summed over an image's path. `soft`: cross-entropy with targets softened by distance in the tree.
    `marginal`: cross-entropy at each depth of the tree, P(node) being the sum of its leaves."""
    gamma: float = Field(2.0, ge=0)
    """Focal exponent (`focal`); 0 is cross-entropy."""
    tau: float = Field(0.5, ge=0, le=1)
    """`focal`: class weight alpha = (inverse frequency in the training images)^tau, scaled to mean 1; 0 is no
    weighting."""
    beta: float = Field(10.0, gt=0)
    """`soft`: targets are proportional to exp(-beta * distance / largest distance); large is
    cross-entropy."""
    weighting: Literal["fixed", "hxe", "uncertainty"] = "fixed"
    """Weight of the levels: `fixed` by `level_weights`; `hxe`: each edge by exp(-hxe_alpha * height of its
    child);
    `uncertainty`: learned with the model (Kendall et al. 2018)."""
    level_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """`fixed`: one number per level from the root down; None is 1 for each."""
    hxe_alpha: float = Field(0.0, ge=0)
    """`hxe`: 0 weighs all alike, larger ones weigh coarse decisions less (Bertinetto et al. 2020)."""
    isolation: Literal["shared", "chained", "detached", "branched", "projected"] = "shared"
    """What each level's loss may reach in `multilabel`. `shared`: all of the backbone. `chained`: that too,
    and a head also sees the probabilities of the decision above it, detached. `detached`: only the level
    `leader` trains the backbone. `branched`: each level has the last `branch_blocks` blocks for itself, the
    level `leader` trains those before. `projected`: gradients of the backbone that conflict are made to agree
    by `surgery`."""
    leader: int = Field(1, ge=1)
    """`detached`, `branched`: the level, from 1 at the root, whose loss trains what the levels share."""
    branch_blocks: int = Field(1, ge=1)
    """`branched`: how many of the last blocks each level has for itself."""
    surgery: Literal["pcgrad", "cagrad", "upgrad"] = "upgrad"
    """`projected`: how (Yu et al. 2020; Liu et al. 2021; Quinton and Rey 2024)."""

    @model_validator(mode="after")
    def _fits(self) -> LossSpec:
        if self.isolation != "shared" and self.kind not in ("focal", "conditional"):
            raise ValueError(
                f"isolation: {self.kind} has no loss per level to isolate; use kind focal or conditional, or shared"
            )
        if self.isolation == "projected" and self.weighting == "uncertainty":
            raise ValueError("weighting: uncertainty not with isolation projected; use fixed or hxe")
        if self.level_weights is not None and (self.weighting != "fixed" or not any(self.level_weights)):
            raise ValueError("level_weights: with weighting fixed only, and one of them above 0; or null")
        if self.kind == "soft" and (self.weighting != "fixed" or self.level_weights is not None):
            raise ValueError("weighting: soft has one loss for all levels; use fixed without level_weights")
        return self

    def value(self, key: str) -> Any:
        """The value of a dotted key of a run spec, such as `loss.kind`."""
        return getattr(self, key.removeprefix("loss."))

    @classmethod
    def default(cls, key: str) -> Any:
        """The default of a dotted key of a run spec, such as `loss.kind`."""
        return cls.model_fields[key.removeprefix("loss.")].default


def without_effect_in(variant: str) -> dict[str, Any]:
    """Dotted keys of a run spec that have no effect in a variant, with the defaults that they keep there."""
    return {f"loss.{key}": LossSpec.default(f"loss.{key}") for key in NO_EFFECT_IN[variant]}  # type: ignore[index]


def without_effect(variant: str, loss: LossSpec, changes: Mapping[str, Any]) -> dict[str, Any]:
    """As `without_effect_in`, and also the keys that have no effect beside the other settings of the loss.
    `changes`: dotted values that replace those of `loss`."""
    keys = [
        key for key, (other, values) in NEEDS.items() if changes.get(other, loss.value(other)) not in values
    ]
    return {key: LossSpec.default(key) for key in keys} | without_effect_in(variant)


class OptimSpec(Strict):
    lr: float = Field(1e-4, gt=0)
    """Peak learning rate of the backbone (AdamW)."""
    head_lr_multiplier: float = Field(1.0, gt=0)
    """Learning rate of the heads, as a multiple of `lr`."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled weight decay; biases and norms are left out."""
    batch_size: int = Field(32, ge=1)
    """Global batch in images: micro batch x ranks x accumulation."""
    epochs: int = Field(80, ge=1)
    """Passes over the training images (of each stage)."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps with a linearly rising learning rate; a cosine to zero follows."""
    clip: float | None = Field(None, gt=0)
    """Largest gradient norm; None does not clip."""


class EngineSpec(Strict):
    strategy: Literal["ddp", "zero0", "zero1", "zero2", "zero3"] = "ddp"
    """How ranks share the work: `ddp`, or DeepSpeed with the ZeRO stage. From 1 on the ranks share the
    optimiser's state, from 2 on the gradients, in 3 the weights."""
    offload: bool = False
    """ZeRO 1 to 3: the optimiser's state lies in the memory of the CPU; in 3 the weights too."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """`bf16`: autocast of the forward pass; weights stay fp32."""
    micro_batch: int | None = Field(None, ge=1)
    """Images per rank and forward pass; None takes the whole share of the rank. Smaller accumulates
    gradients."""
    bucket_mb: float = Field(25.0, ge=1)
    """`ddp`: gradients that ranks exchange at once, in MiB. Smaller begins sooner, larger uses a slow link
    better."""
    compile: bool = False
    """torch.compile the model (ddp only)."""

    @model_validator(mode="after")
    def _fits(self) -> EngineSpec:
        if self.offload and self.strategy in ("ddp", "zero0"):
            raise ValueError(
                f"offload: {self.strategy} shares nothing that could be moved; use zero1, zero2 or zero3, or false"
            )
        if self.compile and self.strategy != "ddp":
            raise ValueError(f"compile: not with {self.strategy}; use ddp, or false")
        return self


class RunSpec(Strict):
    """One run: a variant, its data, model, loss, optimiser and engine. Every field has a default."""

    variant: Variant = "multilabel"
    seed: int = Field(0, ge=0, lt=2**31)
    """Seeds initial weights, order and augmentation, each through its own stream."""
    data: DataSpec = DataSpec()
    augment: AugmentSpec = AugmentSpec()
    backbone: BackboneSpec = BackboneSpec()
    loss: LossSpec = LossSpec()
    optim: OptimSpec = OptimSpec()
    engine: EngineSpec = EngineSpec()

    @model_validator(mode="after")
    def _fits(self) -> RunSpec:
        for key in NO_EFFECT_IN[self.variant]:
            if getattr(self.loss, key) != LossSpec.model_fields[key].default:
                raise ValueError(f"loss.{key}: has no effect in {self.variant}; leave it out")
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
                    raise ValueError(
                        f"loss.{key}: {value} not with {self.engine.strategy}; use engine.strategy ddp"
                    )
        return self

    @property
    def hash(self) -> str:
        """12 hex digits over the fields that differ from their defaults, so that a new field with a default
        renames no run. The run folder also stores every field, and a run whose stored fields differ is
        refused, not continued."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def run_name(self) -> str:
        return f"{self.variant}-{self.hash}"

    def dump(self) -> str:
        """All fields as YAML."""
        return yamlfile.dump(self.model_dump(mode="json"))

    def override(self, changes: Mapping[str, Any]) -> RunSpec:
        """A copy with dotted keys set, e.g. {"optim.lr": 1e-3}. Raises InputError for an unknown key or a bad
        value."""
        return parse(RunSpec, merge(self.model_dump(mode="json"), changes), "override")


def load(path: str | Path, overrides: Iterable[str] = ()) -> RunSpec:
    """A RunSpec from a YAML file and `key=value` overrides. Raises InputError naming file or override."""
    tree = yamlfile.load(path)
    tree = {} if tree is None else tree
    if not isinstance(tree, Mapping):
        raise InputError(f"{path}: expected a mapping of keys, got {type(tree).__name__}")
    if "study" in tree:
        raise InputError(
            f"{path}: is a study, and no run's spec; `leukotree sweep {path}` and `leukotree grid {path}` take it"
        )
    changes = parse_overrides(overrides)
    try:
        json.dumps(tree)
    except (TypeError, ValueError):
        raise InputError(f"{path}: only texts, numbers, lists and mappings may stand in a spec") from None
    return parse(RunSpec, merge(tree, changes), str(path))
