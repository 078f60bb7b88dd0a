"""The images of a manifest are those that `pack` would write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leukotree.data import unpacked
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader, decode
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy


def test_they_are_the_packed_images_byte_for_byte(phantom_manifest: Path, shards: Path) -> None:
    packed = Dataset.open(shards)
    found = unpacked.open_manifest(phantom_manifest, 48, 95, Taxonomy.paper())
    assert len(found) == len(packed)
    place = pd.Index(found.index["key"]).get_indexer(pd.Index(packed.index["key"]))
    for row in range(0, len(packed), 11):
        assert found.read(int(place[row])) == packed.read(row)
        assert np.array_equal(decode(found, int(place[row])), decode(packed, row))
    assert found.persons.iloc[place].tolist() == packed.persons.tolist()
    assert (found.preparation, packed.preparation) == ({"size": 48, "quality": 95},) * 2
    with Loader(found, workers=1) as loader:
        (batch,) = loader.evaluate(np.arange(5), 5)
    assert batch.images.shape == (5, 3, 48, 48)


def test_one_leaf_is_enough(phantom_manifest: Path) -> None:
    frame = pd.read_csv(phantom_manifest, dtype=str, keep_default_na=False)
    path = phantom_manifest.with_name("one leaf.csv")
    frame[frame["leaf"] == "ALL"].to_csv(path, index=False)
    found = unpacked.open_manifest(path, 48, 95, Taxonomy.paper())
    assert set(found.index["leaf"]) == {"ALL"}


def test_a_broken_image_and_too_many_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phantom_manifest: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "m.csv").write_text("image,leaf,patient,source\na.png,ALL,p,lab\n")
    with pytest.raises(InputError, match=r"m.csv: .*a.png: "):
        unpacked.open_manifest(tmp_path / "m.csv", 48, 95, Taxonomy.paper())
    monkeypatch.setattr(unpacked, "MOST", 3)
    with pytest.raises(InputError, match="168 images, more than 3"):
        unpacked.open_manifest(phantom_manifest, 48, 95, Taxonomy.paper())
