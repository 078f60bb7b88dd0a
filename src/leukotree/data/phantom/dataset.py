"""A phantom set on disk: images, masks and the manifest; drawn in parallel, continued when interrupted."""

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
"""Version of the pictures: raise it when the same seed draws something else, so that no set mixes two."""


@dataclass(frozen=True)
class Row:
    """One image of a set."""

    patient: int
    image: int
    leaf: str

    @property
    def patient_id(self) -> str:
        """Name of the patient and of its folder."""
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
    """What a phantom set is made of; equal plans give equal bytes."""

    patients: int
    per_patient: int
    size: int
    seed: int
    drawing: int = DRAWING

    def __post_init__(self) -> None:
        leaves = len(Taxonomy.paper().leaves)
        for name, least, why in (
            ("patients", leaves, f"each of the {leaves} leaves needs a patient"),
            ("per_patient", 1, "a patient needs an image"),
            ("size", 32, "smaller images show no cell"),
            ("seed", 0, "seeds are not negative"),
        ):
            if (value := getattr(self, name)) < least:
                raise InputError(f"phantom: {name} is {value}; give at least {least}: {why}")

    def rows(self) -> Iterator[Row]:
        """The images of the set, patient by patient; the leaves are dealt in turn."""
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
    """Draw a phantom set into the folder `out` and return its manifest's path; `workers` counts processes.

    Writes `images/<patient>/<nnn>.jpg` (size x size), `masks/<patient>/<nnn>.png` (255 where the white cell
    is, else 0) and, last, `manifest.csv`. The same arguments give the same bytes for any number of workers,
    and continue or keep what is there. Raises InputError for a bad value, or when the folder holds anything
    else.
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
    """The pixels (size, size, 3) uint8 and the mask (size, size) bool of one image, a pure function of plan
    and row."""
    slide = Slide.sample(np.random.default_rng(np.random.SeedSequence(plan.seed, spawn_key=(row.patient,))))
    return draw(
        row.leaf,
        slide,
        np.random.SeedSequence(plan.seed, spawn_key=(row.patient, row.image)),
        plan.size,
        with_cell,
    )


def _write_image(task: tuple[Path, Plan, Row]) -> None:
    out, plan, row = task
    pixels, mask = render(plan, row)
    jpeg, png = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=95, subsampling=0)
    Image.fromarray(mask.astype(np.uint8) * 255).save(png, "PNG")
    for name, file in zip(row.files, (jpeg, png), strict=True):
        write_atomic(out / name, file.getvalue())


def _claim(out: Path, plan: Plan) -> None:
    """Make the folder this set's own, or raise InputError if something else lives there."""
    identity = out / IDENTITY
    try:
        out.mkdir(parents=True, exist_ok=True)
        # A hidden file may be what an interrupted write left behind.
        empty = all(entry.name.startswith(".") for entry in out.iterdir())
        if empty:
            write_atomic(identity, json.dumps(asdict(plan)) + "\n")
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from error
    try:
        found = json.loads(identity.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{out}: is not empty and holds no phantom set; give an empty or new folder"
        ) from error
    wanted = asdict(plan)
    if found != wanted:
        had = found if isinstance(found, dict) else {}
        other = ", ".join(
            f"{key} {had.get(key)} instead of {value}"
            for key, value in wanted.items()
            if had.get(key) != value
        )
        raise InputError(
            f"{identity}: here is a set with {other or 'more keys'}; give another folder or the same arguments"
        )


@contextmanager
def _processes(count: int) -> Iterator:
    """A `map` over fresh processes (or this one, for a single worker) that drops what is queued when its
    block fails."""
    if count <= 1:
        yield map
        return
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield lambda function, tasks: pool.map(function, tasks, chunksize=4)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
