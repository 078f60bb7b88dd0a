"""A study or spec on this cluster: its data set, its weights, and the disk space that its runs need."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpc.finding import Finding, State
from hpc.launching.results_folder import TEMPORARY
from leukotree.errors import InputError, RunFailed
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    from leukotree.data.dataset import Dataset

READ_S = 1.5
"""Seconds for which shards are read."""
SLOW = 200.0
"""Images/s. Below this a process waits for its shards, however fast it decodes."""


@dataclass(frozen=True)
class Work:
    """What will run, as far as the checks depend on it."""

    specs: Sequence[RunSpec]
    """One spec for each choice of model, data and weights."""
    runs: int
    """Number of run folders in the end."""
    at_once: int
    """Largest number of runs that train at the same time."""
    on_trees: Sequence[RunSpec] = ()
    """One spec for each choice of data and label tree that is not that of the data."""


def data(work: Work, read: bool) -> Iterator[Finding]:
    """Open each data set. With `read`, also read it for a moment as training does: in random order, by
    several threads."""
    from leukotree.data.dataset import Dataset

    for folder, repeat in dict.fromkeys((spec.data.shards, spec.data.repeat) for spec in work.specs):
        try:
            dataset = Dataset.open(folder, repeat=repeat)
            described = f"{folder}: {len(dataset)} images of {dataset.size} px in {dataset.folds} folds"
            described += f", the deal of repeat {repeat}" if repeat else ""
            yield Finding("ok", "data", f"{described}, fingerprint {dataset.fingerprint[:12]}")
            if read and not repeat:
                yield _rate(dataset)
        except (InputError, RunFailed) as error:
            yield Finding("FAIL", "data", str(error))


def trees(work: Work) -> Iterator[Finding]:
    """Whether each label tree that is not that of the data can be read, and has its leaves."""
    from leukotree.data import trees as of_data

    for spec in work.on_trees:
        try:
            taxonomy = of_data.open_data(spec).taxonomy
        except (InputError, RunFailed) as error:
            yield Finding("FAIL", "tree", str(error))
        else:
            counts = f"{len(taxonomy.leaves)} leaves, {len(taxonomy.decisions)} decisions"
            yield Finding("ok", "tree", f"{spec.tree} over {spec.data.shards}: {counts}")


def _rate(dataset: Dataset) -> Finding:
    rows = np.random.default_rng(0).permutation(len(dataset)).tolist()
    began = time.perf_counter()
    sizes: list[int] = []
    with ThreadPoolExecutor(4, "read") as pool:
        for start in range(0, len(rows), 64):
            sizes += [len(jpeg) for jpeg in pool.map(dataset.read, rows[start : start + 64])]
            if time.perf_counter() - began > READ_S:
                break
    took = time.perf_counter() - began
    measured = (
        f"{len(sizes) / took:.0f} images/s, {sum(sizes) / took / 1e6:.0f} MB/s in {len(sizes)} "
        "reads; each is what was packed"
    )
    if len(sizes) / took < SLOW:
        return Finding(
            "warn",
            "shards",
            measured,
            "copy them to a faster disk, or keep them decoded: --cache DIR on the node",
        )
    return Finding("ok", "shards", measured)


def weights(work: Work, on_slurm: bool) -> Iterator[Finding]:
    """Whether pretrained weights are on this machine. Most compute nodes have no internet."""
    from leukotree.models import backbones, pretrained

    for backbone in dict.fromkeys(spec.backbone for spec in work.specs):
        try:
            backbones.check(backbone)
            file = pretrained.file(backbone)
        except pretrained.Missing as error:
            state: State = "FAIL" if on_slurm else "warn"
            measured, _, fix = str(error).partition("; ")
            yield Finding(state, "weights", measured, fix, certain=False)
        except InputError as error:
            yield Finding("FAIL", "backbone", str(error))
        else:
            start = "starts at random" if file is None else f"{file}, tensors only"
            yield Finding("ok", "weights", f"{backbone.name}: {start}")


def room(work: Work | None, folder: Path) -> Iterator[Finding]:
    """Whether the results folder has the bytes and inodes that the runs need, and the temporary folder the
    bytes."""
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    free = os.statvfs(place)
    bytes_free, files_free = free.f_bavail * free.f_frsize, free.f_favail
    try:
        needed, files, what = _needed(work) if work else (2**30, 1000, "a start")
    except InputError as error:
        yield Finding("FAIL", "backbone", str(error))
        return
    measured = f"{_size(bytes_free)} free in {place}, {what} takes {_size(needed)} at most"
    if bytes_free < needed:
        yield Finding("FAIL", "room", measured, "make room, or run elsewhere")
    else:
        yield Finding("ok", "room", measured)
    if free.f_files:  # some file systems do not count
        measured = f"{files_free} inodes free in {place}, {what} takes {files}"
        fits = files_free >= files
        yield Finding(
            "ok" if fits else "FAIL",
            "inodes",
            measured,
            "" if fits else "remove files, or ask for a larger quota",
        )
    temporary = Path(tempfile.gettempdir())
    left = os.statvfs(temporary)
    if left.f_bavail * left.f_frsize < TEMPORARY:
        measured = f"{_size(left.f_bavail * left.f_frsize)} free in {temporary}"
        yield Finding("warn", "temporary folder", measured, f"make {_size(TEMPORARY)} of room, or set TMPDIR")
    else:
        yield Finding("ok", "temporary folder", f"{_size(left.f_bavail * left.f_frsize)} free in {temporary}")


def _needed(work: Work) -> tuple[int, int, str]:
    """(bytes, inodes, description) of all runs."""
    from leukotree.data import trees
    from leukotree.training import questions
    from leukotree.training.footprint import FILES, footprint

    ask = questions.kept()
    sizes = [footprint(spec, trees.open_data(spec), ask) for spec in work.specs]
    working, final = max(one.working for one in sizes), max(one.final for one in sizes)
    at_once = min(work.at_once, work.runs)
    millions = max(one.parameters for one in sizes) / 1e6
    name = f"{work.runs} run(s) of {millions:.1f} M parameters"
    return at_once * working + work.runs * final, work.runs * FILES, name


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
