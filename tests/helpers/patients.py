"""Tiny data sets for the tests of patients' ids: folders of patients, and manifests."""

import numpy as np
import pandas as pd
from PIL import Image


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


def cohort(root, ids):
    """A folder of images ROOT/<leaf>/<patient>/0.bmp; ids come as pairs, and a pair shares its leaf."""
    for number, text in enumerate(ids):
        picture(root / ("AML", "ALL")[number // 2 % 2] / text / "0.bmp", number)
    return root


def named(doubts):
    """The groups of ids that doubts about look-alikes name, as sets."""
    return [set(case.ids) for doubt in doubts if doubt.kind == "similar-ids" for case in doubt.cases]


def manifest(folder, rows):
    """A manifest of (leaf, patient, source, images) and its images."""
    lines: list[dict[str, str]] = []
    for leaf, patient, source, images in rows:
        for _ in range(images):
            picture(folder / f"{len(lines)}.bmp", len(lines))
            lines.append({"image": f"{len(lines)}.bmp", "leaf": leaf, "patient": patient, "source": source})
    pd.DataFrame(lines).to_csv(folder / "m.csv", index=False)
    return folder / "m.csv"
