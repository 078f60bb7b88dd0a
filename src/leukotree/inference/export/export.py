"""Write the folder of an export: everything is written beside its place, compared with the run, and moved."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from leukotree import files
from leukotree.data.dataset import Dataset
from leukotree.data.images import codec
from leukotree.data.images.formats import IMAGE_SUFFIXES, BrokenImage
from leukotree.errors import Busy, InputError, RunFailed, one_line
from leukotree.inference.export import agreement, card, pieces, program
from leukotree.inference.loaded import LoadedRun
from leukotree.progress import step
from leukotree.report import scorecard
from leukotree.report.summary import StudySummary

SUMS, CARD, MODEL = "SHA256SUMS", "README.md", "model.json"
SCRIPTS = Path(__file__).with_name("scripts")
IMAGES = 64
"""Images on which an export is compared with its run."""


@dataclass(frozen=True)
class Exported:
    """A written export."""

    folder: Path
    differences: dict[str, float] = field(default_factory=dict)
    """File -> its largest difference from the run."""
    checked: str = ""
    """What it was compared on."""


def export(
    run: LoadedRun, out: Path, summary: StudySummary | None = None, images: Path | None = None
) -> Exported:
    """Write a run into the new folder `out`: ONNX, torch.export, timm's weights, a card and scripts.

    Args:
        summary: the study of the run, whose report's scores the card has. None for the run alone.
        images: a folder of image files to compare on. None for images of the run's test fold.

    Raises InputError for a folder that is there, and for images that are not; RunFailed where a file gives
    other answers than the run. Then, and after an interruption, `out` is not there.
    """
    out = Path(out)
    if run.spec.variant == "neighbours":
        raise InputError(
            f"{run.folder}: neighbours asks the training images, and has no weights to export; name a run of "
            "logistic or flat"
        )
    program.require_packages()
    if summary is None and run.spec.data.all_folds:
        raise InputError(f"{run.folder}: was trained on all folds, and has no scores; name its study's file")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out}: is there already; name a new folder, or remove it")
    files.require_writable(out)
    pixels, checked = _images(run, images)
    with _beside(out) as folder:
        step("writing the weights for timm")
        rows = pieces.write(run, folder / "timm")
        step("writing the ONNX and torch.export programs")
        program.write(program.Program(run), run.prepared.size, folder)
        step(f"comparing with the run on {checked}")
        differences = agreement.check(run, pixels, folder, rows)
        step("writing the card")
        facts = card.model_json(run, rows)
        (folder / MODEL).write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
        for script in sorted(SCRIPTS.glob("*.py")):
            shutil.copyfile(script, folder / script.name)
        known = _facts(run, summary, differences, checked, _rounding(run, pixels))
        (folder / CARD).write_text(card.text(run, known, _digests(folder)), encoding="utf-8")
        (folder / SUMS).write_text(_sums(_digests(folder)), encoding="utf-8")
    return Exported(out, differences, checked)


def _facts(
    run: LoadedRun,
    summary: StudySummary | None,
    differences: Mapping[str, float],
    checked: str,
    rounding: float | None,
) -> card.Facts:
    """Raises InputError where the study has no such run."""
    of = scorecard.of_run(run.folder, run.spec) if summary is None else summary
    refit = run.spec.data.all_folds
    arm = scorecard.arm_of_variant(of, run.spec.variant) if refit else scorecard.arm_of(of, run.folder.name)
    if arm is None:
        raise InputError(f"{run.folder}: is none of the runs that the study {of.name} expects today")
    return card.Facts(
        study=of.name,
        tables=scorecard.tables(of, arm),
        scored=card.scored(of, arm.name, run, alone=summary is None),
        warnings=scorecard.warnings(of),
        summary=of,
        agreement=differences,
        checked=checked,
        rounding=rounding,
    )


def _rounding(run: LoadedRun, images: np.ndarray) -> float | None:
    if run.spec.engine.precision == "fp32":
        return None
    own = agreement.leaves(run.predict(images), run.taxonomy)
    return agreement.difference(agreement.expected(run, images)[1], own)


def _images(run: LoadedRun, folder: Path | None) -> tuple[np.ndarray, str]:
    """((N, 3, H, W) uint8 images, what they are). Raises InputError where there are none."""
    if folder is not None:
        return _of_folder(run, folder)
    data = run.spec.data
    try:
        dataset = Dataset.open(data.shards, repeat=data.repeat)
    except InputError as error:
        fix = "name a folder of images to compare on with --images"
        raise InputError(f"{one_line(error)}; or {fix}") from error
    rows = np.arange(len(dataset))
    if not data.all_folds:
        rows = np.flatnonzero(dataset.index["fold"] == data.test_fold)
    if dataset.size != run.prepared.size or not len(rows):
        raise InputError(
            f"{data.shards}: has no images of {run.prepared.size} pixels in fold {data.test_fold}; name a "
            "folder of images to compare on with --images"
        )
    some = rows[np.linspace(0, len(rows) - 1, min(IMAGES, len(rows))).astype(int)]
    pixels = np.stack([dataset.image(int(row)) for row in some])
    where = "all folds" if data.all_folds else f"test fold {data.test_fold}"
    return pixels.transpose(0, 3, 1, 2), f"{len(some)} images of {where}"


def _of_folder(run: LoadedRun, folder: Path) -> tuple[np.ndarray, str]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES][:IMAGES]
    if not paths:
        raise InputError(f"{folder}: holds no images")
    squares = []
    for path in paths:
        try:
            squares.append(codec.decode(codec.square(path, run.prepared.size, run.prepared.quality)))
        except BrokenImage as error:
            raise InputError(f"{path}: {error}") from error
    return np.stack(squares).transpose(0, 3, 1, 2), f"{len(paths)} images of {folder.name}"


@contextlib.contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, which becomes `out` at the end, and is removed after an error.

    What an export that was killed left there is removed first. Raises Busy if another export writes it.
    """
    partial = out.absolute().with_name(f".{out.absolute().name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{out}: another export writes this folder; wait for it") from None
        _empty(partial)
        try:
            yield partial
            os.rename(partial, out)
        except BaseException as error:
            full = files.full_disk(partial.parent)
            shutil.rmtree(partial, ignore_errors=True)
            # torch and safetensors have errors of their own for a full disk.
            if full and isinstance(error, Exception) and not isinstance(error, InputError | RunFailed):
                raise RunFailed(f"{full}: no room left on its disk; make room and run it again") from error
            raise
    finally:
        os.close(lock)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _digests(folder: Path) -> dict[str, str]:
    """Path below the folder -> sha256, of all files."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): files.sha256(path) for path in paths}


def _sums(digests: Mapping[str, str]) -> str:
    """What `sha256sum -c` reads."""
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items())
