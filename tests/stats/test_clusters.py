"""Images by patient, strata, and scores of confusion matrices against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from leukotree import stats
from leukotree.errors import InputError
from leukotree.evaluation import metrics

L = 4
image = st.tuples(
    st.sampled_from(["", "p", "q", "r"]), st.integers(0, L - 1), st.integers(0, L - 1), st.integers(0, L - 1)
)
images = st.lists(image, min_size=1, max_size=30)


def square(*leaves: int) -> np.ndarray:
    """(L, L) counts of a patient with one correctly classified image of each of these leaves."""
    return np.diag(np.isin(np.arange(L), leaves).astype(float))


@given(images)
def test_scores_of_a_confusion_are_those_of_scikit_learn(rows):
    _, true, predicted, _ = zip(*rows, strict=True)
    table = metrics.confusion(np.array(true), np.array(predicted), L)
    options = {"labels": range(L), "zero_division": 0}
    assert stats.accuracy(table) == pytest.approx(sk.accuracy_score(true, predicted))
    assert stats.f1(table) == pytest.approx(sk.f1_score(true, predicted, average=None, **options))
    assert stats.recall(table) == pytest.approx(sk.recall_score(true, predicted, average=None, **options))
    assert stats.macro_f1(table) == pytest.approx(sk.f1_score(true, predicted, average="macro", **options))
    stacked = np.stack([[table, 2 * table]] * 3)
    assert stats.macro_f1(stacked) == pytest.approx(np.full((3, 2), stats.macro_f1(table)))


def test_without_images_there_is_no_accuracy():
    assert np.isnan(stats.accuracy(np.zeros((L, L))))


@given(images)
def test_clusters_have_every_image_once_and_means_over_seeds(rows):
    patient, true, first, second = (np.array(column) for column in zip(*rows, strict=True))
    clusters = stats.patient_counts(patient, true, np.stack([first, second]), L)
    assert clusters.alone == sum(patient == "")
    assert len(clusters.names) == len(set(patient) - {""}) + clusters.alone
    for name, counts in zip(clusters.names, clusters.counts, strict=True):
        if name:
            inside = patient == name
            expected = [metrics.confusion(true[inside], one[inside], L) for one in (first, second)]
            np.testing.assert_array_equal(counts, np.mean(expected, axis=0))
        else:
            assert counts.sum() == 1
    np.testing.assert_array_equal(
        clusters.counts[clusters.names == ""].sum(axis=(0, 2)), np.bincount(true[patient == ""], minlength=L)
    )


def test_no_images_are_no_clusters():
    clusters = stats.patient_counts([], np.array([]), np.array([]), L)
    assert clusters.counts.shape == (0, L, L)
    assert len(clusters.strata) == 0


class TestStrata:
    def test_a_stratum_is_a_set_of_leaves(self):
        counts = np.stack([square(0), square(0, 1), square(0), square(1, 0), square(2), square(2)])
        strata = stats.pool([stats.Clusters(np.array(list("abcdef")), counts, np.zeros(6))]).strata
        assert len(set(strata)) == 3
        assert strata[0] == strata[2]
        assert strata[1] == strata[3]
        assert strata[4] == strata[5]

    def test_a_single_set_joins_the_most_similar_one(self):
        """{0, 1, 2} shares two of three leaves with {0, 1}, and one of four with {2, 3}."""
        sets = [(0, 1), (0, 1), (2, 3), (2, 3), (2, 3), (0, 1, 2)]
        strata = stats.pool(
            [stats.Clusters(np.array(list("abcdef")), np.stack([square(*s) for s in sets]), np.zeros(6))]
        ).strata
        assert strata[5] == strata[0] != strata[2]

    def test_of_equally_similar_sets_it_joins_the_larger(self):
        sets = [(0,), (0,), (1,), (1,), (1,), (3,)]
        strata = stats.pool(
            [stats.Clusters(np.array(list("abcdef")), np.stack([square(*s) for s in sets]), np.zeros(6))]
        ).strata
        assert strata[5] == strata[2] != strata[0]

    @given(
        images.filter(
            lambda rows: len({row[0] for row in rows} - {""}) + sum(row[0] == "" for row in rows) > 1
        )
    )
    def test_no_stratum_has_one_cluster(self, rows):
        patient, true, predicted, _ = zip(*rows, strict=True)
        strata = stats.patient_counts(patient, np.array(true), np.array(predicted), L).strata
        assert np.bincount(strata).min() >= 2
        assert set(strata) == set(range(strata.max() + 1))


class TestPool:
    def test_folds_follow_each_other_and_strata_are_of_all(self):
        parts = [stats.patient_counts([a, b], np.array([0, 1]), np.array([0, 0]), L) for a, b in ("ab", "cd")]
        clusters = stats.pool(parts)
        assert clusters.names.tolist() == list("abcd")
        assert clusters.strata.tolist() == [0, 1, 0, 1] or clusters.strata.tolist() == [1, 0, 1, 0]
        assert clusters.counts.sum() == 4
        assert stats.patients_per_leaf(clusters).tolist() == [2, 2, 0, 0]

    def test_a_patient_in_two_folds_is_refused(self):
        part = stats.patient_counts(["a", ""], np.array([0, 1]), np.array([0, 0]), L)
        with pytest.raises(InputError, match="patient 'a' is in two test folds"):
            stats.pool([part, part])

    @given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.booleans())
    def test_repeats_are_averaged_and_add_no_clusters(self, seed, repeats, known):
        """Dealt to other folds in each repeat: a cluster has the mean of its predictions over the repeats."""
        rng = np.random.default_rng(seed)
        patient = np.array([f"p{n}" if known or n % 2 else "" for n in rng.integers(0, 5, 20)])
        keys, true = np.array([f"k{n}" for n in range(20)]), rng.integers(0, L, 20)
        owner = np.where(patient == "", keys, patient)
        parts, numbers, mean = [], [], {name: np.zeros((L, L)) for name in owner}
        for repeat in range(repeats):
            predicted = rng.integers(0, L, 20)
            fold_of = {name: rng.integers(0, 3) for name in sorted(set(owner))}
            for fold in set(fold_of.values()):
                rows = np.array([fold_of[name] == fold for name in owner])
                given_ = patient[rows].tolist(), true[rows], predicted[rows], L, keys[rows].tolist()
                parts.append(stats.patient_counts(*given_))
                numbers.append(repeat)
            for name, row, column in zip(owner, true, predicted, strict=True):
                mean[name][row, column] += 1 / repeats
        pooled = stats.pool(parts, numbers)
        assert len(pooled.names) == len(mean)
        assert pooled.counts.sum() == pytest.approx(20)
        for name, key, counts in zip(pooled.names, pooled.keys, pooled.counts, strict=True):
            assert counts == pytest.approx(mean[name or key])

    def test_images_without_patient_and_key_cannot_be_found_again(self):
        part = stats.patient_counts(["", "a"], np.array([0, 1]), np.array([0, 0]), L)
        with pytest.raises(ValueError, match="without keys"):
            stats.pool([part, part], [0, 1])


class TestVote:
    def votes(self, true, predicted):
        return stats.majority_is_correct(
            stats.patient_counts(["p"] * len(true), np.array(true), np.array(predicted), L)
        ).tolist()

    @pytest.mark.parametrize(
        ("predicted", "right"), [([0, 0, 1], True), ([0, 1, 1], False), ([0, 0, 1, 2, 3], True)]
    )
    def test_most_images_decide(self, predicted, right):
        assert self.votes([0] * len(predicted), predicted) == [right]

    def test_a_tie_goes_to_the_first_leaf(self):
        assert self.votes([0, 0], [0, 1]) == [True]
        assert self.votes([1, 1], [0, 1]) == [False]

    def test_a_patient_with_several_leaves_is_right_for_most_of_its_images(self):
        assert self.votes([0, 0, 0, 2], [0, 0, 1, 3]) == [True]
        assert self.votes([0, 2, 2, 2], [0, 0, 0, 3]) == [False]
        assert self.votes([0, 2], [0, 3]) == [False]
