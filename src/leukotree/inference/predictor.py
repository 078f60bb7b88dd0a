"""A finished run as a function from image files, PIL images or arrays to leaves, with texts that fit a
screen."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from leukotree.data.images import codec
from leukotree.data.images.formats import BrokenImage
from leukotree.errors import InputError, one_line
from leukotree.evaluation import decide
from leukotree.inference import members
from leukotree.inference.loaded import LoadedRun, Prepared
from leukotree.taxonomy import Taxonomy

Source: TypeAlias = str | Path | Image.Image | np.ndarray
"""An image: the path of a file, a PIL image, or an (H, W, 3) or (H, W) uint8 array."""
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""Modes of PIL that a PNG holds. Others become RGB first."""
SHOWN = 10
"""Predictions that a text lists."""


@dataclass(frozen=True, repr=False)
class Prediction:
    """The answer to one image."""

    image: str
    """The path of its file, or "image 3" for the fourth one of a list."""
    leaf: str
    """The decided leaf."""
    path: dict[str, float]
    """Node -> p(node | its parent), from the child of the root down to the leaf."""
    probabilities: dict[str, float]
    """Leaf -> its probability. They sum to 1."""

    def __repr__(self) -> str:
        steps = " > ".join(f"{node} {p:.2f}" for node, p in self.path.items())
        return f"{self.image}: {self.leaf} (p = {self.probabilities[self.leaf]:.2f}), {steps}"


@dataclass(frozen=True, eq=False, repr=False)
class Predictions(Sequence[Prediction]):
    """The answers to N images, in their order."""

    images: tuple[str, ...]
    logp: np.ndarray
    """(N, E) float32 log p(child | parent), in the order of `taxonomy.edges`."""
    taxonomy: Taxonomy
    rule: decide.Rule = "greedy"
    """The rule that decides leaves."""

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, place: int) -> Prediction: ...
    @overload
    def __getitem__(self, place: slice) -> Predictions: ...
    def __getitem__(self, place: int | slice) -> Prediction | Predictions:
        if isinstance(place, slice):
            return Predictions(self.images[place], self.logp[place], self.taxonomy, self.rule)
        leaf = self.leaves[place]
        edges = dict(zip(self.taxonomy.edges, np.exp(self.logp[place]).tolist(), strict=True))
        of_leaves = dict(zip(self.taxonomy.leaves, self.probabilities[place].tolist(), strict=True))
        path = {node: edges[node] for node in self.taxonomy.path(leaf)}
        return Prediction(self.images[place], leaf, path, of_leaves)

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """The N decided leaves."""
        if not len(self):
            return ()
        decided = decide.leaves(self.logp, self.taxonomy, self.rule)
        return tuple(self.taxonomy.leaves[leaf] for leaf in decided)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, L) probabilities in the order of `taxonomy.leaves`."""
        return np.exp(decide.leaf_logp(self.logp, self.taxonomy))

    def frame(self) -> pd.DataFrame:
        """A row per image: image, leaf, and a column "p:<leaf>" for each leaf."""
        names = [f"p:{leaf}" for leaf in self.taxonomy.leaves]
        of_leaves = pd.DataFrame(self.probabilities, columns=names)
        answers = pd.DataFrame({"image": self.images, "leaf": self.leaves}, dtype=object)
        return pd.concat([answers, of_leaves], axis=1)

    def __repr__(self) -> str:
        more = [f"and {len(self) - SHOWN} more"] if len(self) > SHOWN else []
        counted = f"{len(self)} prediction{'' if len(self) == 1 else 's'}"
        return "\n".join([counted, *(f"  {one!r}" for one in self[:SHOWN]), *more])


@dataclass(frozen=True, eq=False, repr=False)
class Predictor:
    """A finished run that predicts images of any size and format."""

    run: LoadedRun

    @cached_property
    def _study(self) -> members.Members:
        """What the study of the run has declared: its decision rule, and its costs of mistakes."""
        return members.of_run(self.run.folder)

    def predict(self, images: Source | Iterable[Source], rule: decide.Rule | None = None) -> Predictions:
        """The answers to one image, or to several.

        A file is prepared byte for byte as `leukotree pack` prepared the training images; a PIL image or an
        array as if it were a PNG. An array of exactly the size of the training images is taken as it is: it
        has been prepared, as those of `Dataset.image`.

        Args: rule: how leaves are decided, see `evaluation.decide`. None: as the study of the run has
        declared, as `leukotree predict` decides.

        Raises InputError naming the image that cannot be read.
        """
        rule, tree = rule or self._study.rule, self._study.taxonomy
        decide.leaves(np.zeros((1, len(tree.edges))), tree, rule)  # refuses early
        names: list[str] = []
        parts = [np.empty((0, len(self.run.taxonomy.edges)), np.float32)]
        for batch in _batches(_listed(images), self.run.batch_size):
            names += [name for name, _ in batch]
            pixels = np.stack([_pixels(name, source, self.run.prepared) for name, source in batch])
            parts.append(self.run.predict(np.ascontiguousarray(pixels).transpose(0, 3, 1, 2)))
        return Predictions(tuple(names), np.concatenate(parts), tree, rule)

    def __repr__(self) -> str:
        run, spec, size = self.run, self.run.spec, self.run.prepared.size
        on = "on all folds" if spec.data.all_folds else f"without fold {spec.data.test_fold}"
        count = f"{len(run.models)} model{'' if len(run.models) == 1 else 's'}"
        return (
            f"Predictor {run.folder.name}: {spec.variant}, {count} of {spec.backbone.name}, "
            f"{size} x {size} pixels, seed {spec.seed}, trained {on} of "
            f"{spec.data.shards}\n  leaves: {', '.join(run.taxonomy.leaves)}"
        )


def _listed(images: Source | Iterable[Source]) -> Iterator[tuple[str, Source]]:
    """(name, image) of each image. Raises InputError for what is no image and holds none."""
    if isinstance(images, str | Path | Image.Image) or (isinstance(images, np.ndarray) and images.ndim < 4):
        images = [images]
    try:
        listed = iter(images)
    except TypeError:
        raise InputError(f"images: expected images or paths of files, got {type(images).__name__}") from None
    for number, image in enumerate(listed):
        yield str(image) if isinstance(image, str | Path) else f"image {number}", image


def _batches(images: Iterator[tuple[str, Source]], size: int) -> Iterator[list[tuple[str, Source]]]:
    while batch := list(itertools.islice(images, size)):
        yield batch


def _pixels(name: str, image: Source, prepared: Prepared) -> np.ndarray:
    """(size, size, 3) uint8 pixels, prepared as those of the training images. Raises InputError."""
    side = (prepared.size, prepared.size)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            expected = "an (H, W, 3) or (H, W) array of uint8"
            raise InputError(f"{name}: expected {expected}, got {image.shape} of {image.dtype}")
        if image.shape == (*side, 3):
            return image
    try:
        if isinstance(image, str | Path):
            return codec.decode(codec.square(image, prepared.size, prepared.quality))
        data = _png(image if isinstance(image, Image.Image) else Image.fromarray(image))
        return codec.decode(codec.square_of(data, prepared.size, prepared.quality))
    except (BrokenImage, OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read as an image: {one_line(error)[:200]}") from error
    except (AttributeError, TypeError):
        expected = "a path, a PIL image or an array"
        raise InputError(f"{name}: expected {expected}, got {type(image).__name__}") from None


def _png(image: Image.Image) -> bytes:
    """A PIL image as the bytes of a PNG, upright by its Exif orientation."""
    upright = ImageOps.exif_transpose(image)
    file = io.BytesIO()
    (upright if upright.mode in PNG_MODES else upright.convert("RGB")).save(file, "PNG")
    return file.getvalue()
