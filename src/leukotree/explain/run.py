"""Explain a finished run: its test images, or those of another data set. Finished parts are kept, so the same
call continues, and does nothing where everything is done."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from leukotree import csvfile, files, progress, seeds, signals
from leukotree.data import masks as mask_files
from leukotree.data import unpacked
from leukotree.data.dataset import Dataset
from leukotree.data.masks import Masks
from leukotree.data.stream import Loader
from leukotree.data.trees import open_data
from leukotree.distributed.engine import Engine
from leukotree.errors import InputError, Preempted, RunFailed
from leukotree.evaluation import decide, difficult
from leukotree.explain import maps, panels, table
from leukotree.explain.table import Explainer, Images
from leukotree.inference.loaded import LoadedRun, load
from leukotree.records import compared, explanations, predictions, runfolder
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

VERSION = 1
"""Changes with the meaning of a measure. Parts of another version are not used."""
CHUNK = 16
"""Images of a part."""
SLOW = {"scorecam": 8}
"""Method -> one of how many images it is used on: it needs a pass for each channel."""


@dataclass(frozen=True)
class Settings:
    """How much is explained."""

    images: int = 200
    """At most so many images of a run, in a random order that is the same for all runs of a fold."""
    methods: tuple[str, ...] = tuple(maps.METHODS)
    """Those that suit no backbone of the run are left out."""
    road: int = 16
    """ROAD on so many of them."""
    panels: int = difficult.MOST
    """Pictures of so many of them, and of so many confident errors and near ties of the run."""
    workers: int = 1
    """Decoding threads."""


@dataclass(frozen=True)
class Explained:
    """What a run was explained with."""

    run: Path
    table: Path
    images: int
    with_mask: int
    computed: int
    """Parts that were computed now."""
    frame: pd.DataFrame
    """The table."""
    left_out: tuple[str, ...]
    """Methods that do not suit the run."""
    pictures: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class _Work:
    """The images to explain of one run."""

    folder: Path
    spec: RunSpec
    dataset: Dataset
    rows: np.ndarray
    """(N,) rows of the data set's index, in the order in which they are explained."""
    masks: Masks | None
    name: str
    """Of the other data set; "" for the run's own test images."""

    @cached_property
    def identity(self) -> str:
        stored = files.sha256(self.folder / runfolder.PREDICTIONS)
        return _digest(VERSION, stored, self.dataset.fingerprint)

    def chunks(self, count: int) -> list[np.ndarray]:
        """The first `count` rows in parts of CHUNK."""
        return [self.rows[start : min(start + CHUNK, count)] for start in range(0, count, CHUNK)]

    def part(self, method: str, number: int, rows: np.ndarray, with_road: int) -> Path:
        """The file of a part."""
        masked = self.masks.digest(rows.tolist()) if self.masks else ""
        keys = self.dataset.index["key"].iloc[rows].tolist()
        content = _digest(keys, masked, with_road)
        return explanations.part(self.folder, self.identity, method, number, content)


def explain(
    folder: Path,
    settings: Settings,
    engine: Engine,
    masks: Path | None = None,
    other: Path | None = None,
) -> Explained:
    """Explain a finished run of an outer fold, and write its table (see `records.explanations`).

    Args:
        masks: the manifest that names the masks of the images; None for no masks. Without them there are no
            measures of the fit, only ROAD, stability and the comparison with random weights.
        other: the images of this packed data set or manifest, instead of the run's own test images.

    Raises InputError as `inference.load`, for data that are not those of the run, for masks that are none of
    these images, and for a folder that cannot be written; Busy if another process explains this run; and
    Preempted after a signal to stop.
    """
    folder = Path(folder)
    loaded = load(folder, engine)  # also says what is wrong with a run that cannot be explained
    work = _work(folder, loaded, settings, masks, other)
    place = folder / explanations.FOLDER
    try:
        place.mkdir(exist_ok=True)
        busy = f"{folder}: another process explains this run; wait for it"
        with files.locked(place / explanations.LOCK, busy):
            return _explain(work, loaded, settings)
    except OSError as error:
        if files.is_full(error):
            raise RunFailed(
                f"{folder}: no room left on its disk; make room and run it again", "disk"
            ) from error
        raise InputError(f"{place}: cannot be written: {error.strerror or error}") from error


def _explain(work: _Work, loaded: LoadedRun, settings: Settings) -> Explained:
    explainer = Explainer(loaded)
    methods = [method for method in settings.methods if maps.suits(method, explainer.views)]
    counts = {method: -(-len(work.rows) // SLOW.get(method, 1)) for method in methods}
    counts[explanations.CENTRE] = len(work.rows)
    plan = [
        (number, rows, method, with_road)
        for method, count in counts.items()
        for number, rows in enumerate(work.chunks(count))
        for with_road in [min(max(settings.road - number * CHUNK, 0), len(rows))]
    ]
    plan.sort(key=lambda entry: entry[0])  # stable: all methods of a chunk together
    parts = {(method, number): work.part(method, number, rows, road) for number, rows, method, road in plan}
    todo = [entry for entry in plan if not parts[entry[2], entry[0]].exists()]
    with (
        Loader(work.dataset, workers=settings.workers) as loader,
        progress.Bar(f"explain {work.folder.name}", len(plan), "part", done=len(plan) - len(todo)) as bar,
    ):
        for number, rows, method, with_road in todo:
            if signals.requested():
                raise Preempted(f"{work.folder}: {bar.done} of {len(plan)} parts are explained")
            frame = _measured(work, explainer, loader, method, number, rows, with_road)
            explanations.write(parts[method, number], [frame])
            bar.advance()
        pictures = _pictures(work, explainer, loader, settings, again=bool(todo))
    return _finished(work, parts, len(todo), pictures, set(settings.methods) - set(methods))


def _finished(
    work: _Work,
    parts: dict[tuple[str, int], Path],
    computed: int,
    pictures: Sequence[Path],
    left_out: set[str],
) -> Explained:
    """Write the table of the parts, unless it is there."""
    ordered = [parts[place] for place in sorted(parts)]
    path = explanations.table(work.folder, work.name)
    frame = pd.concat([explanations.read(part) for part in ordered], ignore_index=True)
    if computed or not path.exists() or not explanations.read(path).equals(frame):
        explanations.write(path, [frame])
    masked = sum(int(row) in work.masks.files for row in work.rows) if work.masks else 0
    return Explained(
        work.folder, path, len(work.rows), masked, computed, frame, tuple(sorted(left_out)), tuple(pictures)
    )


def _measured(
    work: _Work,
    explainer: Explainer,
    loader: Loader,
    method: str,
    number: int,
    rows: np.ndarray,
    with_road: int,
) -> pd.DataFrame:
    """The rows of a part. They are a function of the run, the images, the masks and the method."""
    seed = seeds.integer(work.spec.seed, "explain/part", number)
    images = _images(work, loader, rows)
    decided = explainer.decided(images.pixels)
    random = [] if method == explanations.CENTRE else explainer.randomised(seed)
    frame = table.rows(explainer, method, images, decided, random, seed, with_road)
    index = work.dataset.index.iloc[rows]
    place = frame.pop("image").to_numpy()
    known = {name: index[name].to_numpy()[place] for name in ("key", "source", "leaf")}
    patient = work.dataset.persons.to_numpy()[rows][place]
    return frame.assign(run=work.folder.name, patient=patient, **known)


def _images(work: _Work, loader: Loader, rows: np.ndarray) -> Images:
    (batch,) = loader.evaluate(rows, len(rows))
    size = work.dataset.size
    empty = np.zeros((len(rows), size, size), bool)
    masks = np.stack([work.masks.read(row) for row in rows.tolist()]) if work.masks else empty
    return Images(batch.images, masks)


def _pictures(
    work: _Work, explainer: Explainer, loader: Loader, settings: Settings, *, again: bool
) -> list[Path]:
    """Write the panels that are not there; all of them `again`, as after other masks."""
    written = []
    method = settings.methods[0]
    for row in _pictured(work, settings.panels) if maps.suits(method, explainer.views) else ():
        key = str(work.dataset.index["key"].iloc[row])
        name = f"{work.name}-{key}" if work.name else key
        path = explanations.panels(work.folder) / work.identity / f"{method}-{name}.png"
        if again or not path.exists():
            images = _images(work, loader, np.array([row]))
            leaf = str(work.dataset.index["leaf"].iloc[row])
            files.write_atomic(path, panels.draw(explainer, method, images, leaf))
        written.append(path)
    return written


def _pictured(work: _Work, count: int) -> list[int]:
    """The rows of the first `count` images, then those of the run's most difficult test images."""
    rows = work.rows[:count].tolist()
    if work.name or not count:
        return rows
    images, logp, taxonomy = predictions.read(work.folder)
    true = np.array([taxonomy.leaves.index(leaf) for leaf in images["leaf"]])
    decided = decide.greedy(logp, taxonomy)
    answers = difficult.answers(images["key"].to_numpy(), true, decided, logp, taxonomy)
    keys = difficult.chosen(answers, count)["key"]
    return list(dict.fromkeys([*rows, *pd.Index(work.dataset.index["key"]).get_indexer(keys).tolist()]))


def _work(
    folder: Path, loaded: LoadedRun, settings: Settings, masks: Path | None, other: Path | None
) -> _Work:
    """The images to explain. Raises InputError as `explain`."""
    spec = loaded.spec
    if other is None:
        if spec.data.all_folds:
            raise InputError(
                f"{folder}: was trained on all folds, so it has no test images; name another data set with "
                "--data"
            )
        if change := compared.changed(folder, compared.Inputs.of(spec)):
            raise InputError(f"{folder}: {change}")
        dataset, name = open_data(spec), ""
        rows = np.flatnonzero(dataset.index["fold"] == spec.data.test_fold)
    else:
        dataset, name = _other(other, loaded), explanations.name_of(other)
        rows = _unknown(folder, spec, loaded, dataset)
    order = seeds.generator(0, "explain", spec.data.test_fold, spec.data.repeat).permutation(len(rows))
    rows = rows[order]
    known = mask_files.match(masks, dataset) if masks else None
    if known:
        has_mask = np.array([int(row) in known.files for row in rows], bool)
        rows = rows[np.argsort(~has_mask, kind="stable")]  # those with a mask first
    rows = rows[: settings.images]
    if known:
        known, wrong = mask_files.verified(known, dataset, rows.tolist())
        _tell_of_masks(folder, known, wrong, len(rows))
    return _Work(folder, spec, dataset, rows, known, name)


def _tell_of_masks(folder: Path, masks: Masks, wrong: int, images: int) -> None:
    """Say which masks do not count. Raises InputError if none does."""
    other = f"{wrong} of its masks belong to images of other bytes than the shards have" if wrong else ""
    if not masks.files:
        reason = other or "it names no mask of these images"
        raise InputError(
            f"{masks.manifest}: {reason} ({folder.name}); give the manifest that the images were packed from"
        )
    lacking = images - len(masks.files)
    if lacking:
        more = f"; {other}" if other else ""
        progress.say(
            f"leukotree explain: {folder.name}: {lacking} of {images} images have no mask in {masks.manifest}"
            f"{more}; they count for ROAD and stability only"
        )


def _other(path: Path, loaded: LoadedRun) -> Dataset:
    """A packed data set, or the images of a manifest in the size of the run's."""
    if path.is_dir() or path.suffix.lower() not in (*csvfile.ENDINGS, ".parquet"):
        return Dataset.open(path)
    prepared = loaded.prepared
    return _of_manifest(path.resolve(), files.state(path.stat()), prepared.size, prepared.quality)


@functools.lru_cache(maxsize=1)  # the next run of a study has the same images
def _of_manifest(path: Path, state: tuple[int, ...], size: int, quality: int) -> Dataset:
    return unpacked.open_manifest(path, size, quality, Taxonomy.paper())


def _unknown(folder: Path, spec: RunSpec, loaded: LoadedRun, other: Dataset) -> np.ndarray:
    """The rows of another data set whose images are not in the run's own. Raises InputError if it has images
    of another size, or none that are new."""
    if other.size != loaded.prepared.size:
        raise InputError(
            f"{other.folder}: has images of {other.size} pixels, {folder} was trained on "
            f"{loaded.prepared.size}; pack it with --size {loaded.prepared.size}"
        )
    try:
        own = set(open_data(spec).index["sha256"])
    except InputError:
        progress.say(
            f"leukotree explain: {spec.data.shards} is not here, so whether {other.folder} has training "
            f"images of {folder.name} is not known"
        )
        own = set()
    rows = np.flatnonzero(~other.index["sha256"].isin(own))
    if not len(rows):
        raise InputError(
            f"{other.folder}: all of its images are in the data set of {folder}; leave --data out to explain "
            "its test images"
        )
    return rows


def _digest(*content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]
