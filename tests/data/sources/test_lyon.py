"""The Lyon set on a small copy of its layout."""

import pytest

from leukotree.data.sources.importer import import_source
from leukotree.errors import InputError
from tests.helpers.small_data import lay_out


@pytest.fixture
def lyon(tmp_path):
    root = lay_out(
        tmp_path / "set",
        *(f"trainset/{name}/0000{n}.jpg" for name in ("P0", "P3", "P7", "P8") for n in (0, 1)),
    )
    lay_out(root, "trainset/loose.jpg")
    (root / "clinical_annotation.csv").write_text("\ufeffID;LABEL\r\nP0;1\r\nP3;0\r\nP7;2\r\nP9;0\r\n")
    return root


def test_tumoral_patients_are_counted_out(lyon, tmp_path):
    summary = import_source("lyon", lyon, tmp_path / "m.csv")
    assert (summary.leaves, summary.patients) == ({"reactive": 2}, 1)
    assert summary.skipped == {
        "label '2' is neither 0 (reactive) nor 1 (tumoral)": 2,
        "patient not in clinical_annotation.csv": 3,
        "tumoral has no leaf; --tumoral LEAF gives it one, as a proxy": 2,
    }
    assert summary.notes == (
        "1 tumoral patients are left out",
        "1 patients of clinical_annotation.csv have no folder: P9",
    )


def test_tumoral_patients_may_be_a_proxy(lyon, tmp_path):
    summary = import_source("lyon", lyon, tmp_path / "m.csv", tumoral="CLL")
    assert (summary.leaves, summary.patients) == ({"CLL": 2, "reactive": 2}, 2)
    with pytest.raises(InputError, match=r"--tumoral 'lymphoma': no leaf of the tree"):
        import_source("lyon", lyon, tmp_path / "m2.csv", tumoral="lymphoma")
