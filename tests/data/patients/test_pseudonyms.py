"""`pack --pseudonyms`: only the table of numbers holds names of patients, slides and files."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from leukotree.data import shards
from leukotree.data.audit.audit import audit
from leukotree.data.dataset import Dataset
from leukotree.data.pack import pack
from leukotree.errors import InputError
from tests.helpers.commandline import assert_refused, leukotree
from tests.helpers.small_data import change_manifest, files, noise, write_manifest

SMALL = {"folds": 3, "size": 32, "samples_per_shard": 5, "workers": 1}
NAMES = ("Nguyen", "Okafor", "Weber", "Silva", "Rossi", "Kowalski")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A manifest whose files and patients have names of people."""
    path = write_manifest(tmp_path / "raw")

    def named(table: pd.DataFrame) -> pd.DataFrame:
        for row, old in enumerate(table["image"]):
            name = NAMES[int(Path(old).stem[0])]
            new = f"{Path(old).parent}/{name}_{Path(old).stem}.png"
            (path.parent / old).rename(path.parent / new)
            table.loc[row, ["image", "patient"]] = [new, f"{name}-{table.loc[row, 'leaf']}"]
        return table

    return change_manifest(path, named)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "shards"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "private" / "table.csv"


def written(*folders: Path) -> bytes:
    """Return all bytes of the files, and all texts of the tables."""
    paths = [path for folder in folders for path in folder.iterdir()]
    tables = [pd.read_parquet(path).to_csv().encode() for path in paths if path.suffix == ".parquet"]
    return b"".join([*(path.name.encode() + path.read_bytes() for path in paths), *tables])


def assert_nameless(content: bytes) -> None:
    assert [name for name in NAMES if name.encode() in content] == []


def test_no_name_is_written_and_the_table_gives_the_names(manifest: Path, out: Path, table: Path) -> None:
    broken = sorted((manifest.parent / "AML").glob("*.png"))[0]
    broken.write_bytes(b"P6\nRossi 3\n255\n" + bytes(27))  # a header that a decoder quotes when it fails
    summary = pack(manifest, out, **SMALL, pseudonyms=table, drop_broken=True)
    assert_nameless(written(out) + "".join(summary.lines()).encode() + "".join(audit(out).lines()).encode())
    index = Dataset.open(out).index
    assert index["patient"].str.fullmatch("P[0-9]{8}").all()
    assert index["key"].str.fullmatch("I[0-9]{8}").all()
    assert (index["image"] == index["key"]).all()
    known = pd.read_csv(table, dtype=str).set_index("number")
    manifested = pd.read_csv(manifest).set_index("image")
    for _, row in index.iterrows():
        name = known.loc[row["key"], "id"]
        assert manifested.loc[name, "patient"] == known.loc[row["patient"], "id"]
        assert manifested.loc[name, "leaf"] == row["leaf"]
    dropped = json.loads((out / "dataset.json").read_text())["dropped"]
    assert known.loc[dropped[0]["image"], "id"] == f"AML/{broken.name}"
    assert (index.groupby("patient")["fold"].nunique() == 1).all()
    assert index["patient"].nunique() == 18


def test_neither_numbers_nor_order_identify_a_patient(manifest: Path, tmp_path: Path) -> None:
    """Two tables number the same patients in different orders. A shard does not keep the manifest's order."""
    orders = []
    for name in ("a", "b"):
        pack(manifest, tmp_path / name, **SMALL, pseudonyms=tmp_path / f"{name}.csv")
        known = pd.read_csv(tmp_path / f"{name}.csv", dtype=str)
        orders.append(known[known["kind"] == "patient"].sort_values("number")["id"].tolist())
        assert known[known["kind"] == "image"].sort_values("number")["id"].tolist() != sorted(
            pd.read_csv(manifest)["image"]
        )
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_only_the_owner_can_read_the_table_and_a_second_pack_does_not_change_it(
    manifest: Path, out: Path, table: Path
) -> None:
    pack(manifest, out, **SMALL, pseudonyms=table)
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    before = table.read_bytes()
    assert not pack(manifest, out, **SMALL, pseudonyms=table).written
    pack(manifest, out.with_name("again"), **SMALL, pseudonyms=table)
    assert files(out) == files(out.with_name("again"))
    assert table.read_bytes() == before


def test_new_patients_get_new_numbers_and_the_others_keep_theirs(
    manifest: Path, out: Path, table: Path
) -> None:
    whole = manifest.read_text()
    change_manifest(manifest, lambda rows: rows[~rows["patient"].str.startswith("Silva")])
    pack(manifest, out, **SMALL, pseudonyms=table)
    first = pd.read_csv(table, dtype=str)
    manifest.write_text(whole)
    with pytest.raises(InputError, match="another manifest"):
        pack(manifest, out, **SMALL, pseudonyms=table)
    assert len(pd.read_csv(table)) == len(first), "nothing is written where the pack is refused"
    pack(manifest, out.with_name("more"), **SMALL, pseudonyms=table)
    both = pd.read_csv(table, dtype=str)
    assert len(both) == 18 + 36
    assert set(map(tuple, first.to_numpy())) < set(map(tuple, both.to_numpy()))


def test_a_pack_with_names_is_not_one_with_numbers(manifest: Path, tmp_path: Path, table: Path) -> None:
    pack(manifest, tmp_path / "named", **SMALL)
    with pytest.raises(InputError, match="pseudonyms False there, True now"):
        pack(manifest, tmp_path / "named", **SMALL, pseudonyms=table)
    pack(manifest, tmp_path / "numbered", **SMALL, pseudonyms=table)
    with pytest.raises(InputError, match="pseudonyms True there, False now"):
        pack(manifest, tmp_path / "numbered", **SMALL)
    with pytest.raises(InputError, match="another manifest"):
        pack(manifest, tmp_path / "numbered", **SMALL, pseudonyms=tmp_path / "other.csv")


def test_slides_and_images_without_a_patient_have_numbers(manifest: Path, out: Path, table: Path) -> None:
    def kinds(rows: pd.DataFrame) -> pd.DataFrame:
        rows.loc[rows["leaf"] == "AML", "patient"] = ""
        return rows.assign(group=["slide" if leaf == "APML" else "" for leaf in rows["leaf"]])

    pack(change_manifest(manifest, kinds), out, **SMALL, pseudonyms=table)
    index = Dataset.open(out).index
    assert_nameless(written(out))
    assert index.loc[index["leaf"] == "APML", "patient"].str.fullmatch("S[0-9]{8}").all()
    assert index.loc[index["leaf"] == "AML", "patient"].eq("").all()
    assert index.loc[index["leaf"] == "AML", "group"].str.fullmatch("here/I[0-9]{8}").all()
    assert index["group"].nunique() == 6 + 6 + 12


def test_one_name_below_two_roots_has_two_numbers(tmp_path: Path, out: Path, table: Path) -> None:
    one, two = (write_manifest(tmp_path / name) for name in ("one", "two"))
    for number, path in enumerate(sorted(two.parent.rglob("*.png"))):
        Image.fromarray(noise(500 + number)).save(path)
    rows = [pd.read_csv(path).assign(root=path.parent.name) for path in (one, two)]
    both = pd.concat(rows)
    both.assign(image=both["root"] + "/" + both["image"]).to_csv(tmp_path / "both.csv", index=False)
    pack(tmp_path / "both.csv", out, **SMALL, pseudonyms=table)
    assert len(Dataset.open(out)) == 72


def test_copies_are_kept_together_under_numbers(manifest: Path, out: Path, table: Path) -> None:
    names = sorted((manifest.parent / "AML").glob("*_0.png"))
    names[1].write_bytes(names[0].read_bytes())
    with pytest.raises(InputError, match=re.escape(f"'AML/{names[0].name}'")):
        pack(manifest, out, **SMALL, pseudonyms=table)
    assert not table.exists()
    pack(manifest, out, **SMALL, pseudonyms=table, group_duplicates=True)
    assert Dataset.open(out).index["group"].nunique() == 17
    assert_nameless(written(out))


def test_a_broken_image_is_named_in_the_message_and_not_in_the_folder(
    manifest: Path, out: Path, table: Path
) -> None:
    broken = sorted((manifest.parent / "AML").glob("*.png"))[0]
    broken.write_bytes(b"")
    with pytest.raises(InputError, match=re.escape(f"AML/{broken.name}")):
        pack(manifest, out, **SMALL, pseudonyms=table)


def test_an_audit_warns_that_numbers_hide_similar_ids(manifest: Path, out: Path, table: Path) -> None:
    pack(manifest, out, **SMALL, pseudonyms=table)
    assert any("numbers instead of names" in text for text in audit(out).warnings)


def test_what_a_killed_pack_leaves_holds_no_name(
    manifest: Path, out: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = sorted((manifest.parent / "AML").glob("*.png"))[0]
    broken.write_bytes(b"")
    whole, seen = shards.write, []

    class Killed(BaseException):
        pass

    def mortal(*arguments: object) -> object:
        seen.append(None)
        if len(seen) > 12:
            raise Killed
        return whole(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write", mortal)
        with pytest.raises(Killed):
            pack(manifest, out, **SMALL, pseudonyms=table, drop_broken=True)
    partial = out.with_name(f".{out.name}.partial")
    assert json.loads((partial / "pack.json").read_text())["dropped"]
    assert_nameless(written(partial))
    pack(manifest, out, **SMALL, pseudonyms=table, drop_broken=True)
    pack(manifest, out.with_name("undisturbed"), **SMALL, pseudonyms=table, drop_broken=True)
    assert files(out) == files(out.with_name("undisturbed"))


@pytest.mark.parametrize(
    "place",
    [
        "shards/t.csv",
        ".shards.partial/t.csv",
        "results/t.csv",
        "results/runs/s/t.csv",
        "set/t.csv",
        "run/t.csv",
        "t.txt",
    ],
)
def test_a_table_in_a_folder_for_other_people_is_refused(manifest: Path, tmp_path: Path, place: str) -> None:
    for name in ("set/dataset.json", "run/spec.yaml"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    done = leukotree(
        "pack", manifest, "shards", "--folds", 3, "--size", 32, "--pseudonyms", place, cwd=tmp_path
    )
    assert_refused(done, place)
    assert not (tmp_path / place).exists()
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "image,leaf,patient,source\n",
        "kind,source,id,number\npatient,here,x,7\n",
        "kind,source,id,number\nimage,here,x,P00000001\n",
        "kind,source,id,number\npatient,here,x,P00000001\npatient,here,y,P00000001\n",
        "kind,source,id,number\npatient,here,x,P00000001\npatient,here,x,P00000002\n",
    ],
)
def test_a_damaged_table_is_refused_and_left_alone(manifest: Path, out: Path, table: Path, text: str) -> None:
    table.parent.mkdir()
    table.write_text(text)
    with pytest.raises(InputError, match=r"table\.csv"):
        pack(manifest, out, **SMALL, pseudonyms=table)
    assert table.read_text() == text
    assert not out.exists()


def test_a_table_that_others_could_read_is_closed(manifest: Path, out: Path, table: Path) -> None:
    pack(manifest, out, **SMALL, pseudonyms=table)
    os.chmod(table, 0o644)
    pack(manifest, out.with_name("again"), **SMALL, pseudonyms=table)
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
