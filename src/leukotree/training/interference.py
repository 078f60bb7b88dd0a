"""Interference: how well the gradients of the levels agree on the backbone, measured on fixed batches.

A run's interference.jsonl has a row for each block of the backbone and each two levels a < b whose losses
both train it: `epoch`, `block`, `levels` [a, b], `cosine` of the two gradients, `norm_ratio` (norm of a over
norm of b), `conflict` (share of the batches with a negative cosine), and `control`. `control` is the cosine
with labels shuffled within each batch: what images and network cause without the labels. All but `conflict`
are means over the batches.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leukotree import files, seeds
from leukotree.records import runfolder
from leukotree.training.stage_trainer import StageTrainer

BATCHES = 4
_BLOCK = re.compile(r"(?:blocks|stages|layers)\.\d+|layer\d+")


class Probe:
    """Measures the model of `multilabel` at intervals, on the main rank; not with ZeRO, where no rank has all
    of it.

    It changes no bit of the training. It draws no random numbers, the model is in evaluation mode (no
    dropout, no statistics of BatchNorm), and its gradients are not stored in the parameters.

    Args:
        stage: the stage in training.
        every: epochs between two measurements; 0 for none.
    """

    def __init__(self, stage: StageTrainer, every: int) -> None:
        self.stage, self.every = stage, every
        spec = stage.spec
        measurable = (
            spec.variant == "multilabel" and spec.engine.strategy == "ddp" and len(stage.objective.levels) > 1
        )
        self._wanted = bool(every) and measurable and stage.engine.is_main

    def after(self, epoch: int) -> list[dict[str, Any]]:
        """The rows of an epoch that was just trained; none where nothing is measured."""
        if not self._wanted or (epoch + 1) % self.every:
            return []
        with _evaluating(self.stage.model):
            return self._rows(epoch)

    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """BATCHES x ((B,) training rows, (B,) order that shuffles their labels), the same for each epoch."""
        rows, spec = self.stage.order.rows, self.stage.spec
        generator = seeds.generator(spec.seed, "probe")
        size = min(spec.optim.batch_size, len(rows))
        return [
            (generator.choice(rows, size, replace=False), generator.permutation(size)) for _ in range(BATCHES)
        ]

    def _rows(self, epoch: int) -> list[dict[str, Any]]:
        leaves = self.stage.leaves.numpy()
        named = self.stage.model.backbone.named_parameters()
        names = _blocks([name for name, parameter in named if parameter.requires_grad])
        if not names:  # the levels share nothing that trains
            return []
        # (BATCHES, 2, blocks, G, G): dot products with the true labels, and with shuffled ones.
        products = np.array(
            [
                [self._products(rows, labels, names) for labels in (leaves[rows], leaves[rows][order])]
                for rows, order in self.batches()
            ]
        )
        norms = np.sqrt(np.diagonal(products, axis1=3, axis2=4))
        table = []
        for number, block in enumerate(dict.fromkeys(names)):
            for a, b in combinations(range(len(self.stage.objective.levels)), 2):
                first, second = norms[:, :, number, a], norms[:, :, number, b]
                both = (first * second > 0).all(axis=1)  # a batch may have no image of a level
                if both.any():
                    cosine = products[both, :, number, a, b] / (first * second)[both]
                    row = {
                        "epoch": epoch,
                        "block": block,
                        "levels": [self.stage.objective.levels[level] for level in (a, b)],
                    }
                    measures = {
                        "cosine": cosine[:, 0].mean(),
                        "norm_ratio": (first / second)[both, 0].mean(),
                        "conflict": (cosine[:, 0] < 0).mean(),
                        "control": cosine[:, 1].mean(),
                    }
                    table.append({**row, **{name: float(value) for name, value in measures.items()}})
        return table

    def _products(self, rows: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """(blocks, G, G) float64 dot products of the levels' gradients, from the block's name of each
        parameter."""
        numbers = {block: number for number, block in enumerate(dict.fromkeys(names))}
        levels = len(self.stage.objective.levels)
        products = torch.zeros(
            len(numbers), levels, levels, dtype=torch.float64, device=self.stage.engine.device
        )
        for name, gradients in zip(names, self._gradients(rows, torch.from_numpy(labels)), strict=True):
            flat = gradients.double()
            products[numbers[name]] += flat @ flat.T
        return products.cpu().numpy()

    def _gradients(self, rows: np.ndarray, labels: torch.Tensor) -> list[torch.Tensor]:
        """For each parameter of the backbone that trains the (G, p) gradients of the levels' losses of a
        batch."""
        stage = self.stage
        share = stage.spec.engine.micro_batch or max(1, stage.spec.optim.batch_size // stage.engine.world)
        parameters = [one for one in stage.model.backbone.parameters() if one.requires_grad]
        total = [
            torch.zeros(len(stage.objective.levels), parameter.numel(), device=parameter.device)
            for parameter in parameters
        ]
        counts = stage.objective.counts(stage.engine.put(labels))
        micros = zip(stage.loader.evaluate(rows, share), labels.split(share), strict=True)
        for batch, own in micros:
            losses = stage.losses(stage.logits(stage.inputs(batch)), own, counts, len(own) / len(rows))
            for level, chosen in enumerate(torch.eye(len(losses), device=losses.device)):
                more = level + 1 < len(losses)
                gradients = torch.autograd.grad(losses, parameters, chosen, retain_graph=more)
                for sums, gradient in zip(total, gradients, strict=True):
                    sums[level] += gradient.flatten()
        return total


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def _blocks(parameters: Sequence[str]) -> list[str]:
    """The top-level block of each parameter of a backbone, by name (`blocks.3`, `stages.0`, `layer4`).

    It is `stem` before the first block, and `rest` after the last.
    """
    blocks: list[str] = []
    for name in parameters:
        block = _BLOCK.match(name)
        blocks.append(block.group() if block else "rest" if set(blocks) - {"stem"} else "stem")
    return blocks


def write(folder: Path, epoch: int, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows of an epoch to a run's file. They replace rows of that epoch and of later ones, which an
    interrupted attempt left."""
    path = folder / runfolder.INTERFERENCE
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["epoch"] < epoch]
    files.write_atomic(path, "".join(f"{line}\n" for line in [*kept, *map(json.dumps, rows)]))
