"""The groups of fields of a run spec: data, augment, backbone, loss, optim, engine and plain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from leukotree.config import Strict


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


GROUPS: Mapping[str, type[Strict]] = {
    "data": DataSpec,
    "augment": AugmentSpec,
    "backbone": BackboneSpec,
    "loss": LossSpec,
    "optim": OptimSpec,
    "engine": EngineSpec,
    "plain": PlainSpec,
}
"""The groups of fields of a run spec."""
