"""Statistics of a study: patient-clustered bootstrap, corrected tests over folds, and the verdict on two
arms.

`clusters`, `resampling` and `reliability` are about the trained models on other patients. `comparing` and
`verdict` are about the methods, trained again on other folds. SciPy is imported in functions.
"""

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
from leukotree.stats.sums import intervals_of
from leukotree.stats.verdict import ALPHA, CERTAIN, Comparison, Fold, Verdict, compare, judge

__all__ = [
    "ALPHA",
    "CERTAIN",
    "CalibrationError",
    "Clusters",
    "Comparison",
    "CorrectedT",
    "Fold",
    "McNemar",
    "Probabilities",
    "Statistic",
    "Verdict",
    "accuracy",
    "bootstrap",
    "calibration_error",
    "clusters_of",
    "compare",
    "correlated_t",
    "detectable_range",
    "difference_interval",
    "f1",
    "holm",
    "interval",
    "intervals",
    "intervals_of",
    "jackknife",
    "judge",
    "macro_f1",
    "majority_is_correct",
    "mcnemar",
    "nadeau_bengio",
    "patient_counts",
    "patient_sums",
    "patients_per_leaf",
    "pool",
    "recall",
    "resample",
    "smallest_detectable",
    "spread_factors",
    "weights",
]
