"""Small made-up data sets for the tests of folds, shards and audit: noise with a colour per patient, in a real manifest."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from leukotree.taxonomy import Taxonomy

LEAVES = ("normal", "AML", "APML")


def noise(seed, height=40, width=50):
    """(height, width, 3) uint8: soft blobs on a colour of their own, unlike any other seed's."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def write_manifest(folder, patients=6, images=2, leaves=LEAVES, source="here"):
    """`patients` per leaf with `images` each, as PNG beside a manifest; returns the manifest's path."""
    folder = Path(folder)
    rows = []
    for leaf in leaves:
        for patient in range(patients):
            for number in range(images):
                path = folder / leaf / f"{patient}_{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise(len(rows))).save(path)
                rows.append({"image": f"{leaf}/{path.name}", "leaf": leaf, "patient": f"{leaf}-{patient}", "source": source})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def change_manifest(manifest, change):
    """Rewrite the manifest through a function from table to table."""
    change(pd.read_csv(manifest, keep_default_na=False)).to_csv(manifest, index=False)
    return manifest


def files(folder):
    """Name -> bytes of everything in a folder."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


PAPER = Taxonomy.paper()
