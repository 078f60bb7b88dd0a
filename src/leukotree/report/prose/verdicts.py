"""Texts about comparisons of arms: verdicts, evidence, plans, grids and trees."""

VERDICT = """
The study file declares the rule of the verdicts. `better`: the posterior probability of a difference above
the region of practical equivalence (±{rope} points) is at least {certain}, and the Holm-adjusted two-sided
p value is below {alpha}. `worse`: the same for a difference below the region. `equivalent`: the posterior
probability of a difference inside the region is at least {certain}. `inconclusive`: none of these holds.
The probabilities come from the Bayesian correlated t-test (Corani and Benavoli 2015) on the differences of
the folds, with n_test/n_train = {ratio}. The comparisons of images are the primary family. The comparisons
of patients are a separate family.
"""

REPEATS = """
The outer cross-validation was repeated {repeats} times, each time with another deal of the patients to
folds. J counts the folds of all repeats (corrected repeated cross-validation, Bouckaert and Frank 2004).
Repeats add no patients: n_test/n_train stays, and intervals by patient resample a patient with all its
repeats. Pooled numbers are means over the repeats; a confusion matrix counts an image in each of them.
"""

PLANNED = """
The power is the rate at which simulated studies of this design come out `better` by the rule of the verdicts,
with Holm over the declared comparisons. The spread of the simulated folds comes from {source}. Folds are
correlated as the test assumes.
"""

PLANNED_LATE = """
This plan was made when {runs} of the study had finished. It is no plan: who looks at results before choosing
the design can stop when they please.
"""

NOT_POWERED = """
No design of the plan's table has the wanted power of {wanted} for {effect} points. The study was run all the
same. An inconclusive verdict was to be expected.
"""

EVIDENCE = """
Two questions have two estimates, and each stands beside its own interval. Trained again: the mean of the
folds' differences, with the Nadeau-Bengio interval mean ± t(J − 1) · sqrt(s² (1/J + n_test/n_train)) over J
folds. The verdict is about this number. Other patients: the difference of the scores of all test images
together (pooled over folds, seeds averaged), with a bootstrap interval about these trained models. Patients
are resampled within their leaves, with all their images. The interval is not estimable below {floor}
patients. The two estimates can differ much: a macro F1 is no mean over images, and a leaf that is rare in a
fold weighs there as much as the others. Smallest detectable: the true difference that this rule detects with
a probability of 80 %. It is as uncertain as the spread between the folds, so its 95 % range stands beside it
(chi-square interval of the spread{factors}). McNemar, exact: the number of patients for whom only the first
arm is right, then the number for whom only the second arm is right.
"""

OWN_RULES = """
The verdicts compare all arms under one rule, `{rule}`. This table decides each arm as its own method does.
`flat`, an ensemble of it, `logistic` and `neighbours` take the most probable leaf (`joint`). `base` and
`multilabel` go top-down (`greedy`); `multilabel` that was trained by `soft` or `marginal`, losses of leaf
probabilities, takes the most probable leaf. A difference mixes the models with their rules. The table is
secondary: it has no verdict, and it is not in the family that Holm's procedure adjusts.
"""

FEW_FOLDS = "With {folds} the spread between folds is poorly known. Read a verdict as a hint, not as proof."

ABLATION = """
The {comparisons} comparisons are one family. They follow the rule of the verdicts given above. The
reference is the first cell of the same variant. The p values are adjusted. The intervals are not adjusted.
"""

NO_CONTROL = """
No permuted tree has results beside another tree of the same shape. So this study cannot tell the tree from
any other tree. `sweeps/trees.yaml` is an example of a grid over `tree`.
"""

PERMUTED_TREES = """
A permuted tree has the shape of the data set's tree, and its leaves at other places. If the tree helps
because of its shape alone, permuted trees help as much. `the tree helps` needs three things: it is better
than flat, it is better than the mean of the permuted trees, and it is beyond their spread (above the 95 %
prediction interval for one more permuted tree, or p of the rank at most 0.05). `any tree helps` means that
the mean of the permuted trees is better than flat. The p of the rank is (1 + permuted trees that are at least
as good) / (1 + permuted trees). It is above 0.05 with fewer than 19 permuted trees. The prediction interval
assumes that the scores of permuted trees are normal; with few of them it is wide.
"""

ON_ONE_TREE = """
Arms on other trees are compared on the tree of the data set. Each arm decides leaves by the study's rule on
its own tree. Scores that depend on a tree (heights, hierarchical precision, recall and F, decisions, depths,
calibration of decisions) are computed for all arms on the tree of the data set, from the probabilities of
the leaves.
"""

SIDE_BY_SIDE = """
This page puts arms of several studies side by side. All are decided by one rule: {rule} log p(child given
parent). All scores are computed from the stored predictions of held-out test folds.
"""

BETWEEN_STUDIES = """
No study declared these comparisons before its first run, so there is no verdict here: they explore. Paired:
both arms were tested on the same images of the same patients, who are drawn together. Unpaired: the patients
of the two studies are drawn separately. A patient who is in both is then drawn as two, and the difference
also contains that between the two groups of patients.
"""
