"""A timm backbone with a head per decision: built from a spec, and its groups of parameters for AdamW."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

import timm
import torch
from timm.optim import param_groups_weight_decay
from torch import nn

from leukotree import seeds
from leukotree.errors import InputError, one_line
from leukotree.models import isolation, streams, weights
from leukotree.models.stages import Stage
from leukotree.spec import BackboneSpec, LossSpec, RunSpec


class Classifier(nn.Module):
    """A timm backbone and a linear head per decision.

    It maps (B, 3, H, W) normalised images to (B, K) logits, the heads side by side.

    Args:
        backbone: gives (B, F) features. With `branched` its last blocks move into the branches.
        stage: its heads.
        loss: how the levels are isolated and weighted.
        levels: the levels of the losses that train the model; None for those of the heads.
    """

    log_variance: nn.Parameter | None
    """(G,) log sigma^2 of each level's loss, learned with weighting `uncertainty`; else None."""

    def __init__(
        self, backbone: nn.Module, stage: Stage, loss: LossSpec, levels: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        features, distinct = _features(backbone), sorted(set(stage.levels.values()))
        self.levels = tuple(distinct if levels is None else levels)
        self.wiring = isolation.Wiring.of(loss, stage.levels, stage.above)
        self.backbone = backbone
        branched = loss.isolation == "branched"
        self.branches = nn.ModuleList(
            isolation.branch_off(backbone, loss.branch_blocks, len(distinct)) if branched else ()
        )
        # ModuleDict keys become parameter names, which may not hold a dot; node names may.
        widths = [len(classes) for classes in stage.heads.values()]
        seen = [features + (0 if above is None else widths[above]) for above in self.wiring.above]
        self.heads = nn.ModuleList(
            nn.Linear(inputs, width) for inputs, width in zip(seen, widths, strict=True)
        )
        learned = nn.Parameter(torch.zeros(len(self.levels))) if loss.weighting == "uncertainty" else None
        self.register_parameter("log_variance", learned)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.wiring.logits(self.backbone(images), self.branches, self.heads)


def _features(backbone: nn.Module) -> int:
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type]


def build(
    spec: RunSpec,
    stage: Stage,
    size: int,
    levels: Sequence[int] | None = None,
    version: int = seeds.NEWEST,
) -> Classifier:
    """A stage's model, with weights drawn as `streams` says, or loaded as the spec says.

    Args:
        size: width and height of the images in pixels.
        levels: as for `Classifier`.
        version: of the random numbers, see `streams`.

    Raises InputError for an unknown backbone, an image size that it cannot take, or weights that are missing
    or do not fit.
    """
    check_backbone(spec.backbone)
    drawn = streams.Streams(spec, stage, version)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(drawn.backbone)
        built = Classifier(_backbone(spec.backbone, size), stage, spec.loss, levels)
        if drawn.paired:
            for name, head in zip(stage.heads, built.heads, strict=True):
                torch.manual_seed(drawn.head(name))
                cast(nn.Linear, head).reset_parameters()
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


def check_backbone(backbone: BackboneSpec) -> None:
    """Raises InputError if timm has no such model, or the weights' file is missing, damaged or more than
    tensors."""
    name = backbone.name.partition(".")[0]
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        raise InputError(
            f"backbone.name: timm has no model {backbone.name!r}"
            + (f"; near: {', '.join(close)}" if close else "")
        )
    if backbone.weights == "hub" and not timm.models.is_model_pretrained(backbone.name):
        raise InputError(
            f"backbone.weights: timm knows no pretrained weights {backbone.name!r}; use null or a file"
        )
    if backbone.weights not in (None, "hub"):
        weights.check(str(backbone.weights))


def _backbone(spec: BackboneSpec, size: int) -> nn.Module:
    """A timm model without classifier, for (3, size, size) images."""
    options: dict[str, Any] = {
        "num_classes": 0,
        "drop_path_rate": spec.drop_path,
        "pretrained": spec.weights is not None,
    }
    if spec.weights not in (None, "hub"):
        options["pretrained_cfg_overlay"] = {"file": spec.weights, "custom_load": False}
    # Only some models (ViT) have a fixed size; the others refuse the argument and take any size.
    try:
        with _missing() as missing:
            try:
                built = timm.create_model(spec.name, img_size=size, **options)
            except TypeError as error:
                if "img_size" not in str(error):
                    raise
                built = timm.create_model(spec.name, **options)
    except Exception as error:  # timm raises what its parts raise: assertion, runtime, key, network errors
        reason = one_line(error)[:300]
        raise InputError(
            f"backbone {spec.name} at {size}x{size} with weights {spec.weights}: {reason}"
        ) from error
    _refuse_random(built, spec, missing)
    return built


def _refuse_random(built: nn.Module, spec: BackboneSpec, missing: Collection[str]) -> None:
    """Raises InputError where a file lacks weights of the model, as that of another model does.

    Otherwise those weights would stay random, and nobody would notice.
    """
    names = [name for name, _ in built.named_parameters()]
    if lacking := [name for name in names if name in missing]:
        raise InputError(
            f"{spec.weights}: lacks {len(lacking)} of the {len(names)} weights of {spec.name}, "
            f"such as {', '.join(lacking[:3])}; set backbone.name to the model that the file was made for"
        )


@contextlib.contextmanager
def _missing() -> Iterator[set[str]]:
    """The set of names that a state lacks which is loaded inside the context. timm only logs them."""
    missing: set[str] = set()
    load = nn.Module.load_state_dict

    def recorded(module: nn.Module, *arguments: Any, **options: Any) -> Any:
        result = load(module, *arguments, **options)
        missing.update(result.missing_keys)
        return result

    nn.Module.load_state_dict = recorded  # type: ignore[method-assign, assignment]
    try:
        yield missing
    finally:
        nn.Module.load_state_dict = load  # type: ignore[method-assign]


def normalisation(model: Classifier) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (1, 3, 1, 1) that the backbone's weights expect, for images in [0, 1]."""
    config = getattr(model.backbone, "pretrained_cfg", {})
    mean, std = config.get("mean", (0.5, 0.5, 0.5)), config.get("std", (0.5, 0.5, 0.5))
    return torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)


def parameter_groups(model: Classifier, spec: RunSpec) -> list[dict[str, Any]]:
    """AdamW's groups: backbone, branches and heads, each with and without weight decay, and the log variances
    of the losses without, at a rate of their own. `peak` is a group's highest learning rate."""
    skip: set[str] = getattr(model.backbone, "no_weight_decay", set)()
    low, high = spec.optim.lr, spec.optim.lr * spec.optim.head_lr_multiplier
    groups: list[dict[str, Any]] = []
    for part, lr in ((model.backbone, low), (model.branches, low), (model.heads, high)):
        for group in param_groups_weight_decay(
            part, spec.optim.weight_decay, no_weight_decay_list=tuple(skip)
        ):
            if group["params"]:
                groups.append({**group, "lr": lr, "peak": lr})
    if model.log_variance is not None:
        rate = spec.loss.variance_lr
        groups.append({"params": [model.log_variance], "weight_decay": 0.0, "lr": rate, "peak": rate})
    return groups
