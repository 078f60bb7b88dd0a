"""The rows of a table of explanations: one run, one method, some images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from leukotree.errors import InputError
from leukotree.evaluation import decide
from leukotree.explain import maps, measures
from leukotree.explain.layers import extent
from leukotree.explain.targets import PATH, Target, View, targets, views
from leukotree.explain.wrapped import Probability, Whole
from leukotree.inference.loaded import LoadedRun
from leukotree.models import lora
from leukotree.models.classifier import build
from leukotree.records.explanations import CENTRE, RANDOM, TRAINED

DARKER = 0.95
"""Brightness of the second image that stability compares with. The first one is mirrored."""


class Images(NamedTuple):
    """Some images and what is known of them."""

    pixels: torch.Tensor
    """(B, 3, H, W) uint8."""
    masks: np.ndarray
    """(B, H, W) bool, False everywhere where there is no mask."""


class Decided(NamedTuple):
    """What a run decides for B images, and the P pairs of an image and a target that are explained."""

    leaves: list[str]
    """The B leaves of the greedy rule."""
    logp: np.ndarray
    """(B, E) log p(child | parent)."""
    pairs: list[tuple[int, Target]]


class Explainer:
    """A loaded run whose decisions are explained. Its weights are frozen.

    Raises InputError for a backbone without a feature map of two or more places.
    """

    def __init__(self, loaded: LoadedRun) -> None:
        self.loaded = loaded
        for model in loaded.models:
            model.requires_grad_(False)
        size = loaded.prepared.size
        self.views = views(loaded.spec.variant, loaded.taxonomy, loaded.stages, loaded.models, size)
        self.whole = Whole(loaded.spec.variant, loaded.taxonomy, loaded.models).eval()
        if any(max(extent(view.module, [view.layer], size)[0]) < 2 for view in self.views):
            raise InputError(
                f"{loaded.folder}: the last feature map of {loaded.spec.backbone.name} is one place for "
                f"images of {size} pixels, so it has no map; train on larger images"
            )

    def decided(self, pixels: torch.Tensor) -> Decided:
        """What the run decides, and what is explained."""
        taxonomy = self.loaded.taxonomy
        logp = self.loaded.predict(pixels)
        leaves = [taxonomy.leaves[leaf] for leaf in decide.greedy(logp, taxonomy)]
        of_leaf = {leaf: targets(taxonomy, leaf, self.views) for leaf in set(leaves)}
        pairs = [(image, target) for image, leaf in enumerate(leaves) for target in of_leaf[leaf]]
        return Decided(leaves, logp, pairs)

    def randomised(self, seed: int) -> list[View]:
        """The views of the same models with fresh random weights, as a training would begin without
        pretrained ones. They are other ones than those that the run began with."""
        loaded, spec = self.loaded, self.loaded.spec
        fresh = loaded.bare.override({"seed": seed % 2**31})
        models = []
        for stage, trained in zip(loaded.stages, loaded.models, strict=True):
            model = build(fresh, stage, loaded.prepared.size).to(loaded.engine.device).eval()
            lora.merge(model)
            if spec.variant == "neighbours":  # without the training images it has no answer
                model.heads = trained.heads
            models.append(model.requires_grad_(False))
        return views(spec.variant, loaded.taxonomy, loaded.stages, models, loaded.prepared.size)

    def maps(self, method: str, pixels: torch.Tensor, pairs: Sequence[tuple[int, Target]]) -> np.ndarray:
        """(P, H, W) maps of the trained models; for CENTRE the same Gaussian for each pair."""
        if method == CENTRE:
            return np.repeat(measures.centre(pixels.shape[-1])[None], len(pairs), axis=0)
        return maps.compute(method, self.views, self.loaded.inputs(pixels), pairs)


def rows(
    explainer: Explainer,
    method: str,
    images: Images,
    decided: Decided,
    random: Sequence[View],
    seed: int,
    with_road: int,
) -> pd.DataFrame:
    """A row per pair and kind of weights: `image`, the position in the batch, and the columns of
    `records.explanations` from `decided` on.

    Args:
        method: one of `maps.METHODS`, or CENTRE.
        random: the views of random weights.
        seed: of ROAD.
        with_road: how many of the images get ROAD, from the first one on.
    """
    trained = explainer.maps(method, images.pixels, decided.pairs)
    masks = images.masks[[image for image, _ in decided.pairs]]
    frame = _fitted(decided, trained, masks).assign(method=method, weights=TRAINED)
    frame["road"] = _road(explainer, trained, images, decided, seed, with_road)
    if method == CENTRE:
        return frame.assign(stability=np.nan, similarity=np.nan)
    frame = frame.assign(
        stability=_stability(explainer, method, trained, images.pixels, decided.pairs), similarity=np.nan
    )
    inputs = explainer.loaded.inputs(images.pixels)
    other = maps.compute(method, random, inputs, decided.pairs)
    control = _fitted(decided, other, masks).assign(method=method, weights=RANDOM, road=np.nan)
    control = control.assign(stability=np.nan, similarity=measures.similarity(trained, other))
    return pd.concat([frame, control], ignore_index=True)


def _fitted(decided: Decided, found: np.ndarray, masks: np.ndarray) -> pd.DataFrame:
    """The pairs, and how well their maps fit the masks."""
    has_mask = masks.any(axis=(1, 2))
    return pd.DataFrame(
        {
            "image": [image for image, _ in decided.pairs],
            "decided": [decided.leaves[image] for image, _ in decided.pairs],
            "decision": [target.decision for _, target in decided.pairs],
            "node": [target.node for _, target in decided.pairs],
            "probability": [
                float(np.exp(decided.logp[image, list(target.edges)].astype(np.float64).sum()))
                for image, target in decided.pairs
            ],
            "area": np.where(has_mask, masks.mean(axis=(1, 2)), np.nan),
            "empty": 1.0 - measures.has_place(found),
            "energy": measures.energy(found, masks),
            "pointing": measures.pointing(found, masks),
            "iou": measures.overlap(found, masks),
        }
    )


def _stability(
    explainer: Explainer,
    method: str,
    trained: np.ndarray,
    pixels: torch.Tensor,
    pairs: Sequence[tuple[int, Target]],
) -> np.ndarray:
    """(P,) mean rank correlation of the maps with those of the mirrored and of the darker image."""
    mirrored = explainer.maps(method, pixels.flip(3), pairs)[:, :, ::-1]
    darker = explainer.maps(method, (pixels.float() * DARKER).round().to(torch.uint8), pairs)
    return (measures.similarity(trained, mirrored) + measures.similarity(trained, darker)) / 2


def _road(
    explainer: Explainer, found: np.ndarray, images: Images, decided: Decided, seed: int, with_road: int
) -> np.ndarray:
    """(P,) ROAD of the path's probability for the first images; NaN for other pairs."""
    values = np.full(len(found), np.nan)
    chosen = [
        row
        for row, (image, target) in enumerate(decided.pairs)
        if image < with_road and target.decision == PATH
    ]
    if chosen:
        inputs = explainer.loaded.inputs(images.pixels)[[decided.pairs[row][0] for row in chosen]]
        goals = [Probability(decided.pairs[row][1].edges) for row in chosen]
        values[chosen] = measures.road(inputs, found[chosen], goals, explainer.whole, seed)
    return values
