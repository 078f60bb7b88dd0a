"""The report's longer explanations; `blocks.text` fills them in and joins their lines."""

ABOUT = """
Hierarchical classification of white blood cells: `flat` is one softmax over the leaves, `base` one separate model per
decision of the tree, `multilabel` one shared model with a loss per level. All are decided by one rule, {rule} log
p(child given parent), and every number below is computed from the stored predictions of held-out test folds.
"""

UNCHECKED = """
The results are not compared with {what}: whether they belong to what is there today is not known.
"""

READING = """
Seeds are averaged within a fold first. Macro averages run over all {leaves} leaves; one that is never predicted
counts as 0. Balanced accuracy is the mean recall of the leaves that have samples. {patients} For scale: always
answering {common} gives accuracy {accuracy}, balanced accuracy {balanced_accuracy} and macro F1 {macro_f1}.
"""

PATIENTS = {
    None: "Patient-level scores are not available: the images carry no patient.",
    "patient": "Patient level: the mode of a patient's image predictions.",
    "patient x leaf": "Patient level: the unit is patient x leaf, by the mode of its image predictions (see Patients).",
}

NOT_NESTED = """
The study is not nested: one search per variant chose the hyperparameters for all outer folds. It never saw fold
{clean}, but the images of the other folds ({others}) took part in it, so scores on those folds, and means that
include them, are optimistic. Only fold {clean} is an untouched test.{tested}
"""

INCOMPLETE = """
{missing} of {total} expected runs have no result yet (listed under Runs). Means are over the others, and variants may
differ in the folds that they cover.
"""

SOME_ARMS = "{shown} of {arms} arms are shown in detail; all are under Ablation."

WITHOUT_PATIENT = """
{images} of {total} images have no patient: each counts as one in what is said by patient, so that intervals are too
narrow where such images share a patient. Patient-level scores leave them out, and leaves that have no others: {leaves}.
"""

SLIDES = """
The data set knows slides and no patients: what this report says of patients it says of slides, of which several may be
of one patient.
"""

STRADDLING = """
{patients} have images in several test folds: the data set was dealt image by image (group `image`), and models were
tested on patients whom they were trained on. Nothing here speaks of new patients, and these images count as images
without a patient.
"""

UNEQUAL_TRIALS = """
The variants did not get the same number of search trials ({trials}): the comparison favours the one with more.
"""

OPTIMISTIC = """
Optimistic: one search chose the values for all folds, and saw most of them.
"""

VERDICT = """
The rule, as the study file declares it: `better` where the posterior probability of a difference above the region of
practical equivalence (±{rope} points) is at least {certain} and the Holm-adjusted two-sided p is below {alpha};
`worse` likewise; `equivalent` where the probability of a difference within the region is at least {certain}; else
`inconclusive`, which is an answer. The probabilities are those of the Bayesian correlated t-test (Corani and Benavoli
2015) over fold-wise differences, with n_test/n_train = {ratio}. The images' comparisons are the primary family; those
of patients are a family of their own.
"""

REDECLARED = """
Declared anew after the first run: {changes}. A rule that was chosen with results at hand confirms nothing; read the
verdicts as exploratory.
"""

EVIDENCE = """
Nadeau-Bengio: mean ± t(J − 1) · sqrt(s² (1/J + n_test/n_train)) over J folds, for methods that are trained again.
Bootstrap: of these trained models on other patients, resampled within their leaves with all their images, all folds
pooled; not estimable below {floor} patients. Smallest detectable: the true difference that this rule would have
called with a chance of 80 %. McNemar: patients that only the first : only the second has right, exact.
"""

FEW_FOLDS = (
    "With {folds} the spread between folds is itself poorly known; take a verdict as a hint, not as proof."
)

ANSWER = """
Chosen by the mean macro F1 of {folds} inner folds inside the outer training folds. Interval over the top trials:
lowest to highest (of a choice: how often each) among the {top} best completed trials of each search, or their better
half where that is fewer. Importance: the share of the variance of the score that a key explains by itself (fANOVA),
from the completed trials of all searches of the variant together, each search's scores about their mean; not
estimable below {floor} of them. It is of this range: a key that matters only outside of it looks unimportant. Not
stated: the paper gives no value.
"""

BORDER = """
On the border of the searched range (its outer {share} per cent, or the first or last of an ordered choice): {keys}. A
better value may lie outside; widen the range where the key allows it.
"""

NO_SEARCH = "No search has ended for {variants}: no outer folds of it were run."

MARGINALS = """
Each searched key against macro-F1. Points: trials, hollow if stopped early. Lines: mean of the completed trials in a
bin; grey bars: how many these are, the support. Dotted: ends of the range.
"""

OPTIMISM = """
Inner macro F1 is the score that the search maximised, so that of the chosen trial is optimistic; outer macro F1 is
that of the same values on the outer fold that the search never saw. Both are decided greedily, as every search does.
"""

RERUNS = """
The choice is by the mean over the fresh seeds. Optimism: how much higher the search scored the trial that it liked
best than the mean of that trial's fresh runs.
"""

DECISIONS = """
Variants are compared under one rule, here {rule}; the others decide the same stored predictions. Marginal takes the
most probable node of each depth: its leaf is that of joint, and its picks may contradict the tree (the rate is
given). Expected cost takes the leaf of least expected LCA height. LCA height of errors: how far up the tree true and
predicted leaf meet, 1 is best.
"""

PATIENT_X_LEAF = """
Some patients have images of several leaves (cells of several types), so a patient has no single right answer. The
unit is therefore the pair of patient and true leaf: all images of one leaf of one patient vote together. The true
leaf forms the group, which is not known in use: read this as how well a patient's cells of one kind are recognised
together, not as the accuracy of a diagnosis. Pairs of one patient are not independent, so the Wilson intervals are
somewhat too narrow.
"""

RULES = """
Mode: the leaf that most images were given (the paper's rule); a tie goes to the higher mean probability, then to the
first leaf in preorder. Mean probability and mean log-probability average the images' leaf probabilities
(arithmetically, geometrically) and decide as for an image. Counts are means over seeds where a fold has several.
"""

TREE = """
hP, hR, hF: hierarchical precision, recall and F1 (Kiritchenko et al. 2006) over the nodes of predicted and true
paths, the root left out; macro hF is the mean over images. LCA height: how far up true and predicted leaf meet, 0
where right. Depth: share of images whose path is right down to there; a leaf above it stands for itself.
"""

NODES = """
A decision is scored on the images that truly belong below it, whatever was decided above; a depth on all images. AP
and ROC AUC are macro averages one-vs-rest; Brier is summed over the classes (0 to 2), ECE has 15 bins. Both are of the raw
probabilities, which gamma alone shifts: compare variants by those of Calibration, after scaling.
"""

LEAVES = """
Intervals: bootstrap over patients with all their images (percentiles with Student-t tails); not estimable for a leaf of
fewer than {floor} patients, or most of whose images have none. No spread: all its patients are alike, such as all right.
"""

CALIBRATION = """
Each decision is scaled by a temperature fitted on the chosen trial's predictions of its inner validation folds, never
on test predictions; above 1, the raw probabilities were too sure. ECE: {bins} bins of the most probable class. Brier:
summed over the classes. A focal loss tends to make raw probabilities too modest: compare variants after scaling.
"""

RAW_ONLY = """
Raw only: no inner validation for {variants}; its predictions are gone, or no search ran on the outer folds' own
training part.
"""

CLEAN_ONLY = "Judged on fold {clean} alone: the one search saw images of the others."

MIXED = """
The tree's leaves exclude each other. A cell with much probability on two of them is hard, or of a mixed phenotype
that no leaf can hold, or the variant is too modest: its probabilities are scaled first where there is an inner
validation (see Calibration), and raw ones of different losses should not be compared. LCA height 1 means siblings.
If few lie between leaves, and one of the two is nearly always true, the assumption does little harm here. Labels
cannot tell: they have one leaf per cell.
"""

INTERFERENCE = """
Gradients of the levels' losses on the parameters that they share, by block of the backbone, on fixed probe batches.
Cosine below 0: what helps one level harms the other; conflicts: share of the batches where it is so. Norm ratio:
first level over the second. With shuffled labels the same, for scale: a cosine no larger than that is no agreement
about the images.
"""

ABLATION = """
One family of {comparisons} comparisons, with the rule given above; the reference is the first cell of the same
variant. Intervals are not adjusted, p values are.
"""

PAPER_RATE = """
At the paper's 1e-6, {variant} scores {above} points above always answering {common} and {below} points from its best
rate, {best}; its training loss goes from {fall}. Its learning rates add up to {moved}, about as far as AdamW can move
a weight of the backbone; a head's moves head multiplier times as far.
"""

RATES = """
All rates get the same {epochs} epochs. AdamW moves a weight by about the learning rate in a step, so the sum of the
rates over the steps is about how far weights of the backbone can get, and those of a head the head multiplier times
as far; a new head starts at random and has to travel. The best rate
is the best on these same test folds, so its lead is optimistic. More steps (a smaller
batch, more images, more epochs) and a larger head multiplier are the ways out at a small rate.
"""

ONE_SOURCE = "Fed by one source only: {leaves}. There a network can tell the leaf by the camera."

SETTINGS = "Not stated: the paper gives no value, and the one here is this study's answer or default."

REPRODUCE = """
The commands as they were given, without options that only say where and how fast they run. The study's file lies beside this
report as `{file}`.
"""
COST = """
Together {total} {hours}. Search: the sum of the times of the trials and of their re-runs. Runs: time in epochs. Both
times the devices that they took.
"""
