"""Phantom smears: exact masks, equal bytes for any number of workers, and leakage if patients are divided."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, confusion_matrix
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from leukotree.data import phantom
from leukotree.data.phantom.cells import KINDS, MIXTURES, TRAITS
from leukotree.data.phantom.dataset import Plan, Row, render
from leukotree.data.phantom.shapes import NUCLEI
from leukotree.data.phantom.slide import DYES
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

LEAVES = Taxonomy.paper().leaves


def rows_of(manifest: Path) -> list[dict[str, str]]:
    with open(manifest, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


# --- files


def test_the_manifest_lists_every_image_with_its_mask_and_patients_are_dealt_evenly(tmp_path: Path) -> None:
    manifest = phantom.write(tmp_path / "set", patients=14, per_patient=2, size=48, workers=1)
    rows = rows_of(manifest)
    assert manifest == tmp_path / "set" / "manifest.csv"
    assert list(rows[0]) == ["image", "leaf", "patient", "source", "mask", "group"]
    assert len(rows) == 28
    assert {row["group"] for row in rows} == {"patient"}
    patients = {row["patient"]: row["leaf"] for row in rows}
    assert sorted(patients.values()) == sorted(2 * LEAVES)
    for row in rows:
        with (
            Image.open(manifest.parent / row["image"]) as image,
            Image.open(manifest.parent / row["mask"]) as mask,
        ):
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (48, 48))
            assert (mask.format, mask.mode, mask.size) == ("PNG", "L", (48, 48))
            assert set(np.unique(np.asarray(mask))) == {0, 255}


@pytest.mark.slow("reads and packs many images")
def test_same_seed_same_bytes_for_any_number_of_workers_and_other_seed_other_bytes(tmp_path: Path) -> None:
    arguments = {"patients": 7, "per_patient": 2, "size": 48}
    for name, seed, workers in (("one", 5, 1), ("two", 5, 2), ("other", 6, 1)):
        phantom.write(tmp_path / name, **arguments, seed=seed, workers=workers)
    one, two, other = (digests(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one if name.startswith("images"))


def test_a_patient_looks_the_same_in_a_larger_set() -> None:
    """Pixels depend only on seed, patient and image, so a larger set contains the smaller one."""
    row = Row(3, 1, LEAVES[3])
    small, large = (
        render(Plan(patients, per_patient, 48, 0), row)[0] for patients, per_patient in ((7, 2), (70, 9))
    )
    assert np.array_equal(small, large)


def test_an_interrupted_set_is_continued_and_a_finished_one_is_kept(tmp_path: Path) -> None:
    arguments = {"patients": 7, "per_patient": 2, "size": 48, "workers": 1}
    phantom.write(tmp_path / "whole", **arguments)
    manifest = phantom.write(tmp_path / "cut", **arguments)
    lost = [manifest, manifest.parent / "images/P003/001.jpg", manifest.parent / "masks/P005/000.png"]
    for path in lost:
        path.unlink()
    before = {path: path.stat().st_mtime_ns for path in manifest.parent.rglob("*.jpg")}
    phantom.write(tmp_path / "cut", **arguments)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    redrawn = {
        path.relative_to(manifest.parent).as_posix()
        for path, time in before.items()
        if path.stat().st_mtime_ns != time
    }
    assert redrawn == {"images/P005/000.jpg"}  # its mask was lost; P003/001 was not there to compare
    times = {path: path.stat().st_mtime_ns for path in manifest.parent.rglob("*")}
    phantom.write(tmp_path / "cut", **arguments)
    assert {path: path.stat().st_mtime_ns for path in manifest.parent.rglob("*")} == times


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"patients": 6}, "patients is 6"),
        ({"per_patient": 0}, "per_patient is 0"),
        ({"size": 8}, "size is 8"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_a_bad_value_is_named_and_nothing_is_written(
    tmp_path: Path, arguments: dict[str, int], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        phantom.write(tmp_path / "set", **arguments)
    assert not (tmp_path / "set").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(InputError, match="holds no phantom set"):
        phantom.write(tmp_path, patients=7, per_patient=1, size=48, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match=r"notes\.txt"):
        phantom.write(tmp_path / "notes.txt", patients=7, per_patient=1, size=48, workers=1)


def test_another_set_is_not_overwritten(tmp_path: Path) -> None:
    phantom.write(tmp_path / "set", patients=7, per_patient=1, size=48, workers=1)
    before = digests(tmp_path / "set")
    with pytest.raises(InputError, match="seed 0 instead of 1"):
        phantom.write(tmp_path / "set", patients=7, per_patient=1, size=48, seed=1, workers=1)
    assert digests(tmp_path / "set") == before


# --- pictures


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), leaf=st.sampled_from(LEAVES), size=st.sampled_from([32, 64, 96, 130]))
def test_the_mask_is_exactly_where_the_white_cell_has_ink(seed: int, leaf: str, size: int) -> None:
    """Drawn with and without its cell, an image differs only inside of the mask."""
    plan, row = Plan(7, 1, size, seed), Row(0, 0, leaf)
    (full, mask), (empty, same_mask) = render(plan, row), render(plan, row, with_cell=False)
    differs = (full != empty).any(axis=2)
    assert np.array_equal(mask, same_mask)
    assert not differs[~mask].any()
    assert differs[mask].mean() > 0.9  # the rest is the faint edge, lost in rounding
    assert ndimage.label(mask)[1] == 1


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_cell_covers_the_same_share_of_the_field_at_any_size(leaf: str) -> None:
    shares = [
        np.mean([render(Plan(7, 4, size, 1), Row(0, i, leaf))[1].mean() for i in range(4)])
        for size in (64, 192)
    ]
    assert shares[0] == pytest.approx(shares[1], rel=0.25)
    assert 0.03 < shares[1] < 0.35


def test_every_leaf_is_made_of_kinds_that_exist() -> None:
    assert set(MIXTURES) == set(LEAVES)
    assert {name for mixture in MIXTURES.values() for name in mixture} == set(KINDS)
    for name, kind in KINDS.items():
        assert set(kind.nuclei) <= set(NUCLEI), name
        assert kind.traits.keys() <= TRAITS.keys(), name
        assert kind.granule_dye in DYES, name
        assert all(low <= high for low, high in kind.traits.values()), name


# --- leakage between patients


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (560, 64, 64, 3), masks, leaves and patients of 28 patients with 20 images each."""
    plan = Plan(patients=28, per_patient=20, size=64, seed=0)
    rows = list(plan.rows())
    pixels, masks = zip(*(render(plan, row) for row in rows), strict=True)
    return (
        np.stack(pixels),
        np.stack(masks),
        np.array([row.leaf for row in rows]),
        np.array([row.patient for row in rows]),
    )


def colour_features(pixels: np.ndarray) -> np.ndarray:
    """Return a thumbnail of 8 x 8 and the percentiles of each channel, the simplest features of an image."""
    thumbnails = pixels.reshape(len(pixels), 8, 8, 8, 8, 3).mean(axis=(2, 4)).reshape(len(pixels), -1)
    percentiles = (
        np.percentile(pixels, [5, 25, 50, 75, 95], axis=(1, 2)).transpose(1, 0, 2).reshape(len(pixels), -1)
    )
    return np.hstack([thumbnails, 3 * percentiles])


def median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else 0.0


def morphology(pixels: np.ndarray, mask: np.ndarray) -> list[float]:
    """Return cell area, nuclear share, shape of the nucleus, and texture relative to the cell's darkness."""
    green = pixels[..., 1].astype(float)
    dark = np.median(green[~mask]) - green
    nucleus = mask & (dark > 0.6 * np.percentile(dark[mask], 90))
    count = ndimage.label(nucleus)[1]
    filled = ndimage.binary_closing(np.pad(nucleus, 6), iterations=6)[6:-6, 6:-6]
    y, x = np.nonzero(nucleus)
    spread = np.linalg.eigvalsh(np.cov(np.stack([x, y])) + 0.1 * np.eye(2))
    cytoplasm = mask & ~nucleus
    hue = [median((pixels[..., channel] - green)[cytoplasm]) for channel in (0, 2)]
    rough = np.abs(ndimage.laplace(green))
    textures = [median(rough[ndimage.binary_erosion(part)]) / dark.max() for part in (nucleus, cytoplasm)]
    return [
        mask.sum(),
        nucleus.sum() / mask.sum(),
        count,
        nucleus.sum() / filled.sum(),
        spread[0] / spread[1],
        mask.sum() / ndimage.binary_closing(np.pad(mask, 8), iterations=8).sum(),
        median(dark[cytoplasm]) / dark.max(),
        *hue,
        *textures,
    ]


@pytest.mark.slow("fits classifiers to many images")
def test_a_split_that_leaks_patients_scores_higher_than_one_by_patients(
    images: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    pixels, _, leaves, patients = images
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(5))
    features = colour_features(pixels)
    by_image = cross_val_predict(model, features, leaves, cv=StratifiedKFold(4, shuffle=True, random_state=0))
    by_patient = cross_val_predict(model, features, leaves, groups=patients, cv=StratifiedGroupKFold(4))
    leaky, honest = accuracy_score(leaves, by_image), accuracy_score(leaves, by_patient)
    print(f"leaky {leaky:.3f}, honest {honest:.3f}, chance {1 / len(LEAVES):.3f}")
    assert leaky - honest > 0.2


@pytest.mark.slow("reads and packs many images")
def test_morphology_is_learnable_across_patients_and_similar_leaves_are_what_is_confused(
    images: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    pixels, masks, leaves, patients = images
    features = np.array([morphology(*pair) for pair in zip(pixels, masks, strict=True)])
    model = RandomForestClassifier(200, random_state=0)
    guesses = cross_val_predict(model, features, leaves, groups=patients, cv=StratifiedGroupKFold(4))
    honest = accuracy_score(leaves, guesses)
    confusion = confusion_matrix(leaves, guesses, labels=LEAVES)
    print(f"honest {honest:.3f}\n{LEAVES}\n{confusion}")
    assert honest > 2 / len(LEAVES)

    def confused(a: str, b: str) -> int:
        return confusion[LEAVES.index(a), LEAVES.index(b)] + confusion[LEAVES.index(b), LEAVES.index(a)]

    assert confused("ALL", "AML") > confused("ALL", "normal")
    assert confused("AML", "APML") > confused("AML", "CLL")
    assert confused("normal", "CML") > confused("ALL", "CML")
