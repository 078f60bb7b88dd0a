"""The whole classifier of a run as one module, and its files in the formats of torch.export and ONNX.

Its input are (B, 3, H, W) uint8 RGB images of the size of the training images. The normalisation is a part of
it. It computes in fp32, whatever the precision of the run.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from leukotree.errors import InputError
from leukotree.inference.loaded import LoadedRun
from leukotree.models.classifier import Classifier, normalisation
from leukotree.models.probabilities import conditionals, leaf_conditionals, leaves_of_parents
from leukotree.spec import OF_LEAVES

INPUT = "images"
OUTPUTS = ("log_p_edges", "p_leaves")
"""(B, E) log p(child | parent) of each edge, and (B, L) the probability of each leaf."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the extra `export`. torch.onnx writes with the first two."""
_WHITE = 255.0


class Program(nn.Module):
    """(B, 3, H, W) uint8 images -> OUTPUTS, in fp32 on the CPU. A copy of the models of a run."""

    scale: torch.Tensor
    shift: torch.Tensor
    paths: torch.Tensor
    below: torch.Tensor
    above: torch.Tensor
    order: torch.Tensor

    def __init__(self, run: LoadedRun) -> None:
        super().__init__()
        taxonomy = run.taxonomy
        self.models = nn.ModuleList(plain(model) for model in run.models)
        mean, std = normalisation(run.models[0])
        edges = list(taxonomy.edges)
        chosen = [child for children in taxonomy.decisions.values() for child in children]
        # An only child has no logit. It takes the last column, which is 0.
        order = [chosen.index(edge) if edge in chosen else len(chosen) for edge in edges]
        tables = {
            "scale": 1 / (_WHITE * std),
            "shift": -mean / std,
            "paths": torch.from_numpy(taxonomy.path_matrix.T).float(),
            "below": torch.from_numpy(taxonomy.leaves_below.copy()),
            "above": torch.from_numpy(leaves_of_parents(taxonomy)),
            "order": torch.tensor(order),
        }
        for name, table in tables.items():
            self.register_buffer(name, table)
        self.of_leaves = run.spec.variant in OF_LEAVES
        self.widths = [len(children) for children in taxonomy.decisions.values()]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = images.float() * self.scale + self.shift
        logits = [model(inputs) for model in self.models]
        edges = self._of_leaves(logits) if self.of_leaves else self._of_decisions(logits)
        return edges, (edges @ self.paths).exp()

    def _of_leaves(self, logits: list[torch.Tensor]) -> torch.Tensor:
        """The mean of the members' leaf probabilities, marginalised over the tree."""
        members = torch.stack([part.log_softmax(dim=1) for part in logits])
        leaf = members.logsumexp(dim=0) - math.log(len(logits)) if len(logits) > 1 else members[0]
        return leaf_conditionals(leaf, self.below, self.above)

    def _of_decisions(self, logits: list[torch.Tensor]) -> torch.Tensor:
        decided = conditionals(torch.cat(logits, dim=1), self.widths)
        return torch.cat([decided, torch.zeros_like(decided[:, :1])], dim=1)[:, self.order]


def require_packages() -> None:
    """Raises InputError where a package of the extra `export` is missing."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            fix = "install the extra: pip install --constraint constraints.txt '.[export]'"
            raise InputError(f"export: {package} is not installed; {fix}")


def plain(model: Classifier) -> Classifier:
    """A copy of a model on the CPU in evaluation mode, whose tensors lie in memory in their usual order."""
    copied = copy.deepcopy(model).eval()
    return copied.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def write(program: Program, size: int, folder: Path) -> tuple[Path, Path]:
    """Write `model.pt2` (torch.export) and `model.onnx` with a batch of any size; their paths."""
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        exported = torch.export.export(
            program, (example,), dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}}
        )
        torch.export.save(exported, folder / "model.pt2")
        torch.onnx.export(
            exported,
            (),
            str(folder / "model.onnx"),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return folder / "model.pt2", folder / "model.onnx"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of the exporters about their own parts."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
