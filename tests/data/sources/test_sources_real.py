"""Sources on the real sets, each in its original layout: the known counts."""

from pathlib import Path

import pytest

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
