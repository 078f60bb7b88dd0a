"""A finished run with its weights: a function from images to log p(child | parent) of each edge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from leukotree import files
from leukotree.data import augment
from leukotree.data.boxes import Crop
from leukotree.data.fingerprint import packed
from leukotree.data.trees import open_data
from leukotree.distributed.engine import Engine
from leukotree.errors import InputError, one_line
from leukotree.inference import frozen
from leukotree.inference.frozen import Frozen
from leukotree.models import lora, pretrained
from leukotree.models.classifier import Classifier, all_logits, build, normalisation
from leukotree.models.plain import Neighbours
from leukotree.models.probabilities import edge_log_probabilities
from leukotree.models.stages import Stage, stages
from leukotree.records import compared, runfolder
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy
from leukotree.training import checkpoint


@dataclass(frozen=True)
class Prepared:
    """How `pack` prepared the images that a run trained on."""

    size: int
    """Width and height in pixels."""
    quality: int
    """Quality of the JPEGs."""
    margin: float = 0.0
    square: bool = False
    """What was done with boxes, see `boxes.Crop`."""

    @property
    def crop(self) -> Crop:
        """How a box of a manifest becomes an image."""
        return Crop(self.margin, self.square)


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A finished run of an outer fold, with its weights on a device. Made by `load`."""

    folder: Path
    spec: RunSpec
    taxonomy: Taxonomy
    """The tree of the run."""
    prepared: Prepared
    stages: tuple[Stage, ...]
    models: tuple[Classifier, ...]
    """One per stage, in evaluation mode."""
    engine: Engine
    frozen: Frozen | None = None
    """The backbone of all models where heads were trained on its stored features; None for others."""

    @property
    def batch_size(self) -> int:
        """Images of a batch in which one process scores the run. On the CPU equal batches give equal bits."""
        return self.spec.engine.micro_batch or self.spec.optim.batch_size

    @property
    def bare(self) -> RunSpec:
        """The spec for models of the run's kind with random weights, built from files of the run alone."""
        return _bare(self.folder, self.spec)

    def inputs(self, images: np.ndarray | torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) uint8 images -> the (B, 3, H, W) float32 inputs of the models, on the device."""
        mean, std = (self.engine.put(value) for value in normalisation(self.models[0]))
        return augment.to_input(self.engine.put(torch.as_tensor(images)), None, self.spec.augment, mean, std)

    def edges(self, logits: Sequence[torch.Tensor]) -> torch.Tensor:
        """(B, E) float32 log p(child | parent) in the order of `taxonomy.edges`."""
        return edge_log_probabilities(self.spec.variant, self.taxonomy, logits)

    @torch.inference_mode()
    def predict(self, images: np.ndarray | torch.Tensor) -> np.ndarray:
        """(B, 3, H, W) uint8 images of `prepared.size` pixels -> (B, E) float32 log p(child | parent)."""
        if self.frozen is not None:
            return self.decided(self.features(images))
        with self.engine.autocast(self.spec.engine):
            logits = all_logits(self.models, self.inputs(images))
        return self.edges(logits).cpu().numpy()

    @torch.inference_mode()
    def features(self, images: np.ndarray | torch.Tensor) -> np.ndarray:
        """(B, 3, H, W) uint8 images -> (B, F) float32 features of the frozen backbone, as they are stored."""
        assert self.frozen is not None
        inputs = self.inputs(images)
        with self.engine.autocast(self.spec.engine):
            return self.frozen.module(inputs).float().cpu().numpy()

    @torch.inference_mode()
    def decided(self, features: np.ndarray) -> np.ndarray:
        """(B, F) float32 features -> (B, E) float32 log p(child | parent)."""
        given = self.engine.put(torch.from_numpy(features))
        with self.engine.autocast(self.spec.engine):
            logits = [model.decided(given).float() for model in self.models]
        return self.edges(logits).cpu().numpy()


def load(folder: Path, engine: Engine | None = None) -> LoadedRun:
    """Load a finished run from its folder.

    Args:
        engine: its device and precision; None for the CPU.

    Raises InputError naming the folder: no run, a run that is not done, a run of an inner fold (those keep no
    weights), weights that are missing or damaged, or image sizes that are not known any more.
    """
    spec = runfolder.read_spec(finished(Path(folder)))
    if spec.data.inner is not None:
        raise InputError(f"{folder}: a run of an inner fold keeps no weights; name a run of an outer fold")
    latest = checkpoint.load_latest(Path(folder) / runfolder.CHECKPOINTS)
    if latest is None:
        fix = "copy it again, or move the folder away and train it again"
        raise InputError(f"{folder}: its weights are missing or damaged; {fix}")
    engine = engine or Engine(0, 1, torch.device("cpu"))
    taxonomy = tree(Path(folder))
    images = preparation(Path(folder), spec)
    parts = stages(spec.variant, taxonomy)
    weights = {stage.name: latest[1]["stages"][stage.name]["model"] for stage in parts}
    if any(name.startswith("backbone.") for names in weights.values() for name in names):
        source, backbone = _bare(Path(folder), spec), None
    else:  # trained on stored features: the checkpoint has the heads alone
        source = _with_weights(Path(folder), spec)
        backbone = _frozen(Path(folder), source, parts[0], images.size, latest[1].get("backbone"), engine)
    models = [_model(source, stage, images.size, weights[stage.name], engine, backbone) for stage in parts]
    return LoadedRun(Path(folder), spec, taxonomy, images, tuple(parts), tuple(models), engine, backbone)


def _with_weights(folder: Path, spec: RunSpec) -> RunSpec:
    """A run's spec with the weights of its frozen backbone, and the run's own copy of its `config.json`: its
    normalisation may be another one today. Raises InputError where the weights are not here, or are other
    ones."""
    file = pretrained.file(spec.backbone)
    there = runfolder.read_environment(folder).get(compared.WEIGHTS)
    if file is not None and files.sha256(file) != there:
        raise InputError(
            f"{folder}: its heads were trained on other weights than {file} has now; put the file with the "
            f"sha256 {there} there"
        )
    own = _own_config(folder)
    return spec.override({**own, "backbone.weights": str(file)}) if own and file is not None else spec


def _frozen(
    folder: Path, source: RunSpec, stage: Stage, size: int, digest: str | None, engine: Engine
) -> Frozen:
    """The frozen backbone of a run. `digest`: the one that its heads were trained on; None for a run of an
    older version. Raises InputError where it is another one now."""
    environment = runfolder.read_environment(folder)
    found = frozen.backbone(source, stage, size, environment.get(compared.WEIGHTS), engine)
    if digest not in (None, found.digest):
        known = environment.get("packages") or {}
        versions = " and ".join(f"{name} {known.get(name, '?')}" for name in ("torch", "timm"))
        raise InputError(
            f"{folder}: its heads were trained on another frozen backbone than is built here from the same "
            f"weights or seed; install {versions}, or move the folder away and train it again"
        )
    return found


def finished(folder: Path) -> Path:
    """The folder, if it is that of a finished run. Raises InputError otherwise."""
    if not (folder / runfolder.SPEC).is_file():
        raise InputError(f"{folder}: no run folder; name one such as results/runs/STUDY/flat-0123456789ab")
    state = runfolder.read_status(folder).get("state")
    if state != "done" or not (folder / runfolder.PREDICTIONS).exists():
        raise InputError(f"{folder}: is not done ({state or 'not begun'}); train it to its end first")
    return folder


def tree(folder: Path) -> Taxonomy:
    """The label tree of a run. Raises InputError for a file that is damaged or not there."""
    file = folder / runfolder.TAXONOMY
    try:
        return Taxonomy.from_nested(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {one_line(error)[:200]}") from error


def preparation(folder: Path, spec: RunSpec) -> Prepared:
    """How the images of a run were prepared: what the run noted; for a run of an older version, what its data
    set says. Raises InputError where that is not here any more, or another one."""
    environment = runfolder.read_environment(folder)
    if isinstance(noted := environment.get(runfolder.IMAGES), dict):
        return _prepared(noted)
    now = packed(spec.data.shards, spec.data.repeat)
    if now is None or now.fingerprint != environment.get(compared.DATA):
        raise InputError(
            f"{folder}: did not note the size of its images, and {spec.data.shards} is not the data set that "
            "it was trained on; put that data set there"
        )
    return _prepared(open_data(spec).preparation)


def _prepared(noted: Mapping[str, float]) -> Prepared:
    margin, square = float(noted.get("margin", 0)), bool(noted.get("square", False))
    return Prepared(int(noted["size"]), int(noted["quality"]), margin, square)


def _bare(folder: Path, spec: RunSpec) -> RunSpec:
    """A run's spec without pretrained weights: they are in its checkpoint. A backbone that timm does not have
    by name is that of the run's own copy of its `config.json`."""
    return spec.override({"backbone.weights": None, **_own_config(folder)})


def _own_config(folder: Path) -> dict[str, str]:
    """The change of a spec to the backbone of the run's copy of a `config.json`; {} without one."""
    own = folder / runfolder.BACKBONE
    return {"backbone.name": f"local-dir:{own}"} if (own / pretrained.CONFIG).is_file() else {}


def _model(
    spec: RunSpec,
    stage: Stage,
    size: int,
    weights: Mapping[str, torch.Tensor],
    engine: Engine,
    backbone: Frozen | None,
) -> Classifier:
    levels = weights.get("log_variance")
    stored = None if backbone is None else backbone.width
    model = build(spec, stage, size, None if levels is None else range(len(levels)), stored=stored)
    if backbone is not None:
        model.backbone = backbone.module
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or (missing and any(name.startswith("backbone.") for name in weights)):
        raise InputError(f"{stage.name}: the checkpoint has other weights than its model")
    lora.merge(model)
    if isinstance(head := model.heads[0], Neighbours) and not len(head.bank):
        raise InputError(
            f"{spec.variant}: the features of its training images were too large to be kept; name a run of "
            "logistic or flat"
        )
    return model.to(engine.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
