"""A timm backbone with a head per decision: built from a spec, and its groups of parameters for AdamW."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self, cast

import torch
from timm.optim import param_groups_weight_decay
from torch import nn

from leukotree import seeds
from leukotree.models import backbones, isolation, plain, streams, trained_part
from leukotree.models.stages import Stage
from leukotree.spec import PLAIN, LossSpec, RunSpec


class Classifier(nn.Module):
    """A timm backbone and a linear head per decision.

    It maps (B, 3, H, W) normalised images to (B, K) logits, the heads side by side.

    Args:
        backbone: gives (B, F) features. With `branched` its last blocks move into the branches.
        stage: its heads.
        loss: how the levels are isolated and weighted.
        levels: the levels of the losses that train the model; None for those of the heads.
    """

    features: int
    """F, the numbers of a feature vector."""
    log_variance: nn.Parameter | None
    """(G,) log sigma^2 of each level's loss, learned with weighting `uncertainty`; else None."""

    def __init__(
        self, backbone: nn.Module, stage: Stage, loss: LossSpec, levels: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.layers_above = trained_part.layers_above(backbone)
        """As `trained_part.layers_above`, by the names before blocks moved into branches."""
        self.features, distinct = _features(backbone), sorted(set(stage.levels.values()))
        self.levels = tuple(distinct if levels is None else levels)
        self.wiring = isolation.Wiring.of(loss, stage.levels, stage.above)
        self.backbone = backbone
        branched = loss.isolation == "branched"
        self.branches = nn.ModuleList(
            isolation.branch_off(backbone, loss.branch_blocks, len(distinct)) if branched else ()
        )
        # ModuleDict keys become parameter names, which may not hold a dot; node names may.
        widths = [len(classes) for classes in stage.heads.values()]
        seen = [self.features + (0 if above is None else widths[above]) for above in self.wiring.above]
        self.heads = nn.ModuleList(
            nn.Linear(inputs, width) for inputs, width in zip(seen, widths, strict=True)
        )
        learned = nn.Parameter(torch.zeros(len(self.levels))) if loss.weighting == "uncertainty" else None
        self.register_parameter("log_variance", learned)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but what is frozen of the backbone stays in evaluation mode."""
        super().train(mode)
        for part in trained_part.resting(self.backbone):
            part.eval()
        for branch in self.branches:
            for part in trained_part.resting(branch):
                part.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.decided(self.backbone(images))

    def decided(self, features: torch.Tensor) -> torch.Tensor:
        """The output of the backbone -> (B, K) logits."""
        return self.wiring.logits(features, self.branches, self.heads)


def all_logits(models: Iterable[Classifier], images: torch.Tensor) -> list[torch.Tensor]:
    """(B, 3, H, W) normalised images -> the (B, K) float32 logits of each model. A backbone that several
    models have is applied once."""
    features: dict[nn.Module, torch.Tensor] = {}
    logits = []
    for model in models:
        if model.backbone not in features:
            features[model.backbone] = model.backbone(images)
        logits.append(model.decided(features[model.backbone]).float())
    return logits


class Stored(nn.Identity):
    """Takes the place of a backbone whose (B, F) features are stored."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def _features(backbone: nn.Module) -> int:
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type]


def build(
    spec: RunSpec,
    stage: Stage,
    size: int,
    levels: Sequence[int] | None = None,
    version: int = seeds.NEWEST,
    stored: int | None = None,
) -> Classifier:
    """A stage's model, with weights drawn as `streams` says, or loaded as the spec says.

    Args:
        size: width and height of the images in pixels.
        levels: as for `Classifier`.
        version: of the random numbers, see `streams`.
        stored: F, for the same heads without the backbone: the model then maps (B, F) features. None with it.

    Raises InputError for an unknown backbone, an image size that it cannot take, or weights that are missing
    or do not fit.
    """
    if stored is None:
        backbones.check(spec.backbone)
    drawn = streams.Streams(spec, stage, version)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(drawn.backbone)
        backbone = backbones.create(spec.backbone, size) if stored is None else Stored(stored)
        if stored is None:
            trained_part.check_layers(backbone, spec)
            trained_part.freeze(backbone, spec.backbone, drawn.adapters)
        built = Classifier(backbone, stage, spec.loss, levels)
        if drawn.paired:
            for name, head in zip(stage.heads, built.heads, strict=True):
                torch.manual_seed(drawn.head(name))
                cast(nn.Linear, head).reset_parameters()
        if spec.variant in PLAIN:
            width = len(next(iter(stage.heads.values())))
            built.heads = nn.ModuleList([plain.head(spec, built.features, width)])
    return built


def build_empty(
    spec: RunSpec, parts: Sequence[tuple[Stage, Sequence[int] | None]], size: int
) -> list[Classifier]:
    """The models of some stages, each with its levels as for `build`, to count what they need: their tensors
    have shapes and no memory, and no weights are loaded. Raises InputError as `build`."""
    bare = spec.override({"backbone.weights": None})
    with torch.device("meta"):
        return [build(bare, stage, size, levels) for stage, levels in parts]


def n_parameters(models: Sequence[nn.Module]) -> int:
    """The number of parameters of all models together."""
    return sum(tensor.numel() for model in models for tensor in model.parameters())


def n_trained(models: Sequence[nn.Module]) -> int:
    """The number of those that train."""
    return sum(tensor.numel() for model in models for tensor in model.parameters() if tensor.requires_grad)


def normalisation(model: Classifier) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (1, 3, 1, 1) that the backbone's weights expect, for images in [0, 1]."""
    config = getattr(model.backbone, "pretrained_cfg", {})
    mean, std = config.get("mean", (0.5, 0.5, 0.5)), config.get("std", (0.5, 0.5, 0.5))
    return torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)


def parameter_groups(model: Classifier, spec: RunSpec) -> list[dict[str, Any]]:
    """AdamW's groups: backbone, branches and heads, each with and without weight decay, and the log variances
    of the losses without, at a rate of their own. `peak` is a group's highest learning rate. With
    `layer_decay` each layer has groups of its own. What is frozen is in none."""
    skip: set[str] = getattr(model.backbone, "no_weight_decay", set)()
    low, high = spec.optim.lr, spec.optim.lr * spec.optim.head_lr_multiplier
    scales = _scales(model, spec.optim.layer_decay)
    groups: list[dict[str, Any]] = []
    for part, lr in ((model.backbone, low), (model.branches, low), (model.heads, high)):
        for group in param_groups_weight_decay(
            part, spec.optim.weight_decay, no_weight_decay_list=tuple(skip)
        ):
            by_scale: dict[float, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                by_scale.setdefault(scales.get(parameter, 1.0), []).append(parameter)
            for scale, parameters in by_scale.items():
                groups.append({**group, "params": parameters, "lr": lr * scale, "peak": lr * scale})
    if model.log_variance is not None:
        rate = spec.loss.variance_lr
        groups.append({"params": [model.log_variance], "weight_decay": 0.0, "lr": rate, "peak": rate})
    return groups


def _scales(model: Classifier, decay: float) -> dict[nn.Parameter, float]:
    """The learning rate of each parameter of the backbone and of the branches, as a share of the top
    layer's (`timm.optim.param_groups_layer_decay`)."""
    if decay == 1:
        return {}
    # A branch keeps the names that its blocks had in the whole backbone.
    return {
        parameter: decay ** model.layers_above[name]
        for part in (model.backbone, *model.branches)
        for name, parameter in part.named_parameters()
    }
