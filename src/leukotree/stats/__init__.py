"""Statistics of a study: patient-clustered bootstrap, corrected tests over folds, and the verdict on two
arms.

`clusters` and `resampling` are about the trained models on other patients. `comparing` and `verdict` are
about the methods, trained again on other folds. SciPy is imported in functions.
"""

from leukotree.stats.agreement import (
    Agreement,
    Closeness,
    Rated,
    ReadFold,
    agreement,
    alpha_interval,
    closeness,
    pair,
)
from leukotree.stats.clusters import (
    Clusters,
    accuracy,
    f1,
    macro_f1,
    majority_is_correct,
    patient_counts,
    patients_per_leaf,
    pool,
    recall,
)
from leukotree.stats.comparing import (
    CorrectedT,
    McNemar,
    Probabilities,
    correlated_t,
    holm,
    mcnemar,
    nadeau_bengio,
    smallest_detectable,
)
from leukotree.stats.resampling import (
    Statistic,
    bootstrap,
    difference_interval,
    interval,
    intervals,
    jackknife,
    resample,
)
from leukotree.stats.subgroups import GroupFold, GroupScores, Score, in_groups
from leukotree.stats.verdict import ALPHA, CERTAIN, Comparison, Fold, Verdict, compare, judge

__all__ = [
    "ALPHA",
    "CERTAIN",
    "Agreement",
    "Closeness",
    "Clusters",
    "Comparison",
    "CorrectedT",
    "Fold",
    "GroupFold",
    "GroupScores",
    "McNemar",
    "Probabilities",
    "Rated",
    "ReadFold",
    "Score",
    "Statistic",
    "Verdict",
    "accuracy",
    "agreement",
    "alpha_interval",
    "bootstrap",
    "closeness",
    "compare",
    "correlated_t",
    "difference_interval",
    "f1",
    "holm",
    "in_groups",
    "interval",
    "intervals",
    "jackknife",
    "judge",
    "macro_f1",
    "majority_is_correct",
    "mcnemar",
    "nadeau_bengio",
    "pair",
    "patient_counts",
    "patients_per_leaf",
    "pool",
    "recall",
    "resample",
    "smallest_detectable",
]
