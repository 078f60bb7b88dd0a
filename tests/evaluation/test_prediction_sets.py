"""Prediction sets: coverage of new patients in simulations, and the quantiles and sets against MAPIE and
loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree.evaluation import decide, prediction_sets
from leukotree.taxonomy import Taxonomy
from tests.helpers.logprobs import cases, normalised

PAPER = Taxonomy.paper()
SEEDS = st.integers(0, 10_000)


class TestQuantile:
    @given(SEEDS, st.sampled_from([0.5, 0.8, 0.9]))
    def test_of_patients_with_one_image_it_is_that_of_split_conformal(
        self, seed: int, coverage: float
    ) -> None:
        """The ceil((n + 1) coverage)-th smallest score."""
        rng = np.random.default_rng(seed)
        n = int(rng.integers(10, 60))
        scores = rng.random(n)
        rank = int(np.ceil((n + 1) * coverage - 1e-9))
        for names in ([f"p{i}" for i in range(n)], [""] * n):
            assert prediction_sets.quantile(scores, names, coverage) == np.sort(scores)[rank - 1]

    @given(SEEDS)
    def test_each_patient_has_the_same_weight(self, seed: int) -> None:
        """Against a loop over the candidates, with ragged patients."""
        rng = np.random.default_rng(seed)
        names = np.repeat([f"p{i}" for i in range(12)], rng.integers(1, 9, 12))
        scores = rng.random(len(names)).round(1)
        at = prediction_sets.quantile(scores, names.tolist(), 0.8)

        def reached(value: float) -> float:
            shares = [np.mean(scores[names == name] <= value) for name in np.unique(names)]
            return float(np.sum(shares)) / 13

        assert at == min(value for value in scores if reached(value) >= 0.8 - 1e-12)

    def test_too_few_patients_have_none(self) -> None:
        assert prediction_sets.quantile(np.arange(80.0), [f"p{i % 8}" for i in range(80)], 0.9) is None
        assert prediction_sets.quantile(np.arange(90.0), [f"p{i % 9}" for i in range(90)], 0.9) == 89


class TestSets:
    def test_the_sets_of_leaves_are_those_of_mapie(self) -> None:
        """One image per patient: then the patients are what MAPIE takes for exchangeable."""
        from mapie.classification import SplitConformalClassifier
        from sklearn.linear_model import LogisticRegression

        rng = np.random.default_rng(0)
        true = rng.integers(0, 4, 900)
        x = rng.normal(size=(900, 3)) + 1.2 * np.eye(4)[true][:, :3]
        model = LogisticRegression().fit(x[:300], true[:300])
        mapie = SplitConformalClassifier(model, confidence_level=0.9, conformity_score="lac", prefit=True)
        mapie.conformalize(x[300:600], true[300:600])
        expected = mapie.predict_set(x[600:])[1][:, :, 0]
        logp = model.predict_log_proba(x[300:])
        scores = prediction_sets.leaf_scores(logp)
        at = prediction_sets.quantile(
            scores[np.arange(300), true[300:600]], [f"p{i}" for i in range(300)], 0.9
        )
        np.testing.assert_array_equal(scores[300:] <= at, expected)

    @given(cases(), st.floats(-0.1, 1.1))
    def test_a_node_has_the_leaves_whose_score_is_low(
        self, case: tuple[Taxonomy, np.ndarray, np.ndarray], at: float
    ) -> None:
        tree, decided, logp = case
        scores = prediction_sets.node_scores(logp, tree, decided)
        for limit in (at, float(scores.flat[0]), float(scores.max())):
            nodes = prediction_sets.nodes(logp, tree, decided, limit)
            inside = prediction_sets.leaves_of_nodes(tree)[nodes]
            np.testing.assert_array_equal(inside, scores <= max(limit, 0.0))
            assert inside[np.arange(len(decided)), decided].all()

    @given(cases())
    def test_higher_limits_give_nodes_above(self, case: tuple[Taxonomy, np.ndarray, np.ndarray]) -> None:
        tree, decided, logp = case
        below = prediction_sets.leaves_of_nodes(tree)
        sizes = [below[prediction_sets.nodes(logp, tree, decided, at)].sum(axis=1) for at in (0, 0.4, 0.8, 1)]
        assert (np.diff(sizes, axis=0) >= 0).all()
        assert (sizes[0] == 1).all() or np.isneginf(logp).any()

    def test_by_hand(self) -> None:
        """leukemia 0.9, acute 0.8, AML 0.5: with the limit 0.6 the descent ends at acute."""
        logp = normalised(np.zeros((1, len(PAPER.edges))), PAPER)
        of = dict(zip(PAPER.edges, range(len(PAPER.edges)), strict=True))
        for child, p in {
            **{"normal": 0.05, "reactive": 0.05, "leukemia": 0.9, "acute": 8 / 9, "chronic": 1 / 9},
            **{"ALL": 0.25, "AML": 0.625, "APML": 0.125},
        }.items():
            logp[0, of[child]] = np.log(p)
        decided = np.array([PAPER.leaves.index("AML")])
        ends = [
            PAPER.nodes[prediction_sets.nodes(logp, PAPER, decided, at)[0]]
            for at in (0.0, 0.49, 0.6, 0.85, 0.95)
        ]
        assert ends == ["AML", "AML", "acute", "leukemia", "root"]
        scores = dict(zip(PAPER.leaves, prediction_sets.node_scores(logp, PAPER, decided)[0], strict=True))
        expected = {"normal": 0.9, "reactive": 0.9, "ALL": 0.5, "AML": 0, "APML": 0.5, "CLL": 0.8, "CML": 0.8}
        assert scores == pytest.approx(expected)


def test_a_low_score_is_below_that_of_one_per_cent_of_the_right_answers() -> None:
    rng = np.random.default_rng(3)
    largest = rng.uniform(0.5, 1, 2000)
    leaf_logp = np.log(np.column_stack([largest, 1 - largest]))
    right = rng.random(2000) < 0.8
    names = [f"p{i // 10}" for i in range(2000)]
    at = prediction_sets.low_score(leaf_logp, right, names)
    assert at is not None
    assert (largest[right] < at).mean() == pytest.approx(0.01, abs=0.003)
    assert prediction_sets.low_score(leaf_logp, np.zeros(2000, dtype=bool), names) is None


def patients(rng: np.random.Generator, n: int, hard: float) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Patients of 1 to 40 images, whose images are alike: a patient's effect is as large as the signal."""
    images = np.minimum(1 + rng.geometric(0.12, n), 40)
    leaf = rng.integers(0, len(PAPER.leaves), n)
    effect = rng.normal(0, 1.5, (n, len(PAPER.edges)))
    of = np.repeat(np.arange(n), images)
    logits = 2.2 * PAPER.path_matrix[leaf[of]] + effect[of] + rng.normal(0, hard, (len(of), len(PAPER.edges)))
    return [f"p{one}" for one in of], leaf[of], normalised(logits, PAPER)


def covered(rng: np.random.Generator, calibration: int, coverage: float) -> dict[str, float]:
    """Coverage of an image of a new patient: each new patient counts once."""
    names, true, logp = patients(rng, calibration, hard=0.7)
    new_names, new_true, new_logp = patients(rng, 400, hard=0.7)
    decided, new_decided = decide.greedy(logp, PAPER), decide.greedy(new_logp, PAPER)
    rows, new_rows = np.arange(len(true)), np.arange(len(new_true))
    scores = {
        "leaves": [prediction_sets.leaf_scores(decide.leaf_logp(of, PAPER)) for of in (logp, new_logp)],
        "nodes": [
            prediction_sets.node_scores(logp, PAPER, decided),
            prediction_sets.node_scores(new_logp, PAPER, new_decided),
        ],
    }
    shares = {}
    for kind, (old, new) in scores.items():
        at = prediction_sets.quantile(old[rows, true], names, coverage)
        assert at is not None
        inside = new[new_rows, new_true] <= at
        of = np.unique(new_names, return_inverse=True)[1]
        shares[kind] = float((np.bincount(of, inside) / np.bincount(of)).mean())
    return shares


@pytest.mark.slow("draws hundreds of studies")
@pytest.mark.parametrize(("calibration", "coverage"), [(60, 0.9), (60, 0.8), (25, 0.9)])
def test_new_patients_are_covered_as_wanted(calibration: int, coverage: float) -> None:
    """Within two points with 60 patients. With few, it is above by at most their weight 1 / (K + 1)."""
    rng = np.random.default_rng(1)
    studies = [covered(rng, calibration, coverage) for _ in range(400)]
    for kind in ("leaves", "nodes"):
        mean = np.mean([study[kind] for study in studies])
        print(f"{kind}: {calibration} patients, wanted {coverage}: {mean:.4f}")
        assert coverage - 0.005 < mean < coverage + max(0.02, 1 / (calibration + 1))
