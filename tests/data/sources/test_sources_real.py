"""Sources on the real sets, each in its original layout: the known counts."""

import functools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leukotree.data import manifest
from leukotree.data.sources.importer import import_source
from leukotree.taxonomy import Taxonomy

DATA = Path(__file__).parents[3] / "../shared/data"


def imported(source, tmp_path, **options):
    if not (DATA / source).is_dir():
        pytest.skip(f"{source}: the real images are not beside the repository")
    summary = import_source(source, DATA / source, tmp_path / "m.csv", **options)
    frame = manifest.read(tmp_path / "m.csv", Taxonomy.paper())
    assert len(frame) == summary.rows
    assert frame["source"].unique().tolist() == [source]
    return summary, frame


def test_deepapl_with_cell_types(tmp_path):
    summary, frame = imported("deepapl", tmp_path, cell_types=True)
    assert (summary.rows, summary.patients) == (2469, 82)
    assert summary.leaves == {"AML": 1124, "APML": 328, "normal": 816, "reactive": 201}
    assert frame["group_id"].nunique() == 82
    # Truncated, as in the original: importing does not decode, so they are here and `pack` meets them.
    assert frame["image"].str.contains("BL_7821735.jpg|BL_7744281.jpg").sum() == 2
    assert summary.notes == ()


def test_deepapl_without_proxies(tmp_path):
    summary, frame = imported("deepapl", tmp_path)
    assert summary.rows == 1452
    assert set(frame["leaf"]) == {"AML", "APML"}
    assert sum(summary.skipped.values()) == 816 + 201
    assert summary.skipped["cell type 'Lymphocyte, variant' is only a proxy, used with --cell-types"] == 201


def test_cnmc(tmp_path):
    summary, frame = imported("cnmc", tmp_path)
    assert summary.leaves == {"ALL": 413, "normal": 400}
    assert frame.groupby("leaf")["patient"].nunique().to_dict() == {"ALL": 7, "normal": 2}


def test_taleqani(tmp_path):
    summary, _ = imported("taleqani", tmp_path)
    assert summary.leaves == {"ALL": 900}
    assert list(summary.skipped.values()) == [378]
    summary, frame = imported("taleqani", tmp_path, benign="reactive")
    assert summary.leaves == {"ALL": 900, "reactive": 378}
    assert summary.patients == 0
    assert set(frame["group"]) == {"image"}


def test_pbc(tmp_path):
    summary, frame = imported("pbc", tmp_path)
    assert summary.leaves == {"normal": 450}
    assert frame["group_id"].is_unique


def test_krd_with_masks(tmp_path):
    summary, frame = imported("krd", tmp_path, cell_types=True)
    assert summary.leaves == {"normal": 300}
    assert all(
        Path(image).stem == Path(mask).stem for image, mask in zip(frame["image"], frame["mask"], strict=True)
    )


def test_leukemiaattri(tmp_path):
    summary, frame = imported("leukemiaattri", tmp_path)
    assert (summary.rows, summary.patients) == (115, 26)
    assert summary.leaves == {"ALL": 35, "AML": 42, "APML": 10, "CLL": 12, "CML": 16}
    slides = {"ALL": 9, "AML": 10, "APML": 2, "CLL": 2, "CML": 3}
    assert frame.groupby("leaf")["group_id"].nunique().to_dict() == slides
    assert set(frame["group"]) == {"slide"}
    assert summary.skipped == {}


def test_the_cells_of_leukemiaattri(tmp_path):
    """470 boxes stand in the table. It is two tables, one after the other, and 60 boxes have lost their
    image: their number is that of another file, in the other part."""
    summary, frame = imported("leukemiaattri", tmp_path, cells=True)
    assert summary.rows == len(frame.drop_duplicates(["name", "box"])) == 470 - 11 - 96 - 60
    assert summary.leaves == {"ALL": 121, "APML": 39, "CLL": 41, "CML": 102}
    assert summary.skipped == {
        "box of a file that is not there": 11,
        "box of category 'none': no white cell": 96,
        "box whose image is in another part of the table": 60,
        "field of AML without a box": 42,
    }
    # Image id 486 stands for two files. Seen by eye: these boxes hold cells in this one, none in the other.
    of_file = frame[frame["name"].str.endswith("/23_54_1000_APML.png")]
    assert {"172 162 59 100", "461 244 74 84", "453 516 69 96", "503 525 79 113"} <= set(of_file["box"])
    assert not (frame["name"].str.endswith("/35_29_1000_ALL.png") & (frame["box"] == "172 162 59 100")).any()
    dark = [_dark(image, box) for image, box in zip(frame["image"], frame["box"], strict=True)]
    assert min(dark) > 0.12, "a white cell's nucleus is dark; boxes joined to a wrong file hold background"


def _dark(path, box):
    """The share of the pixels of a box that are as dark as a nucleus."""
    left, top, width, height = map(int, box.split())
    return (_green(path)[top : top + height, left : left + width] < 90).mean()


@functools.cache
def _green(path):
    with Image.open(path) as field:
        return np.asarray(field.convert("RGB"))[..., 1]


def test_lyon(tmp_path):
    summary, _ = imported("lyon", tmp_path)
    assert (summary.leaves, summary.patients) == ({"reactive": 420}, 35)
    assert list(summary.skipped.values()) == [780]
    assert summary.notes == ("65 tumoral patients are left out",)
    summary, frame = imported("lyon", tmp_path, tumoral="CLL")
    assert (summary.leaves, summary.patients) == ({"CLL": 780, "reactive": 420}, 100)
    assert frame["group_id"].nunique() == 100
