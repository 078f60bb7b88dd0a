"""Features once: a frozen backbone computes the features of all images and views, and heads train on them.

They are kept in one file for all runs, trials, folds and seeds that have the same data set, weights, views
and precision. The first run that needs them makes the file, and others wait for it. A kill loses one chunk.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from leukotree import files, progress, signals
from leukotree.data import augment, featurefile
from leukotree.data.featurefile import FeatureFile, Shape, Writer
from leukotree.data.remote import address, scratch
from leukotree.data.stream import Batch, Loader
from leukotree.data.views import Views
from leukotree.distributed.engine import Engine, start
from leukotree.errors import Busy, InputError, PeerFailed, Preempted, RunFailed
from leukotree.log import logger
from leukotree.models import pretrained, trained_part
from leukotree.models.classifier import Classifier, build, normalisation
from leukotree.models.streams import Streams
from leukotree.records import compared
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training.pixels import open_loader
from leukotree.training.plan import Plan, check

_VERSION = 1
"""Raised when this code decodes, augments or normalises images in another way."""
_PACKAGES = ("torch", "timm", "simplejpeg", "opencv-python-headless")
"""What computes features, and decodes and crops images."""
SHOWN_S = 120.0
"""Most seconds until all nodes see a file that one has written."""
_NOT_WRITABLE = (errno.EEXIST, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)
_digests: dict[str, str] = {}
"""Key of features -> the digest of the backbone that computes them, as far as this process has built it."""
_BUSY = "another process computes these features"


def prepare(spec: RunSpec, root: Path, runtime: Runtime) -> None:
    """Compute the features of a run if they are not stored. Arguments and errors as for `stored`."""
    scratch.use(runtime.scratch, runtime.scratch_gb)
    address.trust(spec.data.shards)  # as in `run`: a person has started it
    plan = check(spec)
    with start(runtime) as engine:
        stored(plan, root, engine, runtime)


def key(plan: Plan, device: str) -> str:
    """24 hex digits of all that decides the features of a run's images on a device, such as "cpu"."""
    spec, dataset = plan.spec, plan.dataset
    weights: object = compared.fingerprints(spec, dataset).get(compared.WEIGHTS)
    if weights is None:  # drawn at random
        weights = Streams(spec, plan.stages[0].stage).backbone
    decides = {
        "version": _VERSION,
        "samples": dataset.samples,
        "size": dataset.size,
        "backbone": [spec.backbone.name, pretrained.digest(spec.backbone.name), weights],
        "precision": spec.engine.precision,
        "views": spec.augment.model_dump(mode="json") if spec.augment.views else 0,
        "chunk": featurefile.CHUNK,
        "device": device,
        "packages": [metadata.version(name) for name in _PACKAGES],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:24]


def found(spec: RunSpec, roots: Iterable[Path], device: str) -> FeatureFile | None:
    """The features of a run's data set as they were stored below one of some folders; None where they are not
    there, or the data set or the weights are not."""
    try:
        plan = check(spec)
        whole = (_whole(_path(plan, device, root, Runtime()), *_size(plan)) for root in roots)
        return next(filter(None, whole), None)
    except (InputError, RunFailed):
        return None


def backbone_digest(plan: Plan) -> str:
    """The digest of the frozen backbone of a run, see `trained_part.digest`. Who uses the heads builds the
    backbone again, perhaps with another version of torch or timm."""
    name = key(plan, "cpu")
    if name not in _digests:
        _note(name, _model(plan))
    return _digests[name]


def _model(plan: Plan) -> Classifier:
    stage = plan.stages[0]
    return build(plan.spec, stage.stage, plan.dataset.size, stage.levels)


def _note(name: str, model: Classifier) -> None:
    _digests[name] = trained_part.digest(model.backbone.state_dict())


def ready(spec: RunSpec, root: Path, runtime: Runtime) -> bool:
    """Whether a run needs no features here, or has all of them stored. Their checksums are not compared."""
    if not spec.on_features:
        return True
    plan = check(spec)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if runtime.device == "auto" else runtime.device
    file = featurefile.opened(_path(plan, device, root, runtime), *_size(plan))
    return file is not None and file.complete


def stored(plan: Plan, root: Path, engine: Engine, runtime: Runtime) -> FeatureFile:
    """The features of all images of a run's data set. They are computed if they are not stored.

    Every rank calls it. The ranks share the work, and the main rank writes.

    Args: root: the folder of the runs.

    Raises Preempted when it is asked to stop: what is computed is kept. Raises RunFailed of the kind "disk"
    where there is no room.
    """
    path, size = _path(plan, engine.device.type, root, runtime), _size(plan)
    if not all(engine.gather(_whole(path, *size) is not None)):
        with _turn(path, engine):
            _checked.cache_clear()  # a file system may have coarse times
            if not engine.gather(_whole(path, *size) is not None)[0]:
                with open_loader(plan.dataset, engine, runtime) as pixels:
                    _compute(plan, path, pixels, engine, runtime)
    return _shown(path, size, engine)


def _shown(path: Path, size: tuple[int, int], engine: Engine) -> FeatureFile:
    """The file that the main rank knows to be whole, once every rank sees it: NFS shows it later on other
    nodes."""
    began = time.monotonic()
    while True:
        if (whole := _whole(path, *size)) is None:
            _checked.cache_clear()
            whole = _whole(path, *size)
        seen, late = zip(*engine.gather((whole is not None, time.monotonic() > began + SHOWN_S)), strict=True)
        if whole is not None and all(seen):
            return whole
        if late[0] or not seen[0]:
            raise RunFailed(
                f"{path}: the features are damaged although they were written; check the disk", "disk"
            )
        time.sleep(1.0)


def _path(plan: Plan, device: str, root: Path, runtime: Runtime) -> Path:
    folder = runtime.features or root / featurefile.FOLDER
    return folder / (key(plan, device) + featurefile.SUFFIX)


def _size(plan: Plan) -> tuple[int, int]:
    """The numbers of images and of views."""
    return len(plan.dataset), (plan.spec.augment.views or 0) + 1


def _whole(path: Path, images: int, views: int) -> FeatureFile | None:
    """The file, if all chunks are there and sound."""
    try:
        state = path.stat()
    except OSError:
        return None
    return _checked(path, images, views, (state.st_ino, *files.state(state)))


@functools.lru_cache(maxsize=4)
def _checked(path: Path, images: int, views: int, state: tuple[int, ...]) -> FeatureFile | None:
    """`_whole`, once for each state of the file in this process: it reads all of it."""
    file = featurefile.opened(path, images, views)
    return None if file is None or file.missing() else file


@contextlib.contextmanager
def _turn(path: Path, engine: Engine) -> Iterator[None]:
    """The context in which the main rank holds the lock of the file. Until then all ranks wait together.
    Raises Preempted."""
    with contextlib.ExitStack() as stack:
        said = False
        while True:
            busy = engine.gather(_try(path, stack) if engine.is_main else None)[0]
            if busy is None:
                break
            if engine.is_main and not said:
                logger.info(f"{path}: {busy}; waits for it")
                said = True
            _stop_together(engine, "waited for the features that another process computes")
            time.sleep(1.0)
        yield


def _try(path: Path, stack: contextlib.ExitStack) -> str | None:
    """Hold the lock of the file in `stack`. Returns None, or who else holds it. Raises InputError where the
    folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(files.locked(path.with_suffix(".lock"), _BUSY))
    except Busy as busy:
        return str(busy)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise InputError(
            f"{path.parent}: features cannot be written there ({error.strerror}); make it a folder that you "
            "may write to"
        ) from error
    return None


def _stop_together(engine: Engine, done: str) -> None:
    """Raises Preempted on every rank if one of them is asked to stop."""
    if any(engine.gather(signals.requested())):
        raise Preempted(f"asked to stop, {done}; run it again to continue", signals.reason())


def _compute(plan: Plan, path: Path, pixels: Loader, engine: Engine, runtime: Runtime) -> None:
    """Write the chunks that are missing."""
    spec, model = plan.spec, _model(plan)
    _note(key(plan, "cpu"), model)
    model = model.to(engine.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    shape = Shape(*_size(plan), model.features)
    file, missing = _begun(path, shape, engine)
    mine = missing[engine.rank :: engine.world]
    views = Views.of(spec.augment, plan.dataset.size)
    assert views is not None
    batches = pixels.see([shape.rows(chunk) for chunk in mine], views)
    quiet = runtime.quiet or not engine.is_main
    title, total = f"features of {plan.dataset.name}", shape.images * shape.views
    done = total - sum(len(shape.rows(chunk)) for chunk in missing) * shape.views
    with (
        file.writing() if engine.is_main else contextlib.nullcontext() as writer,
        progress.Bar(title, total, "image", done=done, quiet=quiet) as bar,
    ):
        for number in range(-(-len(missing) // engine.world)):
            own = None
            if number < len(mine):
                own = mine[number], _features(islice(batches, shape.views), model, spec, engine)
            computed = [part for part in engine.gather(own) if part is not None]
            _put(computed, writer, engine)
            done += sum(len(values) for _, values in computed) * shape.views
            bar.at(done)
            _stop_together(engine, f"{done} of {total} features are kept")


def _begun(path: Path, shape: Shape, engine: Engine) -> tuple[FeatureFile, list[int]]:
    """The file, and its chunks that are missing. The main rank makes it if it is not there."""
    missing: list[int] = []
    if engine.is_main:
        file = featurefile.opened(path, shape.images, shape.views)
        if file is None or file.shape != shape:
            file = _made(path, shape)
        missing = file.missing()
    return FeatureFile(path, shape), engine.gather(missing)[0]


def _made(path: Path, shape: Shape) -> FeatureFile:
    try:
        return featurefile.made(path, shape)
    except OSError as error:
        if not files.is_full(error):
            raise
        size = f"{shape.bytes / 1e6:,.0f} MB"
        raise RunFailed(
            f"{path.parent}: no room for {size} of features; make room and run it again", "disk"
        ) from error


def _put(computed: list[tuple[int, np.ndarray]], writer: Writer | None, engine: Engine) -> None:
    """Write chunks on the main rank. Its error ends all ranks."""
    problem: OSError | None = None
    try:
        for chunk, values in computed:
            if writer is not None:
                writer.put(chunk, values)
    except OSError as error:
        problem = error
    if engine.gather(problem is not None)[0]:
        raise problem or PeerFailed("the main rank could not write the features")


@torch.inference_mode()
def _features(batches: Iterable[Batch], model: Classifier, spec: RunSpec, engine: Engine) -> np.ndarray:
    """(b, V, F) float32 features of images in V views, one batch each."""
    mean, std = (engine.put(value) for value in normalisation(model))
    parts = []
    for batch in batches:
        numbers = None if batch.numbers is None else engine.put(batch.numbers)
        inputs = augment.to_input(engine.put(batch.images), numbers, spec.augment, mean, std)
        with engine.autocast(spec.engine):
            parts.append(model.backbone(inputs).float())
    return torch.stack(parts, dim=1).cpu().numpy()
