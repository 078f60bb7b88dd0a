"""The audit: leakage and damage are errors, suspicions are warnings, and baselines are measured."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from leukotree.data import shards
from leukotree.data.audit import near_duplicates
from leukotree.data.audit.audit import audit
from leukotree.data.dataset import Dataset
from leukotree.data.pack import pack
from leukotree.data.pack_summary import PackSummary
from leukotree.errors import InputError
from tests.helpers.small_data import LEAVES, change_manifest, noise, write_manifest

SMALL = {"folds": 3, "size": 32, "samples_per_shard": 5, "workers": 1}


@pytest.fixture
def manifest(tmp_path):
    return write_manifest(tmp_path / "raw")


def packed(manifest, **options):
    out = manifest.parent.with_name("shards")
    pack(manifest, out, **{**SMALL, **options})
    return out


def edit(folder, change):
    """Rewrite the index through a function that changes the table in place."""
    index = pd.read_parquet(folder / "index.parquet")
    change(index)
    index.to_parquet(folder / "index.parquet", index=False)


def paint(manifest, name, picture):
    Image.fromarray(picture).save(manifest.parent / name)


def test_a_set_without_leakage_is_ok(manifest):
    result = audit(packed(manifest))
    assert result.ok
    assert result.errors == ()
    assert result.warnings == ()
    assert result.lines()[-1] == "ok: no leakage found"
    assert any(
        "macro-F1 without morphology" in line and "commonest leaf" in line and "colour only" in line
        for line in result.lines()
    )
    assert sum(line.startswith("fold ") for line in result.lines()) == 3


# --- errors


def test_a_patient_in_two_folds_is_leakage(manifest):
    def images_only(table):
        return table.assign(group="image")  # folds that split patients, as many published splits do

    result = audit(packed(change_manifest(manifest, images_only)))
    assert not result.ok
    assert any(
        "leakage" in text and "patient(s) are in several folds, e.g. " in text for text in result.errors
    )
    assert any("no claim about new patients" in text for text in result.warnings)
    assert result.lines()[-1].startswith("NOT OK")


def test_a_group_in_two_folds_is_leakage(manifest):
    folder = packed(manifest)

    def merge(index):
        index.loc[index["fold"] < 2, "group"] = "one and the same"

    edit(folder, merge)
    result = audit(folder)
    assert any(
        "leakage: 1 group(s) are in several folds, e.g. one and the same" in text for text in result.errors
    )


def test_the_same_picture_in_two_folds_is_leakage(manifest):
    folder = packed(manifest)

    def copy(index):
        rows = index.groupby(["leaf", "patient"]).head(1).index
        index.loc[rows, "sha256"] = "0" * 64

    edit(folder, copy)  # a folder of an older version, which packed such a manifest
    result = audit(folder)
    assert any("leakage: 18 images have an exact copy in another fold" in text for text in result.errors)
    assert any(
        "labels: 1 picture(s) have exact copies with different leaves" in text for text in result.errors
    )


def test_shards_that_are_not_what_the_index_says(manifest):
    folder = packed(manifest)

    def forge(index):
        index.loc[0, "sha256"] = "0" * 64
        index.loc[1, "patient"] = "nobody"

    edit(folder, forge)
    keys = Dataset.open(folder).index["key"]
    result = audit(folder)
    assert not result.ok
    assert f"fold0-000000.tar: sample {keys[0]} disagrees with the index: sha256" in result.errors
    assert f"fold0-000000.tar: sample {keys[1]} disagrees with the index: patient" in result.errors


def rewrite(folder, change):
    """Write the first shard again with its samples changed."""
    path = folder / "fold0-000000.tar"
    contents = change(list(shards.samples(path)))
    shards.write(path, contents)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items: [*items, replace(items[0], key="stray")], "sample stray is not in the index"),
        (lambda items: [*items, items[0]], "is not in the index, or is there twice"),
        (
            lambda items: [*items[1:], replace(items[0], key="stray")],
            "1 sample(s) of the index cannot be read",
        ),
        (lambda items: items[::-1], "place in the shard"),
        (lambda items: [replace(item, jpeg=item.jpeg[:-9] + bytes(9)) for item in items], "does not decode"),
    ],
)
def test_changed_shards(manifest, change, message):
    folder = packed(manifest)
    rewrite(folder, change)
    result = audit(folder)
    assert not result.ok
    assert any(message in text for text in result.errors), result.errors


def test_a_shard_that_is_no_tar(manifest):
    folder = packed(manifest)
    shard = folder / "fold1-000000.tar"
    shard.write_bytes(b"\1" * shard.stat().st_size)
    result = audit(folder)
    assert any("fold1-000000.tar: damaged" in text for text in result.errors)
    assert any("sample(s) of the index cannot be read" in text for text in result.errors)
    assert all("\n" not in line for line in result.lines())


def test_no_packed_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        audit(tmp_path / "nowhere")


# --- warnings


def test_near_duplicates_across_folds_are_shown(manifest):
    picture = noise(999).astype(int)
    paint(manifest, "normal/0_0.png", picture.astype(np.uint8))
    folds = Dataset.open(packed(manifest)).index.set_index("patient")["fold"]
    other = next(
        patient for patient in range(6) if folds[f"AML-{patient}"].iloc[0] != folds["normal-0"].iloc[0]
    )
    rng = np.random.default_rng(0)
    paint(
        manifest,
        f"AML/{other}_1.png",
        np.clip(picture + rng.integers(-6, 7, picture.shape), 0, 255).astype(np.uint8),
    )
    manifest.parent.with_name("shards").rename(manifest.parent.with_name("before"))
    result = audit(packed(manifest))
    assert result.ok, "a suspicion is no proof"
    assert len(result.warnings) == 1
    assert "1 pair(s) of near duplicates across folds" in result.warnings[0]
    shown = result.warnings[0].partition("e.g. ")[2].split(" and ")
    assert set(shown) == {"normal/0_0.png", f"AML/{other}_1.png"}, "names of the manifest"


def test_copies_within_a_fold_are_counted(manifest):
    paint(manifest, "normal/0_0.png", noise(999))
    paint(manifest, "normal/0_1.png", noise(999))
    result = audit(packed(manifest))
    assert result.ok
    assert result.warnings == ("1 image(s) repeat another of their fold byte for byte",)


def test_many_copies_are_compared_once(manifest, monkeypatch):
    paint(manifest, "normal/0_0.png", noise(999))
    paint(manifest, "normal/0_1.png", noise(999))
    folder, compared = packed(manifest), []
    monkeypatch.setattr(near_duplicates, "alike", lambda thumbnails: compared.append(len(thumbnails)) or [])
    assert audit(folder).ok
    assert compared == [len(Dataset.open(folder)) - 1]


def test_images_that_do_not_decode_are_no_near_duplicates(manifest):
    folder = packed(manifest)
    rewrite(folder, lambda items: [replace(item, jpeg=item.jpeg[:-9] + bytes(9)) for item in items])
    result = audit(folder)
    assert any("does not decode" in text for text in result.errors)
    assert result.near_duplicates.near == []


def test_a_leaf_from_one_of_several_sources_is_confounded(manifest):
    def sources(table):
        elsewhere = (table["leaf"] == "AML") | (table["leaf"] == "normal") & table["patient"].str.endswith(
            ("0", "1", "2")
        )
        return table.assign(source=np.where(elsewhere, "elsewhere", "here"))

    result = audit(packed(change_manifest(manifest, sources)))
    assert result.ok
    assert len(result.warnings) == 1
    assert "source = class for AML from 'elsewhere', APML from 'here'" in result.warnings[0]
    assert "normal from" not in result.warnings[0]
    assert result.baselines["source only"] > result.baselines["commonest leaf"] + 0.2


def test_folds_without_patients_give_a_warning(manifest):
    result = audit(packed(change_manifest(manifest, lambda table: table.assign(patient=""))))
    assert result.ok
    assert any("keep each image together, not each patient" in text for text in result.warnings)


def _grouped(kind: str, patient: bool = True):
    return lambda table: table.assign(group=kind, patient=table["patient"] if patient else "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table, "18 patients"),
        (_grouped("slide"), "18 groups (slides, or patients where known)"),
        (_grouped("image", patient=False), "36 groups (each image by itself)"),
        (
            lambda table: table.assign(patient=table["patient"].where(table.index % 6 != 0, "")),
            "24 groups (patients or slides where known, else single images)",
        ),
    ],
)
def test_groups_are_called_what_they_are(manifest, change, says):
    out = packed(change_manifest(manifest, change))
    result = audit(out)
    assert result.lines()[0].endswith(f" pixels, {says}")
    word = says.split()[1]
    packing = PackSummary(result.dataset, written=True).lines()[2]
    assert packing.startswith(f"3 folds of {says}: images [")
    assert f", {word} [" in packing


def test_the_id_of_a_slide_in_two_folds_is_no_patient(manifest):
    def split(index):
        index.loc[index["fold"] < 2, "patient"] = "one"

    out = packed(change_manifest(manifest, _grouped("slide")))
    edit(out, split)
    assert any("leakage: 1 slide(s) or patient(s) are in several folds" in text for text in audit(out).errors)


# --- baselines


def test_baselines_use_colour_but_no_morphology(manifest):
    """Leaves are equally frequent: a constant guess of three gives macro-F1 (2 * 1/3 / (4/3)) / 3 = 1/6.

    A colour cast per leaf gives a perfect score.
    """
    plain = audit(packed(manifest)).baselines
    assert plain["commonest leaf"] == pytest.approx(1 / 6)
    assert plain["colour only"] < 0.6
    assert "source only" not in plain, "one source tells nothing"
    for channel, leaf in enumerate(LEAVES):
        for path in (manifest.parent / leaf).iterdir():
            picture = np.asarray(Image.open(path)).copy()
            picture[..., channel] = picture[..., channel] // 4
            Image.fromarray(picture).save(path)
    manifest.parent.with_name("shards").rename(manifest.parent.with_name("before"))
    assert audit(packed(manifest)).baselines["colour only"] > 0.95


@pytest.mark.slow("audits a real set")
def test_real_deepapl_is_ok(real_data, tmp_path):
    from leukotree.data.sources.importer import import_source

    import_source("deepapl", real_data / "deepapl", tmp_path / "m.csv", cell_types=True)
    pack(tmp_path / "m.csv", tmp_path / "shards", size=64, drop_broken=True)
    dropped = json.loads((tmp_path / "shards" / "dataset.json").read_text())["dropped"]
    assert sorted(Path(item["image"]).name for item in dropped) == ["BL_7744281.jpg", "BL_7821735.jpg"]
    result = audit(tmp_path / "shards")
    assert result.ok, result.errors
    assert len(result.dataset) == 2467
    assert result.dataset.index["patient"].nunique() == 82
    assert not any("near duplicates" in text for text in result.warnings)
    assert result.baselines["commonest leaf"] < result.baselines["colour only"] < 0.7
