"""Repeats of the cross-validation: further deals of the same samples, in files beside the index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.data import deals, duplicates, fingerprint, folds
from leukotree.data.audit.audit import audit
from leukotree.data.dataset import Dataset
from leukotree.data.pack import pack
from leukotree.errors import InputError
from leukotree.records import made
from leukotree.spec import DataSpec, InnerFold
from tests.helpers.commandline import assert_refused, leukotree
from tests.helpers.small_data import files, write_manifest


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed folder without further deals."""
    folder = tmp_path_factory.mktemp("deals")
    pack(write_manifest(folder / "raw"), folder / "set", folds=3, size=16, samples_per_shard=5, workers=1)
    return folder / "set"


@pytest.fixture
def folder(packed: Path, tmp_path: Path) -> Path:
    """A copy of the packed folder with the deals of the repeats 1 and 2."""
    for name, content in files(packed).items():
        (tmp_path / name).write_bytes(content)
    assert Dataset.open(tmp_path).deal(3) == (1, 2)
    return tmp_path


def test_a_deal_is_another_division_of_the_same_samples(packed: Path, folder: Path) -> None:
    first, again = Dataset.open(folder), Dataset.open(folder, repeat=1)
    assert first.index.drop(columns="fold").equals(again.index.drop(columns="fold"))
    assert not np.array_equal(first.index["fold"], again.index["fold"])
    assert [again.read(row) for row in range(len(again))] == [first.read(row) for row in range(len(first))]
    duplicates.refuse(again)
    assert {name: content for name, content in files(folder).items() if not name.startswith("folds-")} == (
        files(packed)
    )


@pytest.mark.parametrize("repeat", [1, 2])
def test_within_a_repeat_a_group_lies_in_one_fold_and_each_fold_has_each_leaf(
    folder: Path, repeat: int
) -> None:
    data = Dataset.open(folder, repeat=repeat)
    assert (data.index.groupby("group")["fold"].nunique() == 1).all()
    assert (pd.crosstab(data.index["fold"], data.index["leaf"]) == 4).all(axis=None)
    tests = [folds.split(data.index, DataSpec(test_fold=fold))[1] for fold in range(3)]
    assert np.array_equal(np.sort(np.concatenate(tests)), np.arange(len(data)))


def test_inner_folds_never_hold_the_outer_test_fold_of_their_repeat(folder: Path) -> None:
    data = Dataset.open(folder, repeat=2)
    test = folds.split(data.index, DataSpec(test_fold=1))[1]
    for fold in range(2):
        spec = DataSpec(test_fold=1, repeat=2, inner=InnerFold(folds=2, fold=fold))
        train, scored = folds.split(data.index, spec)
        assert not np.intersect1d(test, np.concatenate([train, scored])).size


def test_more_repeats_leave_the_earlier_ones_as_they_are(folder: Path) -> None:
    before = files(folder)
    assert Dataset.open(folder).deal(2) == ()
    assert Dataset.open(folder).deal(5) == (3, 4)
    assert before.items() <= files(folder).items()
    assert deals.numbers(folder) == [1, 2, 3, 4]


def test_the_fingerprint_of_a_repeat_has_its_deal_and_no_other(packed: Path, folder: Path) -> None:
    data = [Dataset.open(folder, repeat=repeat) for repeat in range(3)]
    assert len({one.fingerprint for one in data}) == 3
    assert {one.samples for one in data} == {data[0].fingerprint} == {Dataset.open(packed).fingerprint}
    for one in data:
        today = fingerprint.packed(folder, one.repeat)
        assert today is not None
        assert today.fingerprint == one.fingerprint
    (folder / "folds-2.parquet").unlink()
    assert Dataset.open(folder, repeat=1).fingerprint == data[1].fingerprint
    assert fingerprint.packed(folder / "none", 1) is None


def test_a_repeat_that_is_not_dealt_is_refused_with_the_command_that_deals_it(folder: Path) -> None:
    fix = rf"repeat 4 is not dealt; run `leukotree pack {folder} --repeats 5`"
    for look in (lambda: Dataset.open(folder, repeat=4), lambda: fingerprint.packed(folder, 4)):
        with pytest.raises(InputError, match=fix):
            look()


def _table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "folds-1.parquet")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda table: table.iloc[1:], "35 samples, the index has 36"),
        (lambda table: table.assign(key=table["key"].iloc[::-1].to_numpy()), "other samples than the index"),
        (lambda table: table.assign(fold=table["fold"] % 2), r"its folds are \[0, 1\], not 0 to 2"),
        (lambda table: table.assign(fold=table["fold"] + 0.5), "must hold whole numbers"),
        (lambda table: table.assign(fold=np.arange(36) % 3), "is in two folds"),
        (lambda table: table.drop(columns="fold"), "not a readable deal"),
    ],
)
def test_a_damaged_deal_is_refused_by_its_file(folder: Path, damage, problem: str) -> None:
    damage(_table(folder)).to_parquet(folder / "folds-1.parquet", index=False)
    with pytest.raises(InputError, match=problem) as caught:
        Dataset.open(folder, repeat=1)
    assert str(folder / "folds-1.parquet") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_audit_looks_at_each_deal(folder: Path) -> None:
    result = audit(folder)
    assert result.ok
    assert [deal["repeat"] for deal in result.as_dict()["repeats"]] == [1, 2]
    assert "repeat 2: a deal of its own to 3 folds" in result.lines()
    (folder / "folds-1.parquet").write_bytes(b"PAR1")
    broken = audit(folder)
    assert not broken.ok
    assert "folds-1.parquet" in broken.errors[0]


def test_pack_adds_deals_to_shards_that_are_packed(folder: Path) -> None:
    before = files(folder)
    done = leukotree("pack", folder.name, "--repeats", "4", cwd=folder.parent)
    assert done.returncode == 0
    assert "for the repeats 0, 1, 2, 3; written now: 3" in done.stdout
    assert before.items() <= files(folder).items()
    assert "all were there" in leukotree("pack", ".", "--repeats", "4", cwd=folder).stdout


def test_pack_deals_a_manifest_at_once_or_later(tmp_path: Path) -> None:
    """The note of the commands has the later one, so that a report can print it."""
    write_manifest(tmp_path / "raw")
    words = ["pack", "raw/manifest.csv", "set", "--folds", "3", "--size", "16"]
    assert leukotree(*words, cwd=tmp_path).returncode == 0
    assert "for the repeats 1, written now: 1" in leukotree(*words, "--repeats", 2, cwd=tmp_path).stdout
    assert [command for command, _ in made.commands(tmp_path / "set")] == [words, [*words, "--repeats", "2"]]
    assert leukotree(*words[:2], "other", *words[3:], "--repeats", 2, cwd=tmp_path).returncode == 0
    deal = "folds-1.parquet"
    assert (tmp_path / "set" / deal).read_bytes() == (tmp_path / "other" / deal).read_bytes()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["absent", "--repeats", "2"], "absent: no packed folder to deal again"),
        (["absent"], "absent: the folder SHARDS is missing"),
        ([".", "--repeats", "5000"], "repeats 5000: must be from 1 to 1000"),
    ],
)
def test_bad_repeats_are_refused_in_one_line(folder: Path, words: list[str], problem: str) -> None:
    assert_refused(leukotree("pack", *words, cwd=folder), problem)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(3, 6), st.integers(1, 4)), min_size=2, max_size=4), st.integers(0, 9))
def test_ragged_groups_stay_together_in_every_deal(leaves: list[tuple[int, int]], seed: int) -> None:
    """Leaves of 3 to 6 patients with 1 to 4 images each: three folds are always possible."""
    rows = [
        (f"leaf{leaf}", f"{leaf}-{patient}")
        for leaf, (patients, images) in enumerate(leaves)
        for patient in range(patients)
        for _ in range(images)
    ]
    frame = pd.DataFrame(rows, columns=["leaf", "group"])
    dealt = folds.assign(frame, 3, seed)
    assert (frame.assign(fold=dealt).groupby("group")["fold"].nunique() == 1).all()
    assert (pd.crosstab(dealt, frame["leaf"]) > 0).all(axis=None)
