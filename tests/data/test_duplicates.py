"""Copies of a picture: refused or joined by pack, refused before training, all named by an audit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from leukotree.data import duplicates
from leukotree.data.audit import contact_sheet
from leukotree.data.audit.audit import audit
from leukotree.data.dataset import Dataset
from leukotree.data.images import codec
from leukotree.data.pack import pack
from leukotree.errors import InputError
from tests.helpers.commandline import assert_refused, leukotree
from tests.helpers.small_data import change_manifest, files, noise, write_manifest

SMALL = {"folds": 3, "size": 32, "samples_per_shard": 5, "workers": 1}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path / "raw")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def copy(manifest: Path, name: str, *others: str) -> None:
    for other in others:
        shutil.copy(manifest.parent / name, manifest.parent / other)


def as_bmp(manifest: Path, name: str, other: str) -> None:
    """Make `other` the picture of `name` in another format, so that only the pixels show the copy."""
    with Image.open(manifest.parent / name) as picture:
        (manifest.parent / other).unlink()
        bmp = str(Path(other).with_suffix(".bmp"))
        picture.save(manifest.parent / bmp)
    change_manifest(manifest, lambda table: table.replace(other, bmp))


# --- pack


def test_copies_in_two_groups_are_refused_before_anything_is_written(manifest: Path, out: Path) -> None:
    copy(manifest, "AML/0_0.png", "AML/1_0.png")
    with pytest.raises(
        InputError,
        match=r"'AML/0_0.png' \(group here/AML-0\) = 'AML/1_0.png' \(group here/AML-1\).*--group-dup",
    ):
        pack(manifest, out, **SMALL)
    assert sorted(path.name for path in out.parent.iterdir()) == ["raw"]


def test_warnings_of_pillow_about_copies_are_not_shown(
    manifest: Path, out: Path, recwarn: pytest.WarningsRecorder
) -> None:
    with Image.open(manifest.parent / "AML/0_0.png") as picture:
        picture.save(manifest.parent / "AML/0_0.png", format="JPEG", exif=b"Exif\0\0II*\0garbage garbage")
    copy(manifest, "AML/0_0.png", "AML/1_0.png")
    with pytest.raises(InputError, match="exact copies of one picture"):
        pack(manifest, out, **SMALL)
    assert [str(warning.message) for warning in recwarn] == []


def test_copies_with_different_leaves_are_refused_with_or_without_the_option(
    manifest: Path, out: Path
) -> None:
    copy(manifest, "AML/0_0.png", "APML/1_0.png", "APML/2_0.png")
    for join in (False, True):
        with pytest.raises(
            InputError,
            match=r"'AML/0_0.png' \(leaf AML\) = 'APML/1_0.png' \(leaf APML\).*out of the manifest",
        ):
            pack(manifest, out, **SMALL, group_duplicates=join)
    assert sorted(path.name for path in out.parent.iterdir()) == ["raw"]


def test_copies_of_one_patient_with_two_leaves_are_refused(manifest: Path, out: Path) -> None:
    copy(manifest, "AML/0_0.png", "AML/0_1.png")
    change_manifest(
        manifest,
        lambda table: table.assign(leaf=table["leaf"].where(table["image"] != "AML/0_1.png", "APML")),
    )
    with pytest.raises(InputError, match="different leaves"):
        pack(manifest, out, **SMALL)


def test_copies_that_only_the_pixels_show_are_refused_and_nothing_is_left(manifest: Path, out: Path) -> None:
    as_bmp(manifest, "AML/0_0.png", "AML/1_0.png")
    with pytest.raises(InputError, match=r"'AML/0_0.png' .* = 'AML/1_0.bmp'.*--group-duplicates"):
        pack(manifest, out, **SMALL)
    as_bmp(manifest, "AML/2_0.png", "APML/1_0.png")
    with pytest.raises(InputError, match=r"'AML/2_0.png' \(leaf AML\) = 'APML/1_0.bmp' \(leaf APML\)"):
        pack(manifest, out, **SMALL, group_duplicates=True)
    assert sorted(path.name for path in out.parent.iterdir()) == ["raw"]


@pytest.mark.parametrize("place", [copy, as_bmp])
def test_groups_that_share_copies_become_one_over_any_number_of_steps(
    manifest: Path, out: Path, place: object
) -> None:
    place(manifest, "AML/0_0.png", "AML/1_0.png")  # type: ignore[operator]
    place(manifest, "AML/1_1.png", "AML/2_1.png")  # type: ignore[operator]
    summary = pack(manifest, out, **SMALL, group_duplicates=True)
    index = Dataset.open(out).index
    assert index[index["patient"].isin(["AML-0", "AML-1", "AML-2"])][
        ["group", "fold"]
    ].drop_duplicates().shape == (1, 2)
    assert index["group"].nunique() == 16
    assert (index.groupby("group")["fold"].nunique() == 1).all()
    assert any("2 image(s) are exact copies" in line for line in summary.lines())
    assert audit(out).ok
    assert not pack(manifest, out, **SMALL, group_duplicates=True).written
    with pytest.raises(InputError, match="group_duplicates True there, False now"):
        pack(manifest, out, **SMALL)


def test_the_folds_of_joined_groups_are_those_of_a_manifest_with_these_groups(
    manifest: Path, tmp_path: Path
) -> None:
    as_bmp(manifest, "AML/0_0.png", "AML/1_0.png")
    pack(manifest, tmp_path / "joined", **SMALL, group_duplicates=True)
    change_manifest(manifest, lambda table: table.replace("AML-1", "AML-0"))
    pack(manifest, tmp_path / "grouped", **SMALL)
    folds = [
        Dataset.open(tmp_path / name).index.set_index("key")["fold"].to_dict()
        for name in ("joined", "grouped")
    ]
    assert folds[0] == folds[1]


def test_a_killed_pack_goes_on_with_joined_groups(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_bmp(manifest, "AML/0_0.png", "AML/1_0.png")
    pack(manifest, tmp_path / "undisturbed", **SMALL, group_duplicates=True)
    made, whole = [], codec.square

    class Killed(BaseException):
        pass

    def mortal(*arguments: object) -> bytes:
        if len(made) == 36 + 20:  # in the second round, after the copies are known
            raise Killed
        made.append(None)
        return whole(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(codec, "square", mortal)
        with pytest.raises(Killed):
            pack(manifest, tmp_path / "killed", **SMALL, group_duplicates=True)
    pack(manifest, tmp_path / "killed", **SMALL, group_duplicates=True)
    assert files(tmp_path / "killed") == files(tmp_path / "undisturbed")


def test_broken_files_that_are_alike_are_broken_not_copies(manifest: Path, out: Path) -> None:
    for name in ("AML/0_0.png", "APML/1_0.png", "normal/2_0.png"):
        (manifest.parent / name).write_bytes(b"<html>404</html>")
    with pytest.raises(InputError, match=r"3 broken image\(s\)"):
        pack(manifest, out, **SMALL)
    assert len(pack(manifest, out, **SMALL, drop_broken=True).dataset) == 33


@given(
    groups=st.lists(st.sampled_from("abcdefg"), min_size=2, max_size=20),
    links=st.lists(st.lists(st.integers(0, 19), min_size=2, max_size=4, unique=True), min_size=1, max_size=6),
)
def test_joined_is_the_smallest_partition_that_keeps_groups_and_copies_together(
    groups: list[str], links: list[list[int]]
) -> None:
    sets = [np.array([row % len(groups) for row in rows]) for rows in links]
    names = list(groups)
    changed = True
    while changed:  # a simple version: all groups of a set take the smallest name
        changed = False
        together = [[names[row] for row in rows] for rows in sets]
        for some in together:
            for name in some:
                if name != min(some):
                    names = [min(some) if one == name else one for one in names]
                    changed = True
            if changed:
                break
    assert duplicates.join_groups(pd.Series(groups), sets).tolist() == names


# --- before training


@pytest.fixture
def old(shards: Path, tmp_path: Path) -> Path:
    """Shards as an older version packed them: without names in the index, and with a copy in another fold."""
    folder = shutil.copytree(shards, tmp_path / "data")
    index = pd.read_parquet(folder / "index.parquet").drop(columns="image")
    first, other = index.index[index["fold"] == 0][0], index.index[(index["fold"] == 1)][0]
    index.loc[other, "sha256"] = index.loc[first, "sha256"]
    index.to_parquet(folder / "index.parquet", index=False)
    return folder


def test_every_verb_that_trains_refuses_copies_in_two_folds(old: Path, tmp_path: Path) -> None:
    keys = pd.read_parquet(old / "index.parquet").groupby("fold")["key"].first()
    base = {
        "data": {"shards": "data"},
        "backbone": {"name": "test_vit"},
        "optim": {"epochs": 1, "batch_size": 4},
    }
    study = {"study": "s", "base": base, "variants": ["flat"], "folds": {"outer": 4, "inner": 2}}
    search = {"trials": 1, "space": {"loss.gamma": {"uniform": [0, 5]}}}
    grid = {"grid": {"loss.gamma": [0, 1]}}
    for name, value in {
        "run": base,
        "search": study | {"search": search},
        "study": study,
        "grid": study | grid,
    }.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(value))
    for words in (
        ("train", "run.yaml"),
        ("train", "run.yaml", "--dry-run"),
        ("sweep", "search.yaml"),
        ("sweep", "search.yaml", "--dry-run"),
        ("folds", "search.yaml"),
        ("folds", "study.yaml", "search.trials=0"),
        ("grid", "grid.yaml"),
    ):
        done = leukotree(*words, cwd=tmp_path)
        assert_refused(done, "data: exact copies", repr(keys[0]), repr(keys[1]), "--group-duplicates")
    assert not (tmp_path / "results").exists()


def test_copies_of_one_group_may_be_trained_on(manifest: Path, out: Path) -> None:
    copy(manifest, "AML/0_0.png", "AML/0_1.png")
    pack(manifest, out, **SMALL)
    duplicates.refuse(Dataset.open(out))


def test_copies_in_two_groups_of_one_fold_are_refused_since_inner_folds_divide_groups(
    manifest: Path, out: Path
) -> None:
    pack(manifest, out, **SMALL)
    index = pd.read_parquet(out / "index.parquet")
    rows = index[index["fold"] == 0].groupby("group").head(1).index[:2]
    index.loc[rows[1], "sha256"] = index.loc[rows[0], "sha256"]
    index.to_parquet(out / "index.parquet", index=False)
    with pytest.raises(InputError, match="exact copies of one picture in different folds or groups"):
        duplicates.refuse(Dataset.open(out))


# --- audit


def blurred(manifest: Path, name: str, seed: int) -> None:
    picture = noise(999).astype(int)
    changed = picture + np.random.default_rng(seed).integers(-6, 7, picture.shape)
    Image.fromarray(np.clip(changed, 0, 255).astype(np.uint8)).save(manifest.parent / name)


def test_an_audit_names_every_copy_by_its_path_as_json(manifest: Path, out: Path) -> None:
    for number in range(6):
        blurred(manifest, f"AML/{number}_0.png", number)
    copy(manifest, "normal/0_0.png", "normal/0_1.png")
    pack(manifest, out, **SMALL)
    done = leukotree("audit", out, "--json", cwd=out.parent)
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert answer["ok"]
    assert [item["images"] for item in answer["copies"]] == [["normal/0_0.png", "normal/0_1.png"]]
    assert not answer["copies"][0]["across_folds"]
    assert not answer["copies"][0]["leaves_differ"]
    pairs = {tuple(sorted(item["images"])) for item in answer["near_duplicates"]}
    assert pairs == {
        (f"AML/{one}_0.png", f"AML/{other}_0.png") for one in range(6) for other in range(one + 1, 6)
    }
    assert answer["in_several_folds"] == {"group": [], "patient": []}


def test_an_audit_of_older_shards_knows_the_names_from_the_shards(old: Path) -> None:
    result = audit(old)
    across = [item for item in result.as_dict()["copies"] if item["across_folds"]]
    assert len(across) == 1
    assert all(name.endswith((".png", ".jpg")) for name in across[0]["images"])
    assert any(
        "leakage: 2 images have an exact copy in another fold" in text and across[0]["images"][0] in text
        for text in result.errors
    )


def test_copies_with_different_leaves_are_an_error_of_an_audit(manifest: Path, out: Path) -> None:
    pack(manifest, out, **SMALL)
    index = pd.read_parquet(out / "index.parquet")
    rows = [index.index[index["leaf"] == leaf][0] for leaf in ("AML", "APML")]
    index.loc[rows[1], "sha256"] = index.loc[rows[0], "sha256"]
    index.to_parquet(out / "index.parquet", index=False)
    result = audit(out)
    names = index.loc[sorted(rows), "image"].tolist()
    assert any(
        "labels: 1 picture(s) have exact copies with different leaves" in text and names[0] in text
        for text in result.errors
    )


def test_the_contact_sheet_shows_pairs_across_folds_first_and_nothing_from_outside(
    manifest: Path, out: Path
) -> None:
    bad = 'AML/<script>alert("1")<!--.png'
    (manifest.parent / bad).parent.mkdir(exist_ok=True)
    blurred(manifest, bad, 0)
    (manifest.parent / "AML/0_0.png").unlink()
    change_manifest(manifest, lambda table: table.replace("AML/0_0.png", bad))
    for number in range(1, 6):
        blurred(manifest, f"AML/{number}_0.png", number)
    copy(manifest, "normal/0_0.png", "normal/0_1.png")
    pack(manifest, out, **SMALL)
    page = out.parent / "new" / "pairs.html"
    assert leukotree("audit", out, "--html", page, cwd=out.parent).returncode == 0
    html = page.read_text()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    assert "http://" not in html
    assert "https://" not in html
    assert "16 pair(s)" in html
    assert "All are shown." in html
    assert html.count("data:image/jpeg;base64,") == 32 + 6, "16 pairs, and a group of six"
    assert "6 images, " in html
    pairs = html.partition("<h1>Groups")[0]
    kinds = [line for line in pairs.splitlines() if line.startswith("<h2>")]
    assert kinds == sorted(kinds, key=lambda line: ("one fold" in line, "near" in line))
    assert len(set(kinds)) == 3


def test_the_contact_sheet_says_how_many_pairs_it_leaves_out(
    manifest: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        blurred(manifest, f"AML/{number}_0.png", number)
    pack(manifest, out, **SMALL)
    monkeypatch.setattr(contact_sheet, "PAIRS", 4)
    contact_sheet.write(audit(out), out.parent / "pairs.html")
    html = (out.parent / "pairs.html").read_text()
    assert "15 pair(s)" in html
    assert "The first 4 are shown" in html
    assert html.count('<div class="pair') == 4
