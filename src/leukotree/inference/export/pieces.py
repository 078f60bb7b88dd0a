"""The models of a run in the layout that timm loads: a folder with `config.json` and `model.safetensors` for
each backbone, and the heads beside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import nn

from leukotree.inference.export.program import plain
from leukotree.inference.loaded import LoadedRun
from leukotree.models import lora
from leukotree.models.classifier import Classifier, build, normalisation
from leukotree.models.stages import Stage

HEADS = "heads.safetensors"


def write(run: LoadedRun, folder: Path) -> list[dict[str, Any]]:
    """Write the models into the folder; a row for each.

    A row has `stage`, `backbones` (folders below `folder`, one for each level where each level has last
    blocks of its own, else one), and `heads`: for each its `name`, `classes`, `weight` and `bias` (names in
    the file `heads`), its `backbone`, and `above`, the head whose probabilities are also its input, or None.
    """
    rows = []
    for number, (stage, model) in enumerate(zip(run.stages, run.models, strict=True), 1):
        place = folder / f"{number}-{_slug(stage.name)}"
        of_stage = plain(model)
        names = []
        for level, backbone in enumerate(_backbones(run, stage, of_stage), 1):
            name = place.name if len(of_stage.branches) == 0 else f"{place.name}/level{level}"
            _save(backbone, model, run.prepared.size, folder / name)
            names.append(name)
        heads = [f"{head}.{kind}" for head in range(len(stage.heads)) for kind in ("weight", "bias")]
        tensors = {name: of_stage.heads.get_parameter(name).detach().contiguous() for name in heads}
        save_file(tensors, place / HEADS)
        rows.append(
            {
                "stage": stage.name,
                "backbones": names,
                "heads_file": f"{place.name}/{HEADS}",
                "heads": [_head(of_stage, stage, head, names) for head in range(len(stage.heads))],
            }
        )
    return rows


def _head(model: Classifier, stage: Stage, head: int, backbones: list[str]) -> dict[str, Any]:
    name = list(stage.heads)[head]
    levels = sorted(set(model.wiring.levels))
    place = levels.index(model.wiring.levels[head]) if len(backbones) > 1 else 0
    above = model.wiring.above[head]
    return {
        "name": name,
        "classes": list(stage.heads[name]),
        "weight": f"{head}.weight",
        "bias": f"{head}.bias",
        "backbone": backbones[place],
        "above": None if above is None else list(stage.heads)[above],
    }


def _backbones(run: LoadedRun, stage: Stage, model: Classifier) -> list[nn.Module]:
    """The whole backbone of a model. With `branched` one for each level: the trunk and the blocks of the
    level."""
    if not len(model.branches):
        return [model.backbone]
    shared = run.bare.override({"loss.isolation": "shared", "loss.branch_blocks": 1, "loss.leader": 1})
    wholes = []
    for branch in model.branches:
        whole = build(shared, stage, run.prepared.size).backbone
        lora.merge(whole)
        # The last blocks have in a branch the names that they have in the whole.
        whole.load_state_dict(model.backbone.state_dict() | branch.state_dict())
        wholes.append(whole.eval())
    return wholes


def _save(backbone: nn.Module, model: Classifier, size: int, folder: Path) -> None:
    folder.mkdir(parents=True)
    mean, std = (tuple(value.flatten().tolist()) for value in normalisation(model))
    data = {"input_size": (3, size, size), "mean": mean, "std": std, "crop_pct": 1.0}
    save_for_hf(
        backbone, str(folder), safe_serialization=True, data_config={**data, "interpolation": "bicubic"}
    )


def features(folder: Path, inputs: torch.Tensor) -> torch.Tensor:
    """(B, F) features of a written backbone, from (B, 3, H, W) normalised inputs."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        return model(inputs)


def _slug(name: str) -> str:
    """A name as a part of a path."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "model"
