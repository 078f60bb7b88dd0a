"""Answers that need no morphology: what source, site, scanner and colour give away."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from leukotree.data.audit import shortcuts

FOLDS = np.array([0, 0, 0, 1, 1, 1])


def test_a_source_that_is_the_leaf_gives_it_away_and_one_that_has_all_leaves_does_not():
    leaf = np.array([0, 1, 2, 0, 1, 2])
    same, none = leaf, np.zeros(6, dtype=np.int64)
    assert shortcuts.score(shortcuts.by_value(same, leaf), leaf, FOLDS, 3).macro_f1 == 1
    one = shortcuts.score(shortcuts.by_value(none, leaf), leaf, FOLDS, 3)
    assert one.macro_f1 == pytest.approx(1 / 6), "one leaf of three is answered: 2 * 1/3 / (1/3 + 1), over 3"
    assert one.per_leaf == pytest.approx([0.5, 0, 0])


def test_rare_leaves_count_as_much_as_common_ones():
    """Source 1 has 2 of 2 images of leaf 1 and 3 of 6 of leaf 0: it answers the rare leaf 1."""
    leaf, source = np.array([0] * 6 + [1] * 2), np.array([0] * 3 + [1] * 5)
    rows = np.arange(8)
    assert shortcuts.by_value(source, leaf)(rows, rows).tolist() == [0] * 3 + [1] * 5
    assert shortcuts.commonest(leaf)(rows, rows).tolist() == [0] * 8


def test_a_source_that_was_not_trained_on_gets_the_commonest_leaf():
    leaf, source = np.array([1, 1, 0, 0]), np.array([0, 0, 0, 1])
    assert shortcuts.by_value(source, leaf)(np.arange(3), np.array([3])).tolist() == [1]


def test_a_leaf_that_a_fold_lacks_counts_as_zero_in_the_macro_f1_and_not_in_its_own():
    leaf = np.array([0, 1, 0, 0, 1, 2])
    one = shortcuts.score(shortcuts.by_value(leaf, leaf), leaf, FOLDS, 4)
    # Fold 1 has leaf 2, which no image of fold 0 has, and calls it leaf 0.
    assert one.macro_f1 == pytest.approx(np.mean([[1, 1, 0, 0], [2 / 3, 1, 0, 0]]))
    assert one.per_leaf[:3] == pytest.approx([5 / 6, 1, 0])
    assert np.isnan(one.per_leaf[3])


def test_no_score_without_two_leaves_to_learn():
    leaf = np.array([0, 0, 0, 1, 1, 1])
    assert np.isnan(shortcuts.score(shortcuts.commonest(leaf), leaf, FOLDS, 2).macro_f1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), min_size=4, max_size=40))
def test_scores_are_those_of_scikit_learn(rows):
    leaf, source, fold = np.array(rows).T
    guess = shortcuts.by_value(source, leaf)
    expected = []
    for held_out in np.unique(fold):
        train, test = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
        if len(np.unique(leaf[train])) > 1:
            answer = guess(train, test)
            expected.append(f1_score(leaf[test], answer, labels=range(4), average="macro", zero_division=0.0))
    one = shortcuts.score(guess, leaf, fold, 4)
    assert (
        one.macro_f1 == pytest.approx(np.mean(expected), nan_ok=True) if expected else np.isnan(one.macro_f1)
    )


def test_columns_with_one_value_say_nothing_and_equal_ones_are_one_shortcut():
    table = pd.DataFrame(
        {"source": list("aabb"), "scanner": list("xxyy"), "site": ["", "", "", "s"], "leaf": list("pqpq")}
    )
    codes = shortcuts.columns(table)
    assert {name: column.tolist() for name, column in codes.items()} == {
        "source and scanner only": [0, 0, 1, 1],
        "site only": [0, 0, 0, 1],
    }
    assert shortcuts.columns(table.assign(source="a", scanner="x", site="s")) == {}


def test_colours_of_two_cameras_give_the_source_away_and_noise_does_not():
    rng = np.random.default_rng(0)
    sources = np.repeat(["a", "b"], 40)
    groups = [f"p{number // 4}" for number in range(80)]
    noise = rng.normal(size=(80, 6))
    cast = noise + 9 * (sources == "b")[:, None]
    found = shortcuts.of_source(
        sources.tolist(), groups, {"cast": cast, "noise": noise, "code": np.zeros(80, int)}
    )
    assert found["cast"] == 1
    assert found["noise"] < 0.75
    assert found["commonest source"] <= 0.5
    assert found["code"] <= 0.5


def test_a_source_of_one_group_is_never_guessed_right():
    """It is held out whole: no other image shows its camera."""
    sources = ["a"] * 8 + ["b"] * 4
    groups = [f"a{number}" for number in range(8)] + ["b"] * 4
    colours = np.array([[0.0]] * 8 + [[9.0]] * 4)
    assert shortcuts.of_source(sources, groups, {"colour only": colours})["colour only"] <= 0.5


@pytest.mark.parametrize(("sources", "groups"), [(["a", "a"], ["p", "q"]), (["a", "b"], ["p", "p"])])
def test_one_source_or_one_group_has_no_score(sources, groups):
    assert shortcuts.of_source(sources, groups, {}) == {}


def test_chance_is_what_an_independent_column_reaches_and_a_shortcut_is_above_it():
    """Four equal leaves and two values: a random one answers two leaves, each with F1 = 1/3 (precision 1/4,
    recall 1/2); the others are 0, so the mean is 1/6. The most common leaf alone has 0.4 / 4."""
    rng = np.random.default_rng(3)
    leaf_ids = np.tile(np.arange(4), 1000)
    fold_ids = np.repeat(np.arange(4), 1000)
    groups = [f"p{number}" for number in range(4000)]
    chance = shortcuts.by_chance(rng.integers(0, 2, 4000), groups, leaf_ids, fold_ids, 4)
    assert chance == pytest.approx(1 / 6, abs=0.03)
    giveaway = (leaf_ids >= 2).astype(np.int64)
    of_leaf = shortcuts.score(shortcuts.by_value(giveaway, leaf_ids), leaf_ids, fold_ids, 4).macro_f1
    assert of_leaf == pytest.approx(1 / 3)
    assert shortcuts.by_chance(giveaway, groups, leaf_ids, fold_ids, 4) < 0.2


def test_chance_shuffles_people_and_not_images():
    """With four people of one leaf each, half of all ways to give them two values are as good as any."""
    leaf_ids = np.repeat([0, 0, 1, 1], 50)
    fold_ids = np.repeat([0, 1, 0, 1], 50)
    people = [f"p{number}" for number in np.repeat(np.arange(4), 50)]
    images = [f"i{number}" for number in range(200)]
    codes = leaf_ids.astype(np.int64)
    assert shortcuts.by_chance(codes, people, leaf_ids, fold_ids, 2) == 1.0
    assert shortcuts.by_chance(codes, images, leaf_ids, fold_ids, 2) < 0.8
