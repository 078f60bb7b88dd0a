"""Backbones: models of timm without their classifier, with the weights that a spec names."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Collection, Iterator
from typing import Any

import timm
from torch import nn

from leukotree.errors import InputError, one_line
from leukotree.models import weights
from leukotree.spec import BackboneSpec


def check(backbone: BackboneSpec) -> None:
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


def create(spec: BackboneSpec, size: int) -> nn.Module:
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
