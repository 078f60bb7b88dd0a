"""The report's longer explanations; `blocks.text` fills them in and joins their lines."""

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

UNEQUAL_TRIALS = """
The variants did not get the same number of search trials ({trials}): the comparison favours the one with more.
"""

CORRECTED_INTERVAL = """
The interval is that of Nadeau and Bengio: mean ± t(J − 1) · sqrt(s² (1/J + n_test/n_train)) over the J fold-wise
differences, here with n_test/n_train = {ratio:.3f}. `better` and `worse` mean that it leaves out 0. `inconclusive` is
an answer: with these folds, an observed mean difference below `smallest visible` (half the interval) could not have
been told from none. There is no correction for the number of comparisons.
"""

FEW_FOLDS = "With {folds} the spread between folds is itself poorly known; take a verdict as a hint, not as proof."

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
(arithmetically, geometrically) and decide top-down as for an image. Counts are means over seeds where a fold has
several.
"""

ONE_SOURCE = "Fed by one source only: {leaves}. There a network can tell the leaf by the camera."

BORDER = """
On the border of the searched range (its outer {share} per cent, or the first or last of an ordered choice): {keys}. A
better value may lie outside; widen the range where the key allows it.
"""

SETTINGS = "Not stated: the paper gives no value, and the one here is this study's answer or default."

CHOICE = "The search chose by the mean macro-F1 of {folds} inside the outer training folds."

NO_SEARCH = "No search has ended for {variants}: no outer folds of it were run."

OPTIMISM = """
Inner macro F1 is the score that the search maximised, so that of the chosen trial is optimistic; beside it stands the
same variant on the clean fold, which the search never saw.
"""

ABOUT = """
Hierarchical classification of white blood cells: `flat` is one softmax over the leaves, `base` one separate model per
decision of the tree, `multilabel` one shared model with a masked loss per decision. All variants are decided in the
same way, greedily top-down over log p(child given parent), and every number below is computed from the stored
predictions of held-out test folds.
"""
