"""Statistics of a study: patient-clustered bootstrap, corrected tests over folds, and the verdict on two
arms.

`clusters`, `resampling` and `reliability` are about the trained models on other patients. `comparing` and
`verdict` are about the methods, trained again on other folds. SciPy is imported in functions.
"""

from leukotree.stats.agreement import (
    Agreement,
    Closeness,
    Rated,
    agreement,
    alpha_interval,
    closeness,
    pair,
)
from leukotree.stats.answers import Answers
from leukotree.stats.clusters import (
    Clusters,
    accuracy,
    clusters_of,
    f1,
    macro_f1,
    majority_is_correct,
    patient_counts,
    patient_sums,
    patients_per_leaf,
    pool,
    pool_sums,
    recall,
)
from leukotree.stats.comparing import (
    CorrectedT,
    McNemar,
    Probabilities,
    correlated_t,
    detectable_range,
    holm,
    mcnemar,
    nadeau_bengio,
    smallest_detectable,
    spread_factors,
)
from leukotree.stats.means import Mean, means
from leukotree.stats.placing import Place, place
from leukotree.stats.reliability import CalibrationError, calibration_error
from leukotree.stats.resampling import (
    Statistic,
    bootstrap,
    difference_interval,
    interval,
    intervals,
    jackknife,
    resample,
    weights,
)
from leukotree.stats.subgroups import GroupScores, Score, in_groups
from leukotree.stats.sums import intervals_of
from leukotree.stats.verdict import ALPHA, CERTAIN, Comparison, Fold, Judged, Verdict, compare, judge, judged

__all__ = [
    "ALPHA",
    "CERTAIN",
    "Agreement",
    "Answers",
    "CalibrationError",
    "Closeness",
    "Clusters",
    "Comparison",
    "CorrectedT",
    "Fold",
    "GroupScores",
    "Judged",
    "McNemar",
    "Mean",
    "Place",
    "Probabilities",
    "Rated",
    "Score",
    "Statistic",
    "Verdict",
    "accuracy",
    "agreement",
    "alpha_interval",
    "bootstrap",
    "calibration_error",
    "closeness",
    "clusters_of",
    "compare",
    "correlated_t",
    "detectable_range",
    "difference_interval",
    "f1",
    "holm",
    "in_groups",
    "interval",
    "intervals",
    "intervals_of",
    "jackknife",
    "judge",
    "judged",
    "macro_f1",
    "majority_is_correct",
    "mcnemar",
    "means",
    "nadeau_bengio",
    "pair",
    "patient_counts",
    "patient_sums",
    "patients_per_leaf",
    "place",
    "pool",
    "pool_sums",
    "recall",
    "resample",
    "smallest_detectable",
    "spread_factors",
    "weights",
]
