"""Near duplicates among the images of a pack that have no patient: sets that the folds keep together."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from leukotree import progress
from leukotree.data import alike, duplicates
from leukotree.data.images import codec
from leukotree.data.shards import Place


def sets(
    table: pd.DataFrame,
    places: Sequence[tuple[Path, Place]],
    thumbnails: dict[str, np.ndarray],
    workers: int,
) -> list[list[str]]:
    """Return the keys of each set of near duplicates that are in different groups.

    Images with a patient or slide are no part of a set: a picture that looks the same does not show that two
    people are one.

    Args:
        table: columns key, kind and group.
        places: (shard, place) of each written image.
        thumbnails: sha256 -> thumbnail of the images that were read before; the others are added.
        workers: threads.
    """
    single = table[table["kind"] == "image"].reset_index(drop=True)
    wanted = set(single["key"])
    of_key = {place.key: (shard, place) for shard, place in places if place.key in wanted}
    todo = [one for one in of_key.values() if one[1].sha256 not in thumbnails]
    with ThreadPoolExecutor(workers, "thumbnail") as pool:
        read = progress.over(pool.map(_thumbnail, todo), "look for near duplicates", len(todo), "image")
        for (_, place), small in zip(todo, read, strict=True):
            thumbnails[place.sha256] = small
    if len(single) < 2:
        return []
    rows = np.stack([thumbnails[of_key[key][1].sha256] for key in single["key"]])
    found = alike.groups(len(rows), alike.alike(rows))
    return [single["key"].iloc[one].tolist() for one in duplicates.differing(single, found, "group")]


def _thumbnail(image: tuple[Path, Place]) -> np.ndarray:
    shard, place = image
    with open(shard, "rb") as file:
        file.seek(place.offset)
        return alike.thumbnail(codec.decode(file.read(place.length)))
