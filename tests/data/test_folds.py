"""Folds: groups stay together, every sample is tested once, and inner folds never see the test fold."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from leukotree.data import folds
from leukotree.errors import InputError
from leukotree.spec import DataSpec, InnerFold

LEAVES = ("normal", "AML", "APML")


@st.composite
def frames(draw):
    """Patients with one leaf (6 to 10 per leaf), a few with two, and 1 to 4 images per patient and leaf."""
    rows = []
    for leaf in LEAVES:
        for number in range(draw(st.integers(6, 10))):
            images = draw(st.integers(1, 4))
            rows += [(leaf, f"{leaf}{number}")] * images
            if draw(st.booleans()):
                rows.append(("normal", f"{leaf}{number}"))
    order = draw(st.permutations(range(len(rows))))
    return pd.DataFrame([rows[place] for place in order], columns=["leaf", "group"])


quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(frames(), st.integers(2, 5), st.integers(0, 2**31 - 1))
def test_groups_stay_together_and_every_fold_holds_every_leaf(frame, count, seed):
    fold_ids = folds.assign(frame, count, seed)
    assert fold_ids.shape == (len(frame),)
    assert (frame.assign(fold=fold_ids).groupby("group")["fold"].nunique() == 1).all()
    present = pd.crosstab(fold_ids, frame["leaf"])
    assert present.shape == (count, len(LEAVES))
    assert (present > 0).all(axis=None)


@quick
@given(frames(), st.integers(2, 7), st.integers(0, 2**31 - 1))
def test_a_division_is_that_of_scikit_learn(frame, count, seed):
    leaf_ids, groups = (pd.factorize(frame[name], sort=True)[0] for name in ("leaf", "group"))
    expected = np.full(len(frame), -1)
    splitter = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
    for fold, (_, rows) in enumerate(splitter.split(leaf_ids, leaf_ids, groups)):
        expected[rows] = fold
    counts = np.array(pd.crosstab(groups, leaf_ids), np.int32)
    actual = folds._stratified(counts.tobytes(), len(LEAVES), count, seed)[groups]
    np.testing.assert_array_equal(actual, expected)


@quick
@given(frames(), st.integers(0, 2**31 - 1), st.randoms())
def test_folds_follow_from_seed_and_samples_whatever_their_order(frame, seed, random):
    fold_ids = folds.assign(frame, 3, seed)
    np.testing.assert_array_equal(fold_ids, folds.assign(frame, 3, seed))
    order = list(range(len(frame)))
    random.shuffle(order)
    np.testing.assert_array_equal(fold_ids[order], folds.assign(frame.iloc[order], 3, seed))


@quick
@given(frames(), st.integers(0, 3), st.integers(0, 1))
def test_inner_folds_leave_the_test_fold_and_its_groups_alone(frame, test_fold, inner_fold):
    index = frame.assign(fold=folds.assign(frame, 4, 0))
    outer_train, test = folds.split(index, DataSpec(test_fold=test_fold))
    assert sorted([*outer_train, *test]) == list(range(len(index)))
    assert set(index["fold"].iloc[test]) == {test_fold}

    inner = [
        folds.split(index, DataSpec(test_fold=test_fold, inner=InnerFold(folds=2, fold=fold)))
        for fold in range(2)
    ]
    train, scored = inner[inner_fold]
    assert sorted([*train, *scored]) == list(outer_train)
    groups = index["group"]
    assert not set(groups.iloc[train]) & set(groups.iloc[scored])
    assert not set(groups.iloc[[*train, *scored]]) & set(groups.iloc[test])
    assert sorted([*inner[0][1], *inner[1][1]]) == list(outer_train), (
        "each training sample is scored by one inner fold"
    )


def test_a_seed_deals_the_inner_folds_anew():
    frame = pd.DataFrame({"leaf": ["a", "b"] * 30, "group": [str(row // 2) for row in range(60)]})
    index = frame.assign(fold=folds.assign(frame, 3, 0))

    def scored(seed: int) -> list[list[int]]:
        inner = [InnerFold(folds=2, fold=fold, seed=seed) for fold in range(2)]
        return [folds.split(index, DataSpec(test_fold=1, inner=one))[1].tolist() for one in inner]

    assert scored(0) != scored(7) == scored(7)
    assert sorted(row for rows in scored(0) for row in rows) == sorted(
        row for rows in scored(7) for row in rows
    )


def test_all_folds_are_trained_on_and_none_is_scored():
    index = pd.DataFrame({"fold": [1, 0, 2, 0]})
    train, scored = folds.split(index, DataSpec(all_folds=True))
    assert train.tolist() == [0, 1, 2, 3]
    assert scored.tolist() == []


def test_seeds_give_different_folds():
    frame = pd.DataFrame({"leaf": ["a", "b"] * 20, "group": [str(row // 2) for row in range(40)]})
    assert (folds.assign(frame, 4, 0) != folds.assign(frame, 4, 1)).any()


def test_a_rare_leaf_reaches_every_fold_though_the_first_division_may_miss_one():
    """Three groups hold the rare leaf. Their other images differ in number, which misleads stratification."""
    sizes = [1, 2, 40, *[5] * 12]
    rows = [("common", str(group)) for group, size in enumerate(sizes) for _ in range(size)]
    frame = pd.DataFrame([*rows, *[("rare", str(group)) for group in range(3)]], columns=["leaf", "group"])
    for seed in range(20):
        fold_ids = folds.assign(frame, 3, seed)
        assert set(fold_ids[frame["leaf"] == "rare"]) == {0, 1, 2}


def test_refusals():
    frame = pd.DataFrame({"leaf": ["CML", "CML", "AML", "AML", "AML"], "group": list("aabcd")})
    with pytest.raises(InputError, match=r"leaf 'CML' has 1 group.*fewer than 2 folds.*'AML': 3"):
        folds.assign(frame, 2, 0)
    with pytest.raises(InputError, match="at least 2"):
        folds.assign(frame, 1, 0)
    with pytest.raises(InputError, match="no images"):
        folds.assign(frame.iloc[:0], 2, 0)
    index = pd.DataFrame(
        {"leaf": ["a", "b"] * 4, "group": list("ccddeeff"), "fold": [0, 0, 0, 0, 1, 1, 1, 1]}
    )
    with pytest.raises(InputError, match=r"test_fold 2: .* has folds 0 to 1"):
        folds.split(index, DataSpec(test_fold=2))
    with pytest.raises(InputError, match=r"data.inner.folds, beside test fold 1: leaf 'a' has 2 group"):
        folds.split(index, DataSpec(test_fold=1, inner=InnerFold(folds=3)))


def test_impossible_division_is_refused_with_one_line():
    """Each leaf has enough groups, but no division gives every fold every leaf."""
    # Of x, y and z two are in one fold. The leaf that only these two hold is absent from the other fold.
    rows = [("a", "x"), ("a", "y"), ("b", "y"), ("b", "z"), ("c", "x"), ("c", "z")]
    frame = pd.DataFrame(rows, columns=["leaf", "group"])
    with pytest.raises(InputError, match="no division into 2 folds") as refusal:
        folds.assign(frame, 2, 0)
    assert "\n" not in str(refusal.value)
