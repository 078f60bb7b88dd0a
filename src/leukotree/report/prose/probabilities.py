"""Texts about the probabilities: calibration, clinical use and prediction sets."""

CALIBRATION = """
Each decision is scaled by a temperature. It is fitted on the chosen trial's predictions of the inner
validation folds, never on test predictions. A temperature above 1 means that the raw probabilities were
overconfident. ECE: the expected calibration error of the most probable class, as a root mean square (L2) over
at most {bins} bins of equal mass. It is debiased (Kumar, Liang and Ma 2019), with the patient as the unit:
the plain estimate is far above 0 for calibrated probabilities, too, and more so with fewer patients. 0.000
means that no error can be seen. Its interval is a bootstrap over patients. With fewer than {floor} patients
neither is estimable. Brier: the Brier score, summed over the classes. A focal loss tends to make raw
probabilities underconfident. Compare variants after scaling.
"""

RAW_ONLY = """
Raw only: no inner validation for {variants}. The predictions of the chosen trial were removed, or no search
ran inside the outer training folds.
"""

CLEAN_ONLY = "Calibration is judged on fold {clean} alone. The search used images of the other folds."

CLINICAL = """
All folds are pooled and seeds averaged. A target is a leaf, or all leaves below a child of the first
decision. PPV and NPV are the shares of right answers among positive and negative ones: they hold for the
shares of the leaves in this data set. MCC: the Matthews correlation coefficient. Weighted kappa: agreement
beyond chance, where a mistake weighs its LCA height. The leaves of a tree have no order, so linear and
quadratic weights are not used. Slope and intercept are those of a logistic regression of the target on its
log odds. A slope below 1: the probabilities are too extreme. An intercept, with the slope 1, above 0: they
are too low on average. Net benefit (Vickers and Elkin 2006): true positives, less false positives times the
odds of the threshold, per case. A patient has the mean probability of its images. Intervals are not
estimable where fewer than {floor} patients have a target, where fewer have another leaf, and where all
patients have the same result. Means are over the leaves of at least {floor} patients.
"""

NO_THRESHOLDS = """
Sensitivity at a specificity of {wanted} %: not estimable for {variants}. Its threshold needs predictions of
inner folds. A search leaves them in its trials' run folders, and `leukotree folds STUDY --inner` trains
them. A threshold of the test fold itself would be optimistic.
"""

COSTS_BY_HEIGHT = "A mistake costs its LCA height, because the study gives no `costs`."

PREDICTION_SETS = """
Conformal sets with patients as units (Lee, Barber and Willett 2023). Their quantiles come from inner
validation. Each patient has the same weight there, and in this table. Leaves: all leaves whose probability is
above the quantile (LAC). These sets are the smallest, and an empty one says that no leaf is probable enough.
Nodes: the lowest node above the decided leaf that is probable enough; a leaf, a group such as acute, or the
root. Coverage holds over all leaves, not for each leaf: a rare leaf can have less. Models of inner folds
trained on fewer images than the tested one, so the coverage of the test folds can differ from the wanted one.
A node cannot be smaller than a leaf, so the coverage of nodes is above the wanted one where more answers are
right than wanted.
"""

NO_SETS = """
No prediction sets for {variants}: not estimable. They need predictions of inner folds with at least {needed}
patients. A search leaves them in its trials' run folders, and `leukotree folds STUDY --inner` trains them.
"""

CASES = """
Low score: the largest raw leaf probability is below that of {odd} % of the right answers of inner validation,
where each patient has the same weight. The image may be like none of the training images, or bad. Two
siblings, two branches: two leaves have 25 % or more each, with the same parent or not. The cell may have a
mixed phenotype, or may be hard. `{file}` beside this report lists these images with their keys. A person who
looks at them decides what they are.
"""
