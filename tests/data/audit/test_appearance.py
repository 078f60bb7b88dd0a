"""The audit names all blank, nearly black and nearly white images, and no others."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from leukotree.data.audit.audit import audit
from leukotree.data.pack import pack
from tests.helpers.small_data import write_manifest

WIDTH, HEIGHT = 50, 40


def field(ground, cell=None, radius=9, grain=0):
    """A background of one level with noise, and a round cell of another level."""
    pixels = np.random.default_rng(1).integers(-grain, grain + 1, (HEIGHT, WIDTH, 3)) + ground
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if cell is not None:
        ImageDraw.Draw(picture).ellipse((20 - radius, 20 - radius, 20 + radius, 20 + radius), fill=cell)
    return picture


PICTURES = {
    "black.png": (field(0), "blank (one colour)"),
    "white.png": (field(255), "blank (one colour)"),
    "pink.png": (Image.new("RGB", (WIDTH, HEIGHT), (230, 180, 200)), "blank (one colour)"),
    "dim.png": (field(6, grain=6), "nearly black"),
    "dim_cell.png": (field(2, (14, 10, 14), grain=2), "nearly black"),
    "bright.png": (field(252, grain=3), "nearly white"),
    "cell_on_black.png": (field(0, (120, 60, 150)), None),
    "cell_on_white.png": (field(253, (120, 60, 150), grain=2), None),
    "small_cell.png": (field(253, (150, 60, 160), radius=4, grain=2), None),
}


@pytest.fixture
def manifest(tmp_path):
    path = write_manifest(tmp_path / "raw")
    rows = [
        {"image": name, "leaf": "AML", "patient": f"p{number}", "source": "here"}
        for number, name in enumerate(sorted(PICTURES))
    ]
    for name, (picture, _) in PICTURES.items():
        picture.save(path.parent / name)
    pd.concat([pd.read_csv(path), pd.DataFrame(rows)]).to_csv(path, index=False)
    return path


def test_the_audit_names_all_images_that_look_like_a_failure(manifest, tmp_path):
    pack(manifest, tmp_path / "shards", folds=3, size=32, workers=1)
    result = audit(tmp_path / "shards")
    expected = {}
    for name, (_, kind) in PICTURES.items():
        if kind:
            expected.setdefault(kind, set()).add(name)
    assert {kind: set(names) for kind, names in result.unusual.items()} == expected
    assert result.ok, "a warning"
    lines = "\n".join(result.lines())
    assert "warning: 3 image(s) are blank (one colour): e.g. " in lines
    assert "warning: 2 image(s) are nearly black: e.g. " in lines
    assert "warning: 1 image(s) are nearly white: e.g. bright.png" in lines
