"""The section with the drawn tree: how many images of each node an arm finds, and how many of its answers
there are right."""

from __future__ import annotations

from functools import partial

import numpy as np

from leukotree import stats
from leukotree.evaluation import metrics
from leukotree.report import nodeplot, scores
from leukotree.report.blocks import Figure, Section, Table, interval, percent, text
from leukotree.report.prose import answers as prose
from leukotree.report.summary import StudySummary
from leukotree.stats import Clusters
from leukotree.taxonomy import Taxonomy

TITLE = "The tree, decision by decision"


def section(summary: StudySummary) -> Section:
    """A figure of the tree, and a row for each node below the root."""
    arms = scores.shown(summary)
    taxonomy = arms[0].runs[0].taxonomy
    clusters = {arm.name: scores.pooled_clusters(arm.runs, scores.image_clusters) for arm in arms}
    counts = {name: of_arm.counts.sum(axis=0) for name, of_arm in clusters.items()}
    below = members(taxonomy)
    # The arms may cover other folds while runs are missing, so the images are those of the first one.
    images = {node: float(counts[arms[0].name][mask].sum()) for node, mask in below.items()}
    found = {
        name: {
            node: float(sensitivity(mask, table)) if table[mask].sum() > 0 else np.nan
            for node, mask in below.items()
        }
        for name, table in counts.items()
    }
    # All images are decided below the root: there the share of right answers is of interest.
    for name, table in counts.items():
        found[name][taxonomy.root] = float(stats.accuracy(table))
    caption = (
        "Beside a node: its images, of all folds. Below: the share of them that an arm decides to be in this "
        "node, in per cent; at the root, the share of right leaves. A line is as wide as its share of the "
        "images."
    )
    rows = [
        [node, str(round(images[node])), *(cell for one in clusters.values() for cell in _cells(one, mask))]
        for node, mask in below.items()
        if node != taxonomy.root
    ]
    header = ["node", "images"]
    for arm in arms:
        header += [f"{arm.name}: found", "right"]
    return Section(
        TITLE,
        [
            Figure("tree", caption, nodeplot.tree(taxonomy, images, found)),
            Table(
                "Found: the share of a node's images that are decided to be in it, with a 95 % interval by "
                "patient. Right: the share of the images decided to be in it that are. In per cent.",
                header,
                rows,
                file="nodes",
            ),
            text(prose.NODES, floor=metrics.FLOOR),
        ],
    )


def members(taxonomy: Taxonomy) -> dict[str, np.ndarray]:
    """Node -> (L,) bool: the leaves that are the node or below it, in preorder of the nodes."""
    everything = np.ones(len(taxonomy.leaves), dtype=bool)
    return {taxonomy.root: everything} | dict(zip(taxonomy.edges, taxonomy.leaves_below, strict=True))


def sensitivity(mask: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    """(...) share of the images of some leaves that are decided to be one of them, from (..., L, L) counts.
    0 without images, as `stats.recall`."""
    of_node = confusion[..., mask, :].sum(axis=(-2, -1))
    both = confusion[..., mask, :][..., mask].sum(axis=(-2, -1))
    return both / np.where(of_node > 0, of_node, 1)


def _cells(clusters: Clusters, mask: np.ndarray) -> tuple[str, str]:
    """What an arm finds of a node, with its interval, and how much of that is right."""
    table = clusters.counts.sum(axis=0)
    patients = int((clusters.counts[clusters.names != ""][:, mask].sum(axis=(1, 2)) > 0).sum())
    alone = clusters.counts[clusters.names == ""][:, mask].sum() > table[mask].sum() / 2
    said = "–"
    if table[mask].sum() > 0:
        estimable = patients >= metrics.FLOOR and not alone
        bounds = stats.intervals([clusters], partial(sensitivity, mask))[0] if estimable else None
        around = "no spread" if estimable and bounds is None else interval(bounds)
        said = f"{percent(float(sensitivity(mask, table)))} ({around})"
    given = table[:, mask].sum() > 0
    return said, percent(float(sensitivity(mask, table.T)) if given else float("nan"))
