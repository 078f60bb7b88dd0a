"""Small data sets for tests: noise as images, and a manifest."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import simplejpeg
from PIL import Image

from leukotree.taxonomy import Taxonomy

LEAVES = ("normal", "AML", "APML")


def noise(seed, height=40, width=50):
    """(height, width, 3) uint8: soft blobs, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def write_manifest(folder, patients=6, images=2, leaves=LEAVES, source="here", first=0):
    """`patients` per leaf with `images` each, as PNG beside a manifest; returns the manifest's path. Another
    `first` gives other pictures."""
    folder = Path(folder)
    rows: list[dict[str, str]] = []
    for leaf in leaves:
        for patient in range(patients):
            for number in range(images):
                path = folder / leaf / f"{patient}_{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise(first + len(rows))).save(path)
                rows.append(
                    {
                        "image": f"{leaf}/{path.name}",
                        "leaf": leaf,
                        "patient": f"{leaf}-{patient}",
                        "source": source,
                    }
                )
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def change_manifest(manifest, change):
    """Rewrite the manifest through a function from table to table."""
    change(pd.read_csv(manifest, keep_default_na=False)).to_csv(manifest, index=False)
    return manifest


def lay_out(root, *names):
    """Make files below root; images hold no pixels, since importing decodes nothing."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no pixels")
    return root


def files(folder):
    """Name -> bytes of everything in a folder."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def overwrite(folder, row, jpeg, indexed):
    """Replace the first bytes of a sample's JPEG in a packed folder, and with `indexed` its sha256 in the
    index. Returns the sample's key."""
    index = pd.read_parquet(folder / "index.parquet")
    sample = index.iloc[row]
    with open(folder / sample["shard"], "r+b") as shard:
        shard.seek(sample["offset"])
        shard.write(jpeg[: sample["length"]])
        shard.seek(sample["offset"])
        index.loc[row, "sha256"] = hashlib.sha256(shard.read(sample["length"])).hexdigest()
    if indexed:
        index.to_parquet(folder / "index.parquet", index=False)
    return sample["key"]


def bomb(side=65_000):
    """A JPEG of a few hundred bytes whose header names side x side pixels."""
    jpeg = bytearray(simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8)))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = side.to_bytes(2, "big") * 2
    return bytes(jpeg)


PAPER = Taxonomy.paper()
