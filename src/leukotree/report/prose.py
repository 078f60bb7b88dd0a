"""The longer explanations of the report. `blocks.text` fills in their values and joins their lines."""

ABOUT = """
This study classifies white blood cells with a label tree. `flat` is one softmax over the leaves. `base` is
one separate model for each decision of the tree. `multilabel` is one shared model with one loss for each
level. All variants are decided by one rule: {rule} log p(child given parent), the log-probabilities of the
edges of the tree. All test scores below are computed from the stored predictions of held-out test folds.
"""

ENSEMBLE = """
`ensemble` is as many flat models as the tree has decisions; their leaf probabilities are averaged.
"""

UNCHECKED = """
The results were not compared with {what}. They may come from another version.
"""

READING = """
Seeds are averaged within a fold first. Macro averages are over all {leaves} leaves. A leaf that is never
predicted counts as 0. Balanced accuracy is the mean recall of the leaves that have samples. {patients} For
comparison: always answering {common} gives accuracy {accuracy}, balanced accuracy {balanced_accuracy} and
macro F1 {macro_f1}.
"""

PATIENTS = {
    None: "Patient-level scores are not available, because the images have no patient ids.",
    "patient": "At patient level, the answer is the mode of the predictions of a patient's images.",
    "patient x leaf": (
        "At patient level, the unit is patient x leaf. Its answer is the mode of the predictions of its "
        "images (see Patients)."
    ),
}

NOT_NESTED = """
The study is not nested. One search per variant chose the hyperparameters for all outer folds. The search
did not use fold {clean}, but it used images of the other folds ({others}). Scores on those folds, and means
that include them, are therefore optimistic. Only fold {clean} is an independent test.{tested} All folds have
the values of one search. The luck of that search is in the difference of every fold, and the spread between
folds does not show it. The verdicts are therefore too sure.
"""

INCOMPLETE = """
{missing} of {total} expected runs have no result yet (listed under Runs). Means are over the runs that have
a result. Variants may therefore cover different folds.
"""

SOME_ARMS = "{shown} of {arms} arms are shown in detail. All arms are under Ablation."

WITHOUT_PATIENT = """
{images} of {total} images have no patient id. Each of them counts as one patient in intervals by patient.
These intervals are too narrow where such images come from the same patient. Patient-level scores leave
these images out. They also leave out the leaves that have no other images: {leaves}.
"""

SLIDES = """
The data set has slide ids and no patient ids. In this report, patient therefore means slide. Several slides
may come from the same patient.
"""

STRADDLING = """
{patients} have images in several test folds. The data set was split image by image (group `image`). Models
were therefore tested on patients that they were trained on. No result in this report holds for new
patients. The images of these patients count as images without a patient id.
"""

UNEQUAL_TRIALS = """
The variants had different numbers of search trials ({trials}). The comparison favours the variant with more
trials.
"""

OPTIMISTIC = """
These scores are optimistic. One search chose the hyperparameters for all folds, and it used images of most
folds.
"""

VERDICT = """
The study file declares the rule of the verdicts. `better`: the posterior probability of a difference above
the region of practical equivalence (±{rope} points) is at least {certain}, and the Holm-adjusted two-sided
p value is below {alpha}. `worse`: the same for a difference below the region. `equivalent`: the posterior
probability of a difference inside the region is at least {certain}. `inconclusive`: none of these holds.
The probabilities come from the Bayesian correlated t-test (Corani and Benavoli 2015) on the differences of
the folds, with n_test/n_train = {ratio}. The comparisons of images are the primary family. The comparisons
of patients are a separate family.
"""

REDECLARED = """
The declaration in the study file was changed after the first run: {changes}. A rule that is chosen when
results are known confirms nothing. Read the verdicts as exploratory.
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
`flat` and an ensemble of it take the most probable leaf (`joint`). `base` and `multilabel` go top-down
(`greedy`); `multilabel` that was trained by `soft` or `marginal`, losses of leaf probabilities, takes the
most probable leaf. A difference mixes the models with their rules. The table is secondary: it has no verdict,
and it is not in the family that Holm's procedure adjusts.
"""

FEW_FOLDS = "With {folds} the spread between folds is poorly known. Read a verdict as a hint, not as proof."

ANSWER = """
The values were chosen by their mean macro F1 over {folds} inner folds. The inner folds lie inside the outer
training folds. Interval over the top trials: the lowest to the highest value among the {top} best completed
trials of each search. With few completed trials it is over the better half of them. For a choice, the
number in brackets says how often an option occurs. Importance: the share of the variance of the score that
a key explains by itself (fANOVA). It is computed from the completed trials of all searches of the variant.
The mean score of its search is subtracted from each trial's score. A draw that several searches tried counts
once, everywhere in this section. Importance is not estimable below {floor} draws. It holds for the searched
range only: a key that matters outside the range can look unimportant. Not stated: the paper gives no value.
"""

BORDER = """
These chosen values lie on the border of the searched range (its outer {share} per cent, or the first or
last option of an ordered choice): {keys}. A better value may lie outside the range. Widen the range where
the key allows it.
"""

NO_SEARCH = "No search has ended for {variants}. Outer folds without chosen values are not run."

MARGINALS = """
Macro F1 against each searched key. Points: trials; a hollow point is a trial that was stopped early. Lines:
the mean of the completed trials in each bin. Grey bars: the number of different draws among them. Dotted
lines: the ends of the range.
"""

OPTIMISM = """
Inner macro F1 is the score that the search maximised. Outer macro F1 is the score of the same values on the
outer fold that the search did not use. Both use the rule `greedy`, as every search does. The inner score is
no bound of the outer one, in neither direction. Two things act against each other. The models of inner folds
are trained on fewer images, which makes inner scores too low. The chosen trial is the best of many, partly
by luck, which makes its inner score too high. Inner and outer folds also have other images.
"""

DRAWS = """
A draw is the values of one trial. All variants of an outer fold draw the same first values, so that the
variants are compared in pairs. A key that matters little has the value that the chosen draw happens to have.
"""

EQUAL_CHOICES = """
Equal choices that are one draw: {groups}. These searches chose among the same {draws}. Two searches that
choose among {n} draws at random agree once in {n} times. Such an agreement is no evidence for a value.
"""

FOLDS_SHARE_DRAWS = """
Outer folds share draws: {shared} of {total} trials have the values that another fold of the same variant had
drawn before. Searches that began in version 0.1.0 drew the same values in all folds. The luck of such a draw
is in the difference of every fold, and the spread between folds does not show it. The verdicts are therefore
too sure. To draw again, search under another study name.
"""

RERUNS = """
The trial with the best mean over the fresh seeds is chosen. Less its re-runs: the score that the search gave
to its best trial, minus the mean of the fresh runs of that trial. Both are trained on as many images, so the
difference is what the best of many owes to the luck of its seed.
"""

RULES_OF_DECISION = """
Variants are compared under one rule, here {rule}. The other rules decide the same stored predictions.
Marginal takes the most probable node of each depth. Its leaf is the leaf of joint. Its nodes may contradict
the tree; the table gives the rate. Expected cost takes the leaf of the lowest expected cost. A mistake costs
its LCA height, or what the study gives as `costs`. Cost: the mean cost of an image. LCA height is the height
of the lowest common ancestor of the true and the predicted leaf. Over errors alone, 1 is the best value.
"""

PATIENT_X_LEAF = """
Some patients have images of several leaves (cells of several types). Such a patient has no single true
leaf. The unit is therefore the pair of patient and true leaf: all images of one leaf of one patient vote
together. The groups are made from the true leaf, which is unknown in clinical use. The scores say how well
a patient's cells of one type are recognised together. They are not the accuracy of a diagnosis. Pairs of
the same patient are not independent, so the Wilson intervals are somewhat too narrow.
"""

RULES_OF_PATIENTS = """
Mode: the leaf that was predicted for most images (the paper's rule). A tie goes to the leaf with the higher
mean probability, then to the first leaf in preorder. Mean probability: the arithmetic mean of the images'
leaf probabilities, decided as for one image. Mean log-probability: the geometric mean, decided in the same
way. Where a fold has several seeds, counts are means over the seeds.
"""

TREE = """
hP, hR, hF: hierarchical precision, recall and F1 (Kiritchenko et al. 2006). They count the nodes of the
predicted and the true paths without the root. Macro hF is the mean over images. LCA height: the height of
the lowest common ancestor of the true and the predicted leaf. It is 0 for a right prediction. Depth: the
share of images whose path is right from the root to this depth. A leaf above this depth counts as itself.
"""

DECISIONS_AND_DEPTHS = """
A decision is scored on the images whose true leaf lies below it, whatever was decided above it. A depth is
scored on all images. AP (average precision) and ROC AUC are macro averages, one class against the rest. The
errors of the probabilities (ECE and Brier score) are under Calibration.
"""

LEAVES = """
Intervals: bootstrap over patients with all their images (percentiles with Student-t tails). An interval is
not estimable for a leaf of fewer than {floor} patients. It is also not estimable where most images of a
leaf have no patient id. No spread: all patients of the leaf have the same result, for example all images
right.
"""

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

MIXED = """
The leaves of the tree exclude each other. A cell can have a high probability for two leaves for several
reasons. The cell may be hard to classify. It may have a mixed phenotype, for which the tree has no leaf.
The variant may be underconfident. Probabilities are therefore scaled first where there is an inner
validation (see Calibration). Raw probabilities of different losses should not be compared. LCA height 1
means that the two leaves are siblings. The assumption of exclusive leaves does little harm under two
conditions: few cells lie between two leaves, and one of the two leaves is nearly always true. The labels
cannot test the assumption, because they give one leaf per cell.
"""

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

INTERFERENCE = """
The gradients of the levels' losses are compared on the parameters that the levels share. They are measured
for each block of the backbone, on fixed probe batches. Cosine below 0: a step that helps one level harms
the other. Conflicts: the share of batches with a negative cosine. Norm ratio: the gradient norm of the
first level over that of the second. Labels shuffled: the cosine with shuffled labels, as a control. A
cosine no larger than the control is no evidence that the levels agree about the images.
"""

ABLATION = """
The {comparisons} comparisons are one family. They follow the rule of the verdicts given above. The
reference is the first cell of the same variant. The p values are adjusted. The intervals are not adjusted.
"""

PAPER_RATE = """
At the paper's 1e-6, {variant} scores {above} points above always answering {common} and {below} points from
its best rate, {best}. Its training loss goes from {fall}. Its learning rates add up to {moved}. AdamW can
move a weight of the backbone about that far. It can move a weight of a head that distance times the head
multiplier.
"""

RATES = """
All rates get the same {budget}. AdamW moves a weight by about the learning rate in each step. The
sum of the rates over the steps is therefore about how far a weight of the backbone can move. A weight of a
head can move that distance times the head multiplier. A new head starts at random and has to move far. The
best rate is the best on these same test folds, so its lead is optimistic. At a small rate, more steps help
(a smaller batch, more images, more epochs), and so does a larger head multiplier.
"""

READERS = """
Agreement and Cohen's kappa are over the tested images that both read, with intervals over patients.{stopped}
Other readers: the mean of their kappa with this reader, each on the images that both read. Difference: the
mean of the model's kappa with this reader on the same images, minus that mean. An interval below 0 says that
the model agrees with the reader less than the other readers do. The rows of the label compare the model with
the readers in the same way, on images that somebody read.{derived}
"""

READINGS_STOPPED = """
{n} readings stop at an inner node of the tree. They count as not read, except in the last column, for the
nodes that they name or imply.
"""

LABEL_FROM_READERS = """
The labels are the consensus of these readers ({method}). A reader's agreement with the label is therefore
too high.
"""

SUBGROUPS = """
These scores describe {groups} groups. None of them is tested: among so many looks, some differ by chance.
Macro F1 is over the leaves that a group has, so groups with other leaves differ for this reason alone. The
difference compares the same leaves, and has an interval over patients. It is not estimable for a leaf of
fewer than {floor} patients in either group.
"""

FLOW_UNKNOWN = """
Not recorded: {what}. An import is recorded if `leukotree import` wrote the manifest and nobody changed it
before it was packed.
"""

ONE_SOURCE = """
These leaves have images of one source only: {leaves}. A network can recognise them by the camera.
"""

SETTINGS = """
Not stated: the paper gives no value. The value here is this study's answer or the default.
"""

REPRODUCE = """
These are the commands as they were given. Options that only say where and how fast a command runs are left
out. The study file lies beside this report as `{file}`.
"""

COST = """
Total: {total} {hours}. Search: the sum of the times of the trials and of their re-runs. Runs: the time of
the epochs. Both are multiplied by the number of devices.
"""

BUDGET = """
Steps, parameters and FLOPs are sums over the models of an arm. FLOPs count two for each multiply-add. A
training step counts as three forward passes of each of its images. FLOPs per image is the cost to classify
one image. With a budget of epochs, a model of `base` whose decision has few images gets few steps. With a
budget of steps, all models get the same number.
"""

ONE_RATE = """
One learning rate, one weight decay and one batch size serve all models of `base`, and all members of an
ensemble. A search chooses them for the models together.
"""

PAIRED = """
The arms are paired. Equal backbones of a fold and seed start from the same weights. Models that train on the
same images see them in the same order with the same augmentation. Models that train on a part of them keep
that order. Only the first member of an ensemble is paired: its members have to differ.
"""

UNPAIRED = """
{runs} began before initial weights and order were paired across arms ({listed}). Their differences from
other arms also contain the difference between two initial backbones and two orders of the images.
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
