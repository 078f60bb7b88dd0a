"""Maps of predicted images, one picture for each: where a run that predicted the image looks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from leukotree import files, progress
from leukotree.distributed.engine import Engine
from leukotree.errors import RunFailed
from leukotree.explain import panels
from leukotree.explain.table import Explainer
from leukotree.explain.table import Images as Explained
from leukotree.inference.images import Images, batches
from leukotree.inference.loaded import load
from leukotree.inference.members import Member

METHOD = "gradcam"


def write(
    folder: Path, runs: Sequence[Member], images: Images, usable: np.ndarray, engine: Engine, *, workers: int
) -> list[Path]:
    """Write a PNG of each image, and return their paths in the order of the images.

    A picture has the Grad-CAM maps of one run: the first one that predicted the image.

    Args:
        usable: (N, R) bool: whether a run predicted an image. Each image has one run or more.
        workers: decoding threads.

    Raises RunFailed for a full disk, and OSError for a folder that cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = usable.argmax(axis=1)
    paths = [folder / _name(number, str(image)) for number, image in enumerate(images.table["image"])]
    leaves = images.table["leaf"].tolist()
    with progress.Bar("overlays", len(paths), "image") as bar:
        for place in np.unique(first).tolist():
            explainer = Explainer(load(runs[place].folder, engine))
            for numbers, pixels in batches(images, np.flatnonzero(first == place), 1, workers):
                (number,) = numbers.tolist()
                _write(paths[number], explainer, pixels, str(leaves[number]))
                bar.advance()
    return paths


def _write(path: Path, explainer: Explainer, pixels: torch.Tensor, leaf: str) -> None:
    no_mask = np.zeros((1, *pixels.shape[-2:]), bool)
    try:
        files.write_atomic(path, panels.draw(explainer, METHOD, Explained(pixels, no_mask), leaf))
    except OSError as error:
        if files.is_full(error):
            raise RunFailed(
                f"{path}: no room left on its disk; make room and run it again", "disk"
            ) from error
        raise


def _name(number: int, image: str) -> str:
    """The number of the image in the table, and what a file's name may have of its own."""
    return f"{number:05d}-{files.plain_stem(image, 60)}.png"
