"""Backbones: models of timm without their classifier, with the weights that a spec names.

Everything is read from files of this machine, see `pretrained`.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import timm
import torch
from torch import nn

from leukotree.errors import InputError, one_line
from leukotree.models import layouts, pretrained, weights
from leukotree.spec import BackboneSpec

STATISTICS = ("running_mean", "running_var")
"""Ends of the names of the buffers that BatchNorm uses. Old files lack its counter, which nothing here
uses."""


def check(backbone: BackboneSpec) -> None:
    """Raises InputError if timm has no such model, or the weights are missing, damaged or more than tensors.

    Missing, which is an InputError, for weights and a `config.json` that can be fetched.
    """
    architecture(backbone.name)
    if (file := pretrained.file(backbone)) is not None:
        weights.check(file)


def architecture(name: str) -> str:
    """The model of timm that a `backbone.name` means, without its tag. Raises InputError as `check`."""
    parsed = pretrained.parse(name)
    if parsed.kind == "timm":
        known, named = parsed.place, f"backbone.name: timm has no model {name!r}"
    else:
        known = pretrained.config(parsed)["architecture"]
        where = pretrained.folder(parsed) / pretrained.CONFIG
        named = f"{where}: timm has no model {known!r}; install the version of timm that has it"
    known = known.partition(".")[0]
    if not timm.is_model(known):
        close = difflib.get_close_matches(known, timm.list_models(), n=3, cutoff=0.4)
        raise InputError(named + (f"; near: {', '.join(close)}" if close else ""))
    return known


def create(spec: BackboneSpec, size: int) -> nn.Module:
    """A timm model without classifier, for (3, size, size) images.

    Raises InputError for an image size that it cannot take, and for weights that do not fit.
    """
    file = pretrained.file(spec)
    options: dict[str, Any] = {
        "num_classes": 0,
        "drop_path_rate": spec.drop_path,
        "pretrained": file is not None,
    }
    if file is not None:
        # Other places that a config.json or timm names for the weights are not looked at.
        overlay: dict[str, Any] = {
            "file": str(file),
            "source": None,
            "hf_hub_id": None,
            "hf_hub_filename": None,
        }
        overlay |= {"url": None, "custom_load": False, "state_dict": None}
        options["pretrained_cfg_overlay"] = overlay
        state = layouts.converted(file, architecture(spec.name), weights.shapes(file))
        if state is not None:
            options["pretrained_cfg_overlay"]["state_dict"] = state
    try:
        with _loads() as loads:
            built = _sized(_source(spec.name), size, options)
    except Exception as error:  # timm raises what its parts raise: assertion, runtime, key errors
        reason = one_line(error)[:300]
        raise InputError(
            f"backbone {spec.name} at {size}x{size} with weights {spec.weights}: {reason}"
        ) from error
    # A model that a user registered may have none.
    getattr(built, "pretrained_cfg", {}).pop("state_dict", None)
    if file is not None:
        _refuse_other(built, spec, loads)
    return built


def empty(name: str, size: int | None = None) -> nn.Module:
    """A backbone whose tensors have shapes and no memory, for images of `size` pixels; None for those of the
    weights. Raises InputError as `check`."""
    architecture(name)
    with torch.device("meta"):
        if size is not None:
            return create(BackboneSpec(name=name), size)
        return timm.create_model(_source(name), num_classes=0)


def own_size(name: str) -> int:
    """Width and height in pixels of the images that a backbone's pretrained weights were made for. Raises
    InputError as `check`."""
    config: Any = empty(name).pretrained_cfg
    return int(config["input_size"][-1])


def _source(name: str) -> str:
    """The name under which `timm.create_model` finds a backbone on this machine."""
    parsed = pretrained.parse(name)
    return name if parsed.kind == "timm" else f"local-dir:{pretrained.folder(parsed)}"


def _sized(name: str, size: int, options: dict[str, Any]) -> nn.Module:
    """Only some models (ViT) have a fixed size; the others refuse the argument and take any size."""
    try:
        return timm.create_model(name, img_size=size, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(name, **options)


def _refuse_other(built: nn.Module, spec: BackboneSpec, loads: Loads) -> None:
    """Raises InputError for quantised weights, and for a file of another model: one that lacks weights or
    statistics of BatchNorm of this one, which would stay as they were drawn, or that has more blocks, which
    would be left out. Nobody would notice any of it."""
    given = spec.weights if spec.weights != "hub" else pretrained.file(spec)
    for name, kind in loads.quantised.items():
        raise InputError(weights.quantised(given, name, kind))
    fix = "set backbone.name to the model that the file was made for"
    statistics = [name for name, _ in built.named_buffers() if name.endswith(STATISTICS)]
    names = [*(name for name, _ in built.named_parameters()), *statistics]
    if lacking := [name for name in names if name in loads.missing]:
        raise InputError(
            f"{given}: lacks {len(lacking)} of the {len(names)} weights of {spec.name}, "
            f"such as {', '.join(lacking[:3])}; {fix}"
        )
    if further := [name for name in loads.unexpected if _is_further_block(name, built)]:
        raise InputError(
            f"{given}: has {len(further)} weights of blocks that {spec.name} does not have, such as "
            f"{', '.join(further[:3])}; {fix}"
        )


def _is_further_block(name: str, model: nn.Module) -> bool:
    """Whether a tensor is of a numbered part, in a row of such parts of the model that ends before it."""
    row, words = model, name.split(".")
    for word in words[:-1]:
        parts = dict(row.named_children())
        if word not in parts:
            return word.isdecimal() and any(other.isdecimal() for other in parts)
        row = parts[word]
    return False


class Loads(NamedTuple):
    """What did not fit when states were loaded."""

    missing: set[str]
    """Names of the model that a state lacks."""
    unexpected: list[str]
    """Names of a state that the model does not have."""
    quantised: dict[str, torch.dtype]
    """Names of floating-point tensors of the model, for which a state has numbers of this kind."""


@contextlib.contextmanager
def _loads() -> Iterator[Loads]:
    """The context that notes what states, which are loaded inside it, lack and have more. timm only logs
    it."""
    found = Loads(set(), [], {})
    load = nn.Module.load_state_dict

    def recorded(module: nn.Module, state: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:
        for name, own in module.state_dict().items():
            kind = state[name].dtype if name in state else own.dtype
            if own.is_floating_point() and kind not in weights.FLOATS:
                found.quantised[name] = kind
        result = load(module, state, *arguments, **options)
        found.missing.update(result.missing_keys)
        found.unexpected.extend(result.unexpected_keys)
        return result

    nn.Module.load_state_dict = recorded  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        nn.Module.load_state_dict = load  # type: ignore[method-assign]
