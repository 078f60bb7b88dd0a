"""What the record of a run says of its backbone: the model, where its weights are from, their licence and
what to cite, the size of images that they were made for, and the normalisation that they expect."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from leukotree import files
from leukotree.models import backbones, packaged, pretrained, weights
from leukotree.spec import BackboneSpec

POSITIONS = ("pos_embed", "relative_position_bias_table", "rel_pos_h", "rel_pos_w")
"""Ends of the names of tensors whose shape follows from the size of the images."""


def describe(backbone: BackboneSpec, size: int) -> dict[str, Any]:
    """The description, as JSON; {} for a model of timm with random weights.

    Args: size: width and height of the images in pixels.

    It has `architecture` (a model of timm), `weights` (where they are from; None for random ones), `images`
    and `own_size` (pixels of the images, and of those that the weights were made for; None where that is not
    known), `resampled` (whether position embeddings are), `mean` and `std`, `licence` (None where it is not
    known) and `citation` (a list). `repository` and `revision` are those of weights in the hub.

    Raises InputError as `backbones.check`.
    """
    name = pretrained.parse(backbone.name)
    file = pretrained.file(backbone)
    if file is None and name.kind == "timm":
        return {}
    config = None if name.kind == "timm" else pretrained.folder(name) / pretrained.CONFIG
    states = tuple(files.state(path.stat()) for path in (file, config) if path is not None)
    return copy.deepcopy(_described(backbone, size, file, states))


@functools.lru_cache(maxsize=16)  # a process trains hundreds of runs with one backbone
def _described(
    backbone: BackboneSpec, size: int, file: Path | None, states: tuple[tuple[int, ...], ...]
) -> dict[str, Any]:
    """`describe` for files in these states."""
    model = backbones.empty(backbone.name, size)
    config: Mapping[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    known = not pretrained.is_path(backbone.weights) and file is not None
    repository, revision = _repository(backbone)
    return {
        "architecture": backbones.architecture(backbone.name),
        "weights": None if file is None else _origin(backbone, file),
        "repository": repository,
        "revision": revision,
        "images": size,
        "own_size": int(config["input_size"][-1]) if known else None,
        "resampled": file is not None and resampled(model, weights.shapes(file)),
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "licence": _licence(backbone, config, file) if file else None,
        "citation": _citation(backbone, config, file) if file else [],
    }


def note(description: Mapping[str, Any]) -> str | None:
    """What a person is told of weights that were made for images of another size, and of a repository or
    folder whose weights are not used; None where there is nothing to say."""
    own, size = description.get("own_size"), description.get("images")
    weights, resampled = description.get("weights"), description.get("resampled")
    if description and weights is None:
        named = description["architecture"]
        return f"backbone {named}: begins at random; backbone.weights=hub takes its pretrained weights"
    if not (resampled or own not in (None, size)):
        return None
    made = f"were made for images of {own} pixels" if own not in (None, size) else "are of another grid"
    parts = f"{weights}: the weights {made}, and these images have {size}"
    return parts + ("; the position embeddings are resampled" if resampled else "")


def resampled(model: nn.Module, shapes: weights.Shapes) -> bool:
    """Whether tensors of positions have other shapes in a file than in a model."""
    for name, tensor in model.state_dict().items():
        if name.endswith(POSITIONS):
            for other, shape in shapes.items():
                if (other == name or other.endswith(f".{name}")) and shape != tuple(tensor.shape):
                    return True
    return False


def _repository(backbone: BackboneSpec) -> tuple[str | None, str | None]:
    """The repository of the hub with the weights, and its revision; None without one."""
    name = pretrained.parse(backbone.name)
    if backbone.weights != "hub" or name.kind == "local-dir":
        return None, None
    if name.kind == "hf-hub":
        return name.place, name.revision
    origin = pretrained.of_timm(name.place)
    return origin.repository, origin.revision


def _origin(backbone: BackboneSpec, file: Path) -> str:
    """Where the weights are from, without folders of this machine."""
    given, name = str(backbone.weights), pretrained.parse(backbone.name)
    repository, _ = _repository(backbone)
    if repository:
        return f"{repository} of the hub, commit {file.parent.name[:12]}, {file.name}"
    if given.startswith(packaged.PREFIX):
        package = given.removeprefix(packaged.PREFIX)
        return f"the package {package} {packaged.version(package)}"
    if given != "hub":
        return f"the file {file.name}"
    return f"the folder {Path(name.place).name}" if name.kind == "local-dir" else f"timm's {file.name}"


def _card(backbone: BackboneSpec, file: Path) -> Mapping[str, Any]:
    """The fields of the model card beside the weights; {} without one."""
    from huggingface_hub import metadata_load

    if backbone.weights == "hub":
        with contextlib.suppress(Exception):  # a text for people, which may hold anything
            return metadata_load(file.parent / pretrained.CARD) or {}
    return {}


def _licence(backbone: BackboneSpec, config: Mapping[str, Any], file: Path) -> str | None:
    given = str(backbone.weights)
    if given.startswith(packaged.PREFIX):
        return packaged.find(given.removeprefix(packaged.PREFIX)).licence
    if given != "hub":
        return None
    card = _card(backbone, file)
    stated = card.get("license_name") if card.get("license") == "other" else card.get("license")
    licence = stated or config.get("license")
    return str(licence)[:200] if licence else None


def _citation(backbone: BackboneSpec, config: Mapping[str, Any], file: Path) -> list[str]:
    given = str(backbone.weights)
    if given.startswith(packaged.PREFIX):
        package = given.removeprefix(packaged.PREFIX)
        fields = metadata.metadata(package)
        home = [fields["Home-page"]] if "Home-page" in fields else []
        return [f"{package} {packaged.version(package)}", *home]
    if given != "hub":
        return []
    papers = config.get("paper_ids") or ()
    cited = [str(paper) for paper in papers] if isinstance(papers, list | tuple) else [str(papers)]
    cited += [str(config["origin_url"])] if config.get("origin_url") else []
    repository, _ = _repository(backbone)
    return [*cited, *([f"the model card of {repository}"] if repository else [])]
