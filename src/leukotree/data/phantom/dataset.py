"""Write a phantom set (images, masks, manifest) in parallel. After a stop the same call continues."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from leukotree import progress
from leukotree.data.phantom.draw import draw
from leukotree.data.phantom.slide import Slide
from leukotree.errors import InputError
from leukotree.files import write_atomic
from leukotree.taxonomy import Taxonomy

IDENTITY = "phantom.json"
DRAWING = 1
"""Version of the pictures. Raise it when the same seed gives another picture, so that no set mixes two."""


@dataclass(frozen=True)
class Row:
    """One image of a set."""

    patient: int
    image: int
    leaf: str

    @property
    def patient_id(self) -> str:
        """The patient's id, which is also the name of its folder."""
        return f"P{self.patient:03d}"

    @property
    def files(self) -> tuple[str, str]:
        """Paths of the image and the mask, relative to the manifest, with forward slashes."""
        return (
            f"images/{self.patient_id}/{self.image:03d}.jpg",
            f"masks/{self.patient_id}/{self.image:03d}.png",
        )


@dataclass(frozen=True)
class Plan:
    """The arguments of a phantom set. Equal plans give equal bytes."""

    patients: int
    per_patient: int
    size: int
    seed: int
    drawing: int = DRAWING

    def __post_init__(self) -> None:
        leaves = len(Taxonomy.paper().leaves)
        for name, minimum, why in (
            ("patients", leaves, f"each of the {leaves} leaves needs a patient"),
            ("per_patient", 1, "a patient needs an image"),
            ("size", 32, "smaller images show no cell"),
            ("seed", 0, "seeds are not negative"),
        ):
            if (value := getattr(self, name)) < minimum:
                raise InputError(f"phantom: {name} is {value}; give at least {minimum}: {why}")

    def rows(self) -> Iterator[Row]:
        """Yield the images of the set, patient by patient. The patients get the leaves in turn."""
        leaves = Taxonomy.paper().leaves
        for patient in range(self.patients):
            for image in range(self.per_patient):
                yield Row(patient, image, leaves[patient % len(leaves)])


def write(
    out: Path,
    patients: int = 42,
    per_patient: int = 24,
    size: int = 384,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Draw a phantom set into the folder `out`, and return the path of its manifest.

    Writes `images/<patient>/<nnn>.jpg` (size x size pixels), `masks/<patient>/<nnn>.png` (255 in the white
    cell, else 0) and, last, `manifest.csv`. Equal arguments give equal bytes for any number of workers. An
    interrupted set is continued, and a finished one is kept.

    Args:
        workers: processes; None for one per CPU.

    Raises InputError for a wrong value, or if the folder holds anything else.
    """
    plan = Plan(patients, per_patient, size, seed)
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise InputError(f"phantom: workers is {workers}; give at least 1")
    out = Path(out)
    _claim(out, plan)
    rows = list(plan.rows())
    tasks = [(out, plan, row) for row in rows if not all((out / name).exists() for name in row.files)]
    with _processes(min(workers, len(tasks))) as run, progress.Bar("phantom", len(tasks), "image") as bar:
        for _ in run(_write_image, tasks):
            bar.advance()
    manifest = out / "manifest.csv"
    lines = ["image,leaf,patient,source,mask,group"]
    lines += [f"{row.files[0]},{row.leaf},{row.patient_id},phantom,{row.files[1]},patient" for row in rows]
    text = "\n".join(lines) + "\n"
    if not (manifest.exists() and manifest.read_text(encoding="utf-8") == text):
        write_atomic(manifest, text)
    return manifest


def render(plan: Plan, row: Row, with_cell: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (size, size, 3) uint8 and the mask (size, size) bool of one image.

    They depend on the arguments alone.
    """
    slide_seed = np.random.SeedSequence(plan.seed, spawn_key=(row.patient,))
    image_seed = np.random.SeedSequence(plan.seed, spawn_key=(row.patient, row.image))
    return draw(row.leaf, Slide.sample(np.random.default_rng(slide_seed)), image_seed, plan.size, with_cell)


def _write_image(task: tuple[Path, Plan, Row]) -> None:
    out, plan, row = task
    pixels, mask = render(plan, row)
    jpeg, png = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=95, subsampling=0)
    Image.fromarray(mask.astype(np.uint8) * 255).save(png, "PNG")
    for name, file in zip(row.files, (jpeg, png), strict=True):
        write_atomic(out / name, file.getvalue())


def _claim(out: Path, plan: Plan) -> None:
    """Make the folder and write its identity. Raises InputError if it holds anything but this set."""
    identity = out / IDENTITY
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Hidden files may come from an interrupted write.
        empty = all(entry.name.startswith(".") for entry in out.iterdir())
        if empty:
            write_atomic(identity, json.dumps(asdict(plan)) + "\n")
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from error
    try:
        stored = json.loads(identity.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{out}: is not empty and holds no phantom set; give an empty or new folder"
        ) from error
    wanted = asdict(plan)
    if stored != wanted:
        before = stored if isinstance(stored, dict) else {}
        changed = [(key, value) for key, value in wanted.items() if before.get(key) != value]
        text = ", ".join(f"{key} {before.get(key)} instead of {value}" for key, value in changed)
        raise InputError(
            f"{identity}: here is a set with {text or 'more keys'}; give another folder or the same arguments"
        )


@contextmanager
def _processes(count: int) -> Iterator:
    """Give a `map` over new processes, or over this one for a single worker.

    If the block fails, tasks that have not started are dropped.
    """
    if count <= 1:
        yield map
        return
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield lambda function, tasks: pool.map(function, tasks, chunksize=4)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
