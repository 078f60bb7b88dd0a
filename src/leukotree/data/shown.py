"""A packed data set as lines that fit on a screen."""

from __future__ import annotations

import pandas as pd

from leukotree.taxonomy import Taxonomy

MOST = 16
"""Leaves that are listed. The others are counted."""


def leaves(leaf: pd.Series, persons: pd.Series, taxonomy: Taxonomy) -> list[str]:
    """A line for each leaf with its images, its patients, and its place in the tree.

    Args:
        leaf: (N,) the leaf of each image.
        persons: (N,) its patient, "" where unknown.
    """
    images = leaf.value_counts()
    known = persons != ""
    patients = persons[known].groupby(leaf[known]).nunique()
    width = max(map(len, taxonomy.leaves[:MOST]))
    lines = []
    for name in taxonomy.leaves[:MOST]:
        of = f"{patients[name]:>6,} patients" if name in patients else "patients unknown"
        above = " > ".join((taxonomy.root, *taxonomy.path(name)[:-1]))
        lines.append(f"  {name:{width}}  {images.get(name, 0):>8,} images  {of}  below {above}")
    more = len(taxonomy.leaves) - MOST
    return lines + ([f"  and {more} more leaves"] if more > 0 else [])
