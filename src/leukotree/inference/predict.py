"""Predictions of images by one run or several: the mean of their leaf probabilities, raw and calibrated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from leukotree import progress, signals
from leukotree.distributed.engine import Engine
from leukotree.errors import InputError, RunFailed
from leukotree.evaluation import calibration, decide, prediction_sets
from leukotree.inference import images as prepared_images
from leukotree.inference.features import Features
from leukotree.inference.images import Images
from leukotree.inference.known import Known
from leukotree.inference.loaded import LoadedRun, load
from leukotree.inference.members import Member, Members
from leukotree.taxonomy import Taxonomy

_NAMED = 3
"""Most images in one message."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions of N images on the tree of the members. L leaves, E edges."""

    logp: np.ndarray
    """(N, E) log p(child | parent). Of one run: its float32 values. Of several: of the mean of their leaf
    probabilities."""
    calibrated: np.ndarray
    """(N, L) log p(leaf): the log of the mean probability, after temperature scaling where a run has
    temperatures."""
    runs: np.ndarray
    """(N,) int64: number of runs that predicted the image."""
    scaled: np.ndarray
    """(N,) bool: whether all of these runs have temperatures."""
    trained: np.ndarray
    """(N,) bool: whether these runs trained on the image or on its patient."""
    unsure: np.ndarray
    """(N,) bool: whether this is not known, since a data set of the runs is not here."""
    sets: np.ndarray | None
    """(N, L) bool: the leaves of the prediction set. None where the study has none. More than half of the
    runs that predicted the image have the leaf in their set (Gasparin and Ramdas 2024, "Merging uncertainty
    sets via majority vote")."""
    low_score: np.ndarray | None
    """(N,) bool: no leaf fits by most runs, see `prediction_sets.low_score`. None where the study has no
    limit."""


def predict(
    members: Members,
    images: Images,
    known: Known,
    engine: Engine,
    *,
    workers: int,
    also_trained: bool = False,
) -> Predicted:
    """Predict each image by the runs that have not trained on it, nor on its patient.

    The runs are loaded one after another. Their batches have the size of their own evaluation.

    Args:
        workers: decoding threads.
        also_trained: predict an image that every run trained on by all of them. Otherwise it is refused.

    Raises InputError for a run that cannot be loaded, and as above; RunFailed for outputs that are no
    numbers.
    """
    everywhere = known.everywhere
    if everywhere.any() and not also_trained:
        raise InputError(_trained_on(images, everywhere, members))
    mine = known.usable
    sums, features = _Sums(members.taxonomy, len(images.table)), Features(images, workers, known.row)
    with progress.Bar("predict", int(mine.sum()), "image") as bar:
        for place, member in enumerate(members.runs):
            rows = np.flatnonzero(mine[:, place])
            if len(rows):
                run = load(member.folder, engine)
                logp = outputs(run, images, known.order(rows), workers, bar.advance, features)
                sums.add(member, rows, logp[rows])
    unsure = np.zeros(len(everywhere), dtype=bool) if known.unsure is None else known.unsure
    return sums.predicted(everywhere, unsure & ~everywhere)


def outputs(
    run: LoadedRun,
    images: Images,
    parts: Sequence[np.ndarray],
    workers: int,
    done: Callable[[int], None] = lambda count: None,
    features: Features | None = None,
) -> np.ndarray:
    """(N, E) float32 log p(child | parent) of a run, on its own tree; NaN for images that are in none of the
    parts. No batch has images of two parts.

    Args:
        done: is called with numbers of images that are ready.
        features: of frozen backbones, kept from run to run.

    Raises RunFailed for outputs that are no numbers, and Preempted when it is asked to stop.
    """
    logp = np.full((len(images.table), len(run.taxonomy.edges)), np.nan, dtype=np.float32)
    features = features or Features(images, workers)
    for part in parts:
        for rows, values in _batches(run, images, part, workers, done, features):
            logp[rows] = values
            if np.isnan(values).any():
                name = images.table["image"].iloc[int(rows[np.isnan(values).any(axis=1)][0])]
                raise RunFailed(f"{run.folder}: its outputs are NaN, first for {name}", "nan")
    if run.engine.device.type == "cuda":
        torch.cuda.empty_cache()  # the next run may have models of another size
    return logp


def _batches(
    run: LoadedRun,
    images: Images,
    part: np.ndarray,
    workers: int,
    done: Callable[[int], None],
    features: Features,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (b,) rows and their (b, E) log p(child | parent), in batches as a run is scored."""
    if run.frozen is not None:
        given = features.of(run, part, done)
        for start in range(0, len(part), run.batch_size):
            batch = slice(start, start + run.batch_size)
            yield part[batch], run.decided(given[batch])
        return
    for rows, pixels in prepared_images.batches(images, part, run.batch_size, workers):
        signals.stop_if_requested(f"{run.folder.name} has not predicted all images")
        yield rows, run.predict(pixels)
        done(len(rows))


def _trained_on(images: Images, everywhere: np.ndarray, members: Members) -> str:
    names = images.table["image"].to_numpy()[everywhere]
    shown = ", ".join(map(str, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")
    runs = "this run" if len(members.runs) == 1 else f"every one of the {len(members.runs)} runs"
    return (
        f"{runs} trained on {len(names)} of {len(everywhere)} images, or on their patients ({shown}): a "
        "prediction of them says nothing about the model; leave them out, or say --trained to predict them "
        "and mark them"
    )


class _Sums:
    """What the runs have given so far, on one tree."""

    def __init__(self, taxonomy: Taxonomy, n: int) -> None:
        leaves = len(taxonomy.leaves)
        self._tree = taxonomy
        self._first = np.zeros((n, len(taxonomy.edges)), dtype=np.float32)
        self._raw, self._scaled = np.zeros((n, leaves)), np.zeros((n, leaves))
        self._runs, self._with = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self._votes, self._voters = np.zeros((n, leaves), dtype=np.int64), np.zeros(n, dtype=np.int64)
        self._odd, self._judges = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)

    def add(self, member: Member, rows: np.ndarray, own: np.ndarray) -> None:
        """Add the (n, E) log-probabilities of a run, on its own tree."""
        logp = own if member.taxonomy.ordered_as(self._tree) else _on(own, member.taxonomy, self._tree)
        fresh = rows[self._runs[rows] == 0]
        self._first[fresh] = logp[self._runs[rows] == 0]
        raw = decide.leaf_logp(logp, self._tree)
        self._raw[rows] += np.exp(raw)
        self._scaled[rows] += np.exp(_calibrated(member, own, self._tree, raw))
        self._runs[rows] += 1
        self._with[rows] += member.temperatures is not None
        if member.limits is None:
            return
        if member.limits.leaf is not None:
            self._votes[rows] += prediction_sets.leaf_scores(raw) <= member.limits.leaf
            self._voters[rows] += 1
        if member.limits.odd is not None:
            self._odd[rows] += np.exp(raw.max(axis=1)) < member.limits.odd
            self._judges[rows] += 1

    def predicted(self, trained: np.ndarray, unsure: np.ndarray) -> Predicted:
        runs = self._runs[:, None]
        with np.errstate(divide="ignore"):  # a probability of 0
            mean, calibrated = (np.log(part / runs) for part in (self._raw, self._scaled))
        logp = np.where(runs == 1, self._first.astype(np.float64), decide.edge_logp(mean, self._tree))
        alone = bool((self._runs == 1).all())
        return Predicted(
            self._first if alone else logp,
            calibrated,
            self._runs,
            self._with == self._runs,
            trained,
            unsure,
            2 * self._votes > self._voters[:, None] if (self._voters == self._runs).all() else None,
            2 * self._odd > self._judges if (self._judges == self._runs).all() else None,
        )


def _on(logp: np.ndarray, own: Taxonomy, tree: Taxonomy) -> np.ndarray:
    return logp if own.ordered_as(tree) else decide.on_tree(logp, own, tree)


def _calibrated(member: Member, own: np.ndarray, tree: Taxonomy, raw: np.ndarray) -> np.ndarray:
    """(n, L) log p(leaf) in the order of `tree`, scaled on the tree on which the temperatures were fitted."""
    if member.temperatures is None or member.scaled_on is None:
        return raw
    logp = _on(own, member.taxonomy, member.scaled_on)
    scaled = calibration.apply(logp, member.scaled_on, member.temperatures)
    places = decide.leaf_places(tree, member.scaled_on)
    return decide.leaf_logp(scaled, member.scaled_on)[:, places]
