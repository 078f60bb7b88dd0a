"""What was written gives the answers of the run it was written from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leukotree.errors import RunFailed
from leukotree.evaluation import decide
from leukotree.inference.export import pieces
from leukotree.inference.export.program import INPUT, plain
from leukotree.inference.loaded import LoadedRun
from leukotree.models.classifier import normalisation
from leukotree.taxonomy import Taxonomy

TOLERANCE = 1e-4
"""Largest difference of a log-probability or a probability. Of a number above 1 it is relative."""
BATCH = 16
"""Images that are compared at a time. One image alone is compared too, since the batch is dynamic."""

Answers = tuple[np.ndarray, np.ndarray]
"""(N, E) log p(child | parent) and (N, L) probabilities of the leaves."""


def expected(run: LoadedRun, images: np.ndarray) -> Answers:
    """The answers of the run in fp32. A run in bf16 rounds each product, so its own differ more."""
    whole = dataclasses.replace(run, spec=run.spec.override({"engine.precision": "fp32"}))
    edges = np.concatenate([whole.predict(batch) for batch in _batches(images)])
    return edges, leaves(edges, run.taxonomy)


def leaves(edges: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(N, L) probabilities of the leaves, from (N, E) log p(child | parent)."""
    return np.exp(decide.leaf_logp(edges, taxonomy))


def check(run: LoadedRun, images: np.ndarray, folder: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    """File -> the largest difference between its answers and those of the run, on (N, 3, H, W) uint8 images.

    Args: rows: of `pieces.write`.

    Raises RunFailed where a difference is above TOLERANCE.
    """
    wanted = expected(run, images)
    programs = {"model.onnx": _onnx(folder / "model.onnx"), "model.pt2": _torch(folder / "model.pt2")}
    found = {name: _largest(wanted, program, images) for name, program in programs.items()}
    found |= _features(run, images[:BATCH], folder, rows)
    for name, difference in found.items():
        if not difference <= TOLERANCE:  # also for NaN
            raise RunFailed(
                f"{run.folder}: {name} differs from the run by {difference:.2g} (at most {TOLERANCE:g}); "
                "nothing was exported"
            )
    return found


def difference(wanted: np.ndarray, got: np.ndarray) -> float:
    """The largest difference of two arrays; relative where the number is above 1. NaN where one is NaN."""
    wanted, got = np.asarray(wanted, np.float64), np.asarray(got, np.float64)
    with np.errstate(invalid="ignore"):
        return float(np.max(np.abs(wanted - got) / np.maximum(1, np.abs(wanted)), initial=0.0))


def _largest(wanted: Answers, program: Callable[[np.ndarray], Answers], images: np.ndarray) -> float:
    parts = [program(batch) for batch in _batches(images)]
    whole = [np.concatenate(of_batches) for of_batches in zip(*parts, strict=True)]
    alone = program(images[:1])
    pairs = [
        *zip(wanted, whole, strict=True),
        *((one[:1], got) for one, got in zip(wanted, alone, strict=True)),
    ]
    return float(np.max([difference(*pair) for pair in pairs]))


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH]


def _onnx(path: Path) -> Callable[[np.ndarray], Answers]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: tuple(session.run(None, {INPUT: np.ascontiguousarray(images)}))


def _torch(path: Path) -> Callable[[np.ndarray], Answers]:
    program = torch.export.load(path).module()

    def answers(images: np.ndarray) -> Answers:
        with torch.inference_mode():
            edges, of_leaves = program(torch.from_numpy(np.ascontiguousarray(images)))
        return edges.numpy(), of_leaves.numpy()

    return answers


def _features(
    run: LoadedRun, images: np.ndarray, folder: Path, rows: list[dict[str, Any]]
) -> dict[str, float]:
    """Folder of a backbone -> the largest difference of the features that timm computes from it."""
    found = {}
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float() / 255
    for model, row in zip(run.models, rows, strict=True):
        own = plain(model)
        mean, std = normalisation(own)
        inputs = (pixels - mean) / std
        with torch.inference_mode():
            shared = own.backbone(inputs)
            wanted = [branch(shared) for branch in own.branches] or [shared]
        for name, features in zip(row["backbones"], wanted, strict=True):
            got = pieces.features(folder / "timm" / name, inputs)
            found[f"timm/{name}"] = difference(features.numpy(), got.numpy())
    return found
