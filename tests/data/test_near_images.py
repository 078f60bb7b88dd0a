"""Images without a patient that look the same stay in one fold; patients are never joined by a look."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from leukotree.data.audit.audit import audit
from leukotree.data.dataset import Dataset
from leukotree.data.pack import pack
from leukotree.errors import InputError
from tests.helpers.small_data import change_manifest, files, noise, write_manifest

SMALL = {"folds": 3, "size": 32, "workers": 2}


def paint(manifest, name, change):
    """A picture that looks like noise 999, and has other bytes for each change."""
    picture = noise(999).astype(int) + np.random.default_rng(change).integers(-3, 4, (40, 50, 3))
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(manifest.parent / name)


@pytest.fixture
def manifest(tmp_path):
    """18 images of three leaves without a patient, of which five look the same."""
    path = write_manifest(tmp_path / "raw", images=1)
    for number in range(5):
        paint(path, f"AML/{number}_0.png", number)
    return change_manifest(path, lambda table: table.assign(patient=""))


def test_near_duplicates_without_a_patient_are_one_group(manifest, tmp_path):
    change = manifest.parent / "AML/4_0.png"
    Image.fromarray(noise(4444)).save(change)  # 2 of 6 groups of AML would be too few for 3 folds
    apart = pack(manifest, tmp_path / "apart", **SMALL).dataset
    assert apart.groups.startswith("18 groups")
    summary = pack(manifest, tmp_path / "out", **SMALL, group_near_duplicates=True)
    index = summary.dataset.index
    alike = index[index["image"].isin([f"AML/{number}_0.png" for number in range(4)])]
    assert alike["group"].nunique() == alike["fold"].nunique() == 1
    assert index["group"].nunique() == 15
    assert any(
        "4 image(s) without a patient look like another one: 1 group(s)" in line for line in summary.lines()
    )
    assert not any("across folds" in text for text in audit(tmp_path / "out").warnings)


def test_patients_are_never_joined_by_a_look(manifest, tmp_path):
    change_manifest(manifest, lambda table: table.assign(patient=[f"p{row}" for row in table.index]))
    plain = pack(manifest, tmp_path / "plain", **SMALL).dataset
    asked = pack(manifest, tmp_path / "asked", **SMALL, group_near_duplicates=True).dataset
    assert asked.index["group"].tolist() == plain.index["group"].tolist()


def test_exact_copies_without_a_patient_look_the_same_too(manifest, tmp_path):
    for number in (3, 4):
        Image.fromarray(noise(4444)).save(manifest.parent / f"AML/{number}_0.png")  # equal files
    with pytest.raises(InputError, match="exact copies of one picture are in different groups"):
        pack(manifest, tmp_path / "out", **SMALL)
    index = pack(manifest, tmp_path / "out", **SMALL | {"folds": 2}, group_near_duplicates=True).dataset.index
    groups = index.set_index("image")["group"]
    assert groups["AML/3_0.png"] == groups["AML/4_0.png"] != groups["AML/0_0.png"]


def test_exact_copies_of_two_patients_are_refused_as_before(manifest, tmp_path):
    change_manifest(manifest, lambda table: table.assign(patient=[f"p{row}" for row in table.index]))
    for number in (3, 4):
        Image.fromarray(noise(4444)).save(manifest.parent / f"AML/{number}_0.png")
    with pytest.raises(InputError, match="keep them together with --group-duplicates"):
        pack(manifest, tmp_path / "out", **SMALL, group_near_duplicates=True)


def test_an_image_without_a_patient_is_not_put_into_a_patients_group(manifest, tmp_path):
    change_manifest(
        manifest, lambda table: table.assign(patient=np.where(table["image"] == "AML/0_0.png", "p", ""))
    )
    Image.fromarray(noise(4444)).save(manifest.parent / "AML/4_0.png")
    index = pack(manifest, tmp_path / "out", **SMALL, group_near_duplicates=True).dataset.index
    groups = index.set_index("image")["group"]
    assert groups["AML/0_0.png"] == "here/p"
    assert groups[["AML/1_0.png", "AML/2_0.png", "AML/3_0.png"]].nunique() == 1


def test_a_group_that_is_too_large_for_the_folds_is_refused_and_nothing_is_left(manifest, tmp_path):
    with pytest.raises(Exception, match="leaf 'AML' has 2 group"):
        pack(manifest, tmp_path / "out", **SMALL, group_near_duplicates=True)
    assert not list(tmp_path.glob("*out*"))


def test_equal_bytes_for_any_number_of_threads(manifest, tmp_path):
    Image.fromarray(noise(4444)).save(manifest.parent / "AML/4_0.png")
    for workers in (1, 3):
        pack(manifest, tmp_path / f"w{workers}", **{**SMALL, "workers": workers}, group_near_duplicates=True)
    assert files(tmp_path / "w1") == files(tmp_path / "w3")


def test_a_large_set_keeps_its_images_in_one_place(tmp_path):
    """Chains count: a looks like b, and b like c."""
    path = write_manifest(tmp_path / "raw", patients=12, images=1)
    picture = noise(5).astype(float)
    for number in range(8):
        blend = np.clip(picture + 3.0 * number, 0, 255).astype(np.uint8)
        Image.fromarray(blend).save(path.parent / f"normal/{number}_0.png")
    change_manifest(path, lambda table: table.assign(patient=""))
    index = pack(path, tmp_path / "out", **SMALL, group_near_duplicates=True).dataset.index
    chain = index[index["image"].isin([f"normal/{number}_0.png" for number in range(8)])]
    assert chain["group"].nunique() == 1
    assert Dataset.open(tmp_path / "out").index["group"].nunique() == 36 - 7
    assert isinstance(index, pd.DataFrame)
