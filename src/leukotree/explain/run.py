"""Explain a finished run: its test images, or those of another data set. Finished parts are kept, so the same
call continues, and does nothing where everything is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from leukotree import files, progress, seeds, signals
from leukotree.data.stream import Loader
from leukotree.distributed.engine import Engine
from leukotree.errors import InputError, Preempted, RunFailed
from leukotree.evaluation import decide, difficult
from leukotree.explain import maps, panels, table
from leukotree.explain import work as of_run
from leukotree.explain.table import Explainer, Images
from leukotree.explain.work import Work, work_of
from leukotree.inference.loaded import LoadedRun, load
from leukotree.records import explanations, predictions

SLOW = {"scorecam": 8}
"""Method -> one of how many images it is used on: it needs a pass for each channel."""


class NoMethod(InputError):
    """No method suits the run's backbone."""


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


def explain(
    folder: Path,
    settings: Settings,
    engine: Engine,
    masks: Path | None = None,
    other: Path | str | None = None,
) -> Explained:
    """Explain a finished run of an outer fold, and write its table (see `records.explanations`).

    Args:
        masks: the manifest that names the masks of the images; None for no masks. Without them there are no
            measures of the fit, only ROAD, stability and the comparison with random weights.
        other: the images of this packed data set (a folder or an address) or manifest, instead of the run's
            own test images.

    Raises InputError as `inference.load`, for data that are not those of the run, for masks that are none of
    these images, and for a folder that cannot be written; Busy if another process explains this run; and
    Preempted after a signal to stop.
    """
    folder = Path(folder)
    loaded = load(folder, engine)  # also says what is wrong with a run that cannot be explained
    work = work_of(folder, loaded, settings.images, masks, other)
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


def _explain(work: Work, loaded: LoadedRun, settings: Settings) -> Explained:
    explainer = Explainer(loaded)
    methods = [method for method in settings.methods if maps.suits(method, explainer.views)]
    if not methods:
        raise NoMethod(
            f"{work.folder}: {', '.join(settings.methods)} needs another backbone; name another method with "
            "--methods"
        )
    counts = {method: -(-len(work.rows) // SLOW.get(method, 1)) for method in methods}
    counts[explanations.CENTRE] = len(work.rows)
    plan = [
        (number, rows, method, with_road)
        for method, count in counts.items()
        for number, rows in enumerate(work.chunks(count))
        for with_road in [min(max(settings.road - number * of_run.CHUNK, 0), len(rows))]
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
        frame, path = _table(work, parts, bool(todo))  # before its pictures, whose sources it names
        pictures = _pictures(work, explainer, loader, settings, again=bool(todo))
    masked = sum(int(row) in work.masks.files for row in work.rows) if work.masks else 0
    left_out = sorted(set(settings.methods) - set(methods))
    return Explained(
        work.folder, path, len(work.rows), masked, len(todo), frame, tuple(left_out), tuple(pictures)
    )


def _table(work: Work, parts: dict[tuple[str, int], Path], computed: bool) -> tuple[pd.DataFrame, Path]:
    """Write the table of the parts, unless it is there."""
    ordered = [parts[place] for place in sorted(parts)]
    path = explanations.table(work.folder, work.name)
    frame = pd.concat([explanations.read(part) for part in ordered], ignore_index=True)
    before = explanations.read(path) if path.exists() else None
    if computed or before is None or not before.equals(frame):
        if before is not None and (lost := _lost(before, frame)):
            progress.say(f"leukotree explain: {path}: had more than asked for now, which is left out: {lost}")
        explanations.write(path, [frame])
    return frame, path


def _lost(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """What an earlier table had that the new one lacks: methods, images, masks. "" for nothing."""
    methods = sorted(set(before["method"]) - set(after["method"]))
    images = len(set(before["key"]) - set(after["key"]))
    masks = before["area"].notna().any() and not after["area"].notna().any()
    parts = [*methods, *([f"{images} images"] if images else []), *(["the masks"] if masks else [])]
    return ", ".join(parts)


def _measured(
    work: Work,
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


def _images(work: Work, loader: Loader, rows: np.ndarray) -> Images:
    (batch,) = loader.evaluate(rows, len(rows))
    size = work.dataset.size
    empty = np.zeros((len(rows), size, size), bool)
    masks = np.stack([work.masks.read(row) for row in rows.tolist()]) if work.masks else empty
    return Images(batch.images, masks)


def _pictures(
    work: Work, explainer: Explainer, loader: Loader, settings: Settings, *, again: bool
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


def _pictured(work: Work, count: int) -> list[int]:
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
