"""Tables of scores: a row per run, then the mean over the seeds of a fold. Sections show mean and spread over
folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from leukotree import stats
from leukotree.evaluation import decide, metrics, tree_scores
from leukotree.evaluation.metrics import Groups, Rule
from leukotree.report.summary import Arm, Run, StudySummary
from leukotree.stats import Clusters

MOST_ARMS = 6
"""The number of a grid's arms that the detailed sections show."""


class Pooled(NamedTuple):
    """The groups of all folds, and how many of them got their true leaf."""

    right: float
    """A mean over seeds, so it may be fractional."""
    n: int
    """The number of groups."""

    @property
    def share(self) -> float:
        """The share of all groups that is right. It is the estimate that `interval` belongs to. NaN without
        groups."""
        return self.right / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float] | None:
        """The Wilson interval of the share."""
        return metrics.wilson(self.right, self.n)


def shown(summary: StudySummary) -> list[Arm]:
    """The arms with results that the detailed sections show: the variants with chosen values. In a grid, the
    arms of the declared comparisons, or else all arms, at most MOST_ARMS."""
    done = [arm for arm in summary.arms if arm.runs]
    if variants := [arm for arm in done if arm.cell is None]:
        return variants
    declared = {name for pair in summary.primary for name in pair}
    return ([arm for arm in done if arm.name in declared] or done)[:MOST_ARMS]


def groups(run: Run, rule: Rule, decision: decide.Rule) -> Groups:
    """The groups (patient, or patient x leaf) of a run, decided on its own tree. `rule` combines the images
    of a group."""
    patients = run.images["patient"].tolist()
    if run.own is None:
        return metrics.by_patient(patients, run.true, run.logp, run.taxonomy, rule, decision)
    own, tree = run.own.taxonomy, run.taxonomy
    true, places = decide.leaf_places(tree, own)[run.true], decide.leaf_places(own, tree)
    of_own = metrics.by_patient(patients, true, run.own.logp, own, rule, decision)
    order = np.lexsort([places[of_own.true], of_own.patient])  # as `by_patient` sorts on the tree of the data
    return Groups(
        of_own.patient[order],
        of_own.images[order],
        places[of_own.true][order],
        places[of_own.predicted][order],
        decide.on_tree(of_own.logp, own, tree)[order],
    )


def unit(runs: Sequence[Run]) -> str | None:
    """The unit of patient-level scores: "patient", or "patient x leaf" where a patient has several leaves.
    None without patient ids."""
    pairs = {
        (run.test_fold, patient, leaf)
        for run in one_per_fold(runs)
        for patient, leaf in zip(run.images["patient"], run.true, strict=True)
        if patient
    }
    if not pairs:
        return None
    patients = {(fold, patient) for fold, patient, _ in pairs}
    return "patient" if len(patients) == len(pairs) else "patient x leaf"


def leaves_of_patients(runs: Sequence[Run]) -> np.ndarray:
    """The leaves that have an image with a patient id, in any fold. Patient-level macro averages are over
    these leaves, in every fold and arm."""
    leaves = [run.true[(run.images["patient"] != "").to_numpy()] for run in one_per_fold(runs)]
    return np.unique(np.concatenate(leaves))


def one_per_fold(runs: Sequence[Run]) -> list[Run]:
    """The first run of each test fold, in the order of the folds. Together they hold each test image once: of
    several repeats, they are those of the repeat with most folds, or of the first of these."""
    folds = Counter(repeat for repeat, _ in {(run.repeat, run.test_fold) for run in runs})
    repeat = min(folds, key=lambda repeat: (-folds[repeat], repeat), default=0)
    of_repeat = [run for run in runs if run.repeat == repeat]
    return [run for _, run in sorted({run.test_fold: run for run in reversed(of_repeat)}.items())]


class Answered(NamedTuple):
    """The N images that the runs of an arm tested, each once, and the runs' answers to them."""

    images: pd.DataFrame
    """N rows, as in `Run`."""
    true: np.ndarray
    """(N,) leaf indices."""
    answers: stats.Answers
    """Leaf indices, of all seeds and repeats."""


def answered(runs: Sequence[Run], leaves: Sequence[str]) -> Answered:
    """The images and answers of some runs, as indices of `leaves`: trees may have them in another order."""
    places = [pd.Index(leaves).get_indexer(pd.Index(run.taxonomy.leaves)) for run in runs]
    frames = [run.images.assign(true=place[run.true]) for run, place in zip(runs, places, strict=True)]
    images = pd.concat(frames, ignore_index=True)
    image, _ = pd.factorize(images["key"])
    weight = 1 / np.bincount(image)[image]
    first = ~images["key"].duplicated()
    unique = images[first].reset_index(drop=True)
    predicted = np.concatenate([place[run.predicted] for run, place in zip(runs, places, strict=True)])
    return Answered(
        unique.drop(columns="true"), unique["true"].to_numpy(), stats.Answers(image, predicted, weight)
    )


def by_fold(runs: Sequence[Run]) -> dict[int, list[Run]]:
    """Test fold of any repeat -> its runs, one per seed. The runs are those of one arm."""
    return {
        fold: [run for run in runs if run.test_fold == fold]
        for fold in sorted({run.test_fold for run in runs})
    }


def macro_f1(runs: Sequence[Run]) -> float:
    """The macro F1 of the images: the mean over some runs, such as the seeds of a fold."""
    values = [metrics.macro_f1(run.true, run.predicted, len(run.taxonomy.leaves)) for run in runs]
    return sum(values) / len(values)


def most_common(runs: Sequence[Run]) -> tuple[str, dict[str, float]]:
    """The most common leaf, and the scores of a classifier that always answers it."""
    folds = one_per_fold(runs)
    true = np.concatenate([run.true for run in folds])
    common = int(np.bincount(true).argmax())
    leaves = folds[0].taxonomy.leaves
    return leaves[common], metrics.summary(true, np.full_like(true, common), len(leaves))


def guessed(runs: Sequence[Run]) -> float:
    """Macro F1 (0 to 1) of guesses between all leaves with equal probability, expected in many images. For a
    leaf that is a share s of the images the recall is 1 / L and the precision s, so F1 is 2 s / (1 + L s)."""
    folds = one_per_fold(runs)
    leaves = len(folds[0].taxonomy.leaves)
    true = np.concatenate([run.true for run in folds])
    share = np.bincount(true, minlength=leaves) / len(true)
    return float(np.mean(2 * share / (1 + leaves * share)))


def per_run(summary: StudySummary, arms: Sequence[Arm]) -> pd.DataFrame:
    """A row per run: arm, repeat, fold (counted through, see `Run`), seed, images, groups, the scores of the
    images (see `metrics.summary`), and more scores with a prefix.

    "<rule>:" for the scores of the groups (see `_of_groups`), "tree:" for those of `tree_scores.TreeScores`,
    and "level:" for the accuracy at each depth.
    """
    rows, leaves = [], leaves_of_patients(summary.runs)
    for run in (run for arm in arms for run in arm.runs):
        n_leaves = len(run.taxonomy.leaves)
        row: dict[str, object] = {
            "arm": run.arm,
            "repeat": run.repeat,
            "fold": run.test_fold,
            "seed": run.seed,
            "images": len(run.true),
        }
        row |= metrics.summary(run.true, run.predicted, n_leaves)
        for rule in metrics.RULES:
            of_run = groups(run, rule, summary.decision)
            row["groups"] = len(of_run.true)
            row |= {f"{rule}:{key}": value for key, value in _of_groups(of_run, run, leaves).items()}
        tree = tree_scores.scores(metrics.confusion(run.true, run.predicted, n_leaves), run.taxonomy)
        row |= {f"tree:{name}": float(value) for name, value in tree._asdict().items()}
        decided = decide.per_depth(run.logp, run.taxonomy, summary.decision, run.predicted)
        right = decided == run.taxonomy.cut_of_leaf.T[run.true]
        row |= {f"level:{level}": float(share) for level, share in enumerate(right.mean(axis=0), 1)}
        rows.append(row)
    return pd.DataFrame(rows)


def _of_groups(groups: Groups, run: Run, leaves: np.ndarray) -> dict[str, float]:
    """The scores of a run's groups: right, accuracy, balanced_accuracy, macro_f1, h_f1, lca_height, and
    "level:" for the accuracy at each depth."""
    n_leaves = len(run.taxonomy.leaves)
    score = metrics.summary(groups.true, groups.predicted, n_leaves, leaves)
    counts = metrics.confusion(groups.true, groups.predicted, n_leaves)
    levels = metrics.level_accuracy(groups.true, groups.predicted, run.taxonomy)
    return {
        "right": float((groups.true == groups.predicted).sum()),
        **{key: score[key] for key in ("accuracy", "balanced_accuracy", "macro_f1")},
        "h_f1": float(tree_scores.f1(counts, run.taxonomy)),
        "lca_height": float(tree_scores.lca_height(counts, run.taxonomy)),
        **{f"level:{level}": share.value for level, share in enumerate(levels, 1)},
    }


def per_fold(by_run: pd.DataFrame) -> pd.DataFrame:
    """A row per (arm, fold) with the mean over its seeds. The column `seeds` is their number."""
    grouped = by_run.groupby(["arm", "fold"], sort=False)
    return grouped.mean().drop(columns="seed").assign(seeds=grouped.size()).reset_index()


def pooled(folds: pd.DataFrame, arm: str, rule: Rule) -> Pooled:
    """The groups of an arm, from the table of `per_fold`. Each group counts once, with the mean over the
    repeats."""
    rows = folds[folds["arm"] == arm]
    right, tested = float(rows[f"{rule}:right"].sum()), int(rows["groups"].sum())
    n = int(rows.groupby("repeat")["groups"].sum().max())
    return Pooled(right if n == tested else right * n / tested, n)


def pooled_per_leaf(clusters: Clusters) -> list[Pooled]:
    """The groups of each leaf: L entries."""
    table = clusters.counts.sum(axis=0)
    return [
        Pooled(round(float(right), 6), round(float(n)))
        for right, n in zip(np.diagonal(table), table.sum(axis=1), strict=True)
    ]


def image_clusters(runs: Sequence[Run]) -> Clusters:
    """The images of one fold, by patient. The runs are those of one arm and fold, one per seed."""
    n_leaves = len(runs[0].taxonomy.leaves)
    return stats.patient_counts(
        runs[0].images["patient"].tolist(),
        runs[0].true,
        np.stack([run.predicted for run in runs]),
        n_leaves,
        runs[0].images["key"].tolist(),
    )


def pooled_clusters(runs: Sequence[Run], of_fold: Callable[[Sequence[Run]], Clusters]) -> Clusters:
    """The clusters of all outer folds of an arm, such as its images by `image_clusters`. A patient is one
    cluster, with the mean over the repeats."""
    folds = by_fold(runs).values()
    return stats.pool([of_fold(of_one) for of_one in folds], [of_one[0].repeat for of_one in folds])


def group_clusters(runs: Sequence[Run], decision: decide.Rule) -> Clusters:
    """The groups of one fold, decided by the mode, by patient. The runs are those of one arm and fold, one
    per seed."""
    of_seeds = [groups(run, "mode", decision) for run in runs]
    first, predicted = of_seeds[0], np.stack([of_seed.predicted for of_seed in of_seeds])
    return stats.patient_counts(first.patient.tolist(), first.true, predicted, len(runs[0].taxonomy.leaves))


def fingerprints(runs: Sequence[Run]) -> list[str]:
    """The fingerprints of the data sets of some runs. Empty where they did not record them."""
    return sorted({str(run.environment.get("dataset") or "") for run in runs} - {""})


def ratio(summary: StudySummary) -> float:
    """n_test / n_train of an outer fold, from the numbers of images that the runs recorded.

    Older runs recorded none: it is then 1 / (K - 1) for K folds. Today's data set is never used, because it
    may have grown since.
    """
    totals = [run.trained + len(run.true) for run in summary.runs if run.trained]
    test = np.mean([len(run.true) for run in one_per_fold(summary.runs)])
    if totals:
        return float(test / (totals[0] - test))
    tested = len(one_per_fold(summary.runs))
    folds = int((summary.study.get("folds") or {}).get("outer") or tested)
    return 1 / max(folds - 1, 1)
