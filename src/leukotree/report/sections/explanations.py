"""The section about explanations: do maps of the models find the cell, and do they depend on what was
learned?

It reads the tables that `leukotree explain` has stored in the folders of the runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from leukotree import stats
from leukotree.records import explanations
from leukotree.records.explanations import CENTRE, METHODS, PATH, RANDOM, TRAINED
from leukotree.report import scores
from leukotree.report.blocks import Block, Figure, Section, Table, percent, points, text
from leukotree.report.prose import explanations as prose
from leukotree.report.summary import Arm, StudySummary
from leukotree.stats import Mean

PICTURES = 3
"""Most pictures in a report."""
SYNTHETIC = "phantom"
"""The one source whose images a report may show. Others are of patients."""
FIRST = "gradcam"
"""The method of the tables by decision and by source."""
DIFFERENCES = ("energy", "pointing", "iou", "road")
"""Measures that are compared with the centre Gaussian, image by image."""
FIT = ("energy", "area", "energy - area", "energy - centre")
VALUES = (
    *explanations.MEASURES,
    "area",
    "empty",
    "energy - area",
    *(f"{name} - centre" for name in DIFFERENCES),
)


class Group(NamedTuple):
    """The rows of one arm on one data set."""

    data: str
    """The name of another data set; "" for the test images of the runs."""
    arm: str
    rows: pd.DataFrame


def section(summary: StudySummary) -> Section | None:
    """The tables of measures, and a few pictures of phantom images. None where no run was explained."""
    arms = scores.shown(summary)
    groups = [group for arm in arms for group in _groups(arm)]
    if not groups:
        return None
    groups.sort(key=lambda group: group.data)  # stable
    leaves = sorted({leaf for group in groups for leaf in group.rows["leaf"]})
    has_masks = any(group.rows["area"].notna().any() for group in groups)
    blocks: list[Block] = [text(prose.EXPLANATIONS if has_masks else prose.EXPLANATIONS_WITHOUT_MASKS)]
    measured = [
        (group, *kind, _means(group.rows, kind, leaves)) for group in groups for kind in _kinds(group)
    ]
    if has_masks:
        blocks += [_fit(measured), _peaks(measured)]
    blocks.append(_faithful(measured))
    if has_masks:
        blocks += [_decisions(groups, leaves), _sources(groups, leaves)]
    blocks += _pictures(arms, groups)
    return Section("Explanations", blocks)


def _groups(arm: Arm) -> list[Group]:
    """The tables of an arm's runs, by data set."""
    found: dict[str, list[pd.DataFrame]] = {}
    for run in arm.runs:
        for name in explanations.names(run.folder):
            found.setdefault(name, []).append(explanations.read(explanations.table(run.folder, name)))
    return [Group(name, arm.name, pd.concat(tables)) for name, tables in found.items()]


def _kinds(group: Group) -> list[tuple[str, str]]:
    """(method, weights) of the rows, in the order of METHODS; the centre Gaussian is no method of its own."""
    there = set(zip(group.rows["method"], group.rows["weights"], strict=True))
    return [
        (method, weights)
        for method in METHODS
        for weights in (TRAINED, RANDOM)
        if method != CENTRE and (method, weights) in there
    ]


def by_image(rows: pd.DataFrame, kind: tuple[str, str]) -> pd.DataFrame:
    """A row per image with `patient`, `leaf`, `source` and VALUES: the mean over its decisions, seeds and
    repeats. ROAD is of the path. Differences are paired with the centre Gaussian's value of the same image.

    Args: kind: (method, weights).
    """
    of_kind = rows[(rows["method"] == kind[0]) & (rows["weights"] == kind[1])]
    centre = rows[rows["method"] == CENTRE]
    same = ["run", "key", "decision"]
    both = of_kind.merge(centre[[*same, *DIFFERENCES]], on=same, how="left", suffixes=("", " of centre"))
    both["energy - area"] = both["energy"] - both["area"]
    for name in DIFFERENCES:
        both[f"{name} - centre"] = both[name] - both[f"{name} of centre"]
    on_path = both["decision"] == PATH
    of_path = [name for name in VALUES if name.startswith("road")]
    values = both[list(VALUES)].copy()
    values.loc[on_path, [name for name in VALUES if name not in of_path]] = np.nan
    values.loc[~on_path, of_path] = np.nan
    means = values.groupby(both["key"], sort=True).mean()
    first = both.drop_duplicates("key").set_index("key").loc[means.index]
    return means.assign(patient=first["patient"], leaf=first["leaf"], source=first["source"])


def _means(
    rows: pd.DataFrame, kind: tuple[str, str], leaves: Sequence[str], names: Sequence[str] = VALUES
) -> Mapping[str, Mean]:
    """Name of a value -> its mean over images, of some VALUES."""
    return _of_images(by_image(rows, kind), leaves, names)


def _of_images(
    images: pd.DataFrame, leaves: Sequence[str], names: Sequence[str] = VALUES
) -> Mapping[str, Mean]:
    true = pd.Index(leaves).get_indexer(pd.Index(images["leaf"]))
    found = stats.means(images["patient"].tolist(), true, images[list(names)].to_numpy(), len(leaves))
    return dict(zip(names, found, strict=True))


Measured = tuple[Group, str, str, Mapping[str, Mean]]
"""A group, a method, a kind of weights, and the means."""
LABELS = ("images of", "variant", "method", "weights")


def _labels(group: Group, method: str, weights: str) -> list[str]:
    return [group.data or "test folds", group.arm, METHODS[method], weights]


def _fit(measured: Sequence[Measured]) -> Table:
    rows = [
        [
            *_labels(group, method, weights),
            f"{means['energy'].images}",
            f"{means['energy'].clusters}",
            share(means["energy"]),
            percent(means["area"].value),
            difference(means["energy - area"]),
            difference(means["energy - centre"]),
        ]
        for group, method, weights, means in measured
        if means["energy"].images
    ]
    header = [
        *LABELS,
        "images",
        "patients",
        "in the cell",
        "mask area",
        "minus area",
        "minus centre Gaussian",
    ]
    caption = (
        "Share of the map in the cell, in per cent, and its differences in points, with 95 % intervals over "
        "patients. An image without a known patient counts as one."
    )
    return Table(caption, header, rows, labels=4)


def _peaks(measured: Sequence[Measured]) -> Table:
    rows = [
        [
            *_labels(group, method, weights),
            *(share(means[name]) for name in ("pointing",)),
            difference(means["pointing - centre"]),
            share(means["iou"]),
            difference(means["iou - centre"]),
        ]
        for group, method, weights, means in measured
        if means["energy"].images
    ]
    header = [*LABELS, "pointing game", "minus centre", "IoU of the top fifth", "minus centre"]
    caption = (
        "Peak of the map in the cell or near it, and overlap of its best fifth with the cell, in per cent."
    )
    return Table(caption, header, rows, labels=4)


def _faithful(measured: Sequence[Measured]) -> Table:
    rows = [
        [
            *_labels(group, method, weights),
            percent(means["empty"].value),
            f"{means['road'].images}",
            difference(means["road"]),
            difference(means["road - centre"]),
            correlation(means["stability"]),
            correlation(means["similarity"]),
        ]
        for group, method, weights, means in measured
    ]
    header = [
        *LABELS,
        *("empty maps", "images with ROAD", "ROAD", "minus centre", "stability", "similarity to trained"),
    ]
    caption = (
        "Empty maps, in which nothing speaks for the decision, in per cent. ROAD in points of the path's "
        "probability. Rank correlations: with the maps of the mirrored and the darker image, and of random "
        "with trained weights."
    )
    return Table(caption, header, rows, labels=4)


def _decisions(groups: Sequence[Group], leaves: Sequence[str]) -> Table:
    rows = []
    for group in groups:
        of_first = group.rows[group.rows["method"].isin([FIRST, CENTRE])]
        names = dict.fromkeys(of_first["decision"])
        for name in sorted(names, key=lambda name: name == PATH):  # stable, the path last
            # Each decision by itself, as `by_image` leaves the path out.
            part = of_first[of_first["decision"] == name].assign(decision="one")
            if part["energy"].notna().any() and (part["method"] == FIRST).any():
                means = _means(part, (FIRST, TRAINED), leaves, FIT)
                rows.append(
                    [
                        group.data or "test folds",
                        group.arm,
                        name or "the whole path",
                        f"{means['energy'].images}",
                        share(means["energy"]),
                        difference(means["energy - area"]),
                        difference(means["energy - centre"]),
                    ]
                )
    header = [
        "images of",
        "variant",
        "decision",
        "images",
        "in the cell",
        "minus area",
        "minus centre Gaussian",
    ]
    return Table(f"{METHODS[FIRST]} of each decision, as above.", header, rows, labels=3)


def _sources(groups: Sequence[Group], leaves: Sequence[str]) -> Table:
    rows = []
    for group in groups:
        if not (group.rows["method"] == FIRST).any():
            continue
        images = by_image(group.rows, (FIRST, TRAINED))
        for source, part in images.groupby("source"):
            means = _of_images(part, leaves, FIT)
            if means["energy"].images:
                outside = Mean(1 - means["energy"].value, _mirrored(means["energy"].interval, 1), 0, 0)
                less = Mean(
                    -means["energy - area"].value, _mirrored(means["energy - area"].interval, 0), 0, 0
                )
                rows.append(
                    [
                        group.data or "test folds",
                        group.arm,
                        str(source),
                        f"{means['energy'].images}",
                        share(outside),
                        percent(1 - means["area"].value),
                        difference(less),
                    ]
                )
    header = ["images of", "variant", "source", "images", "outside of the cell", "area outside", "difference"]
    caption = (
        f"Shortcut probe: share of the {METHODS[FIRST]} map outside of the cell, by source, in per cent."
    )
    return Table(caption, header, rows, labels=3)


def _mirrored(bounds: tuple[float, float] | None, at: float) -> tuple[float, float] | None:
    return None if bounds is None else (at - bounds[1], at - bounds[0])


def _pictures(arms: Sequence[Arm], groups: Sequence[Group]) -> list[Block]:
    """A picture of each of the first arms, or a sentence on where they are."""
    if any(set(group.rows["source"]) != {SYNTHETIC} for group in groups):
        return [text(prose.PICTURES_OF_PATIENTS, folder=f"{explanations.FOLDER}/{explanations.PANELS}")]
    blocks: list[Block] = []
    for arm in arms[:PICTURES]:
        if (picture := _picture(arm, groups)) is not None:
            name = f"explained-{len(blocks) + 1}"
            caption = f"{arm.name}: a test image, and a map for each decision on the decided path."
            blocks.append(Figure(name, caption, picture.read_bytes()))
    return blocks


def _picture(arm: Arm, groups: Sequence[Group]) -> Path | None:
    """The first picture of a test image that is in the arm's table. A picture that no table names is of
    images that are not known here."""
    for group in groups:
        if group.arm != arm.name or group.data:
            continue
        folder_of = {run.folder.name: run.folder for run in arm.runs}
        named = group.rows[["run", "key"]].drop_duplicates().itertuples(index=False)
        for run, key in named:
            path = explanations.panel(folder_of[run], FIRST, key) if run in folder_of else None
            if path is not None:
                return path
    return None


def share(mean: Mean) -> str:
    """A share in per cent, with its interval."""
    return "–" if np.isnan(mean.value) else f"{percent(mean.value)} ({_bounds(mean, percent)})"


def difference(mean: Mean) -> str:
    """A difference in points, with its interval."""
    return "–" if np.isnan(mean.value) else f"{points(mean.value)} ({_bounds(mean, points)})"


def correlation(mean: Mean) -> str:
    """A correlation with its interval."""
    return (
        "–" if np.isnan(mean.value) else f"{mean.value:.2f} ({_bounds(mean, lambda value: f'{value:.2f}')})"
    )


def _bounds(mean: Mean, form: object) -> str:
    assert callable(form)
    return "not estimable" if mean.interval is None else " to ".join(form(value) for value in mean.interval)
