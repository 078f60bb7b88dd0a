"""Texts at the top of the report: what it is about, how to read the scores, and warnings."""

ABOUT = """
This study classifies white blood cells with a label tree. `flat` is one softmax over the leaves. `base` is
one separate model for each decision of the tree. `multilabel` is one shared model with one loss for each
level. All variants are decided by one rule: {rule} log p(child given parent), the log-probabilities of the
edges of the tree. All test scores below are computed from the stored predictions of held-out test folds.
"""

ENSEMBLE = """
`ensemble` is as many flat models as the tree has decisions; their leaf probabilities are averaged.
"""

PLAIN = {
    "logistic": """
`logistic` is a logistic regression on the features of the frozen backbone, standardised by the training
images, with an L2 penalty.
""",
    "neighbours": """
`neighbours` is a vote of the training images whose features are nearest by cosine similarity.
""",
}

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

SOME_SLIDES = """
{slides} of the patients in this report are slides, since their sources have no patient ids: {sources}.
Several slides may come from the same patient.
"""

STRADDLING = """
{patients} have images in several test folds. The data set was split image by image (group `image`). Models
were therefore tested on patients that they were trained on. No result in this report holds for new
patients. The images of these patients count as images without a patient id.
"""

OPTIMISTIC = """
These scores are optimistic. One search chose the hyperparameters for all folds, and it used images of most
folds.
"""

REDECLARED = """
The declaration in the study file was changed after the first run: {changes}. A rule that is chosen when
results are known confirms nothing. Read the verdicts as exploratory.
"""

ONE_SOURCE = """
These leaves have images of one source only: {leaves}. A network can recognise them by the camera.
"""
