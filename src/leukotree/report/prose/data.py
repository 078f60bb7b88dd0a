"""Texts about the images: readers, groups and the flow of images."""

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

SHORTCUTS = """
A shortcut is learnt on the other folds and scored on the test fold, as the arms are. `source only` answers,
for each source, the leaf of whose training images the largest share comes from it. `colour only` is logistic
regression on the mean and spread of the three colours. As far as a shortcut explains a leaf, the score of an
arm on this leaf is no evidence that it knows the cell.
"""

SOURCE_ALONE = """
The {name} alone reaches a macro F1 of {score} % without a look at the cell. The best arm, `{arm}`, reaches
{best} %, and {always} reaches {common} %.{leaves} A network can learn the camera of a source instead of the
cell. Scores over all sources are therefore no evidence about morphology, as far as the source explains them
(see Shortcuts). Compare within a source (see Subgroups), or leave one source out (`--folds-by source` of
`leukotree pack MANIFEST SHARDS`).
"""

SOURCE_SAYS_NOTHING = """
The {name} alone reaches a macro F1 of {score} %. By chance it reaches up to {chance} %, and {always} reaches
{common} %: the source gives no leaf away.{leaves}
"""

SOURCE_UNKNOWN = """
The images are from several sources. How far the source alone gets is not known yet, since it is learnt on
one fold and scored on another.
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

EXTERNAL = """
Each finished run predicts the images of another data set by itself. Scores are means over these runs, as
those of the own test folds are. The patients of both are resampled, each within its own data set. A data set
may lack leaves, and the score of one leaf says nothing about another. Own, same leaves: the own test images
of the leaves that it has. Sensitivity: the share of the images of a leaf, or below a node, that are called
so. Specificity: the share of the other images that are not. Confidence is the probability of the most
probable leaf: above 0 the models are too sure. A calibrated model may have a calibration error on some leaves
alone, so compare the last two columns. Temperatures are those of the own inner folds. An interval is not
estimable below {floor} patients. A difference may come from the patients, the stain, the camera or the
labels. These numbers do not say from which.
"""

EXTERNAL_BY_IMAGE = """
Most images of `{name}` have no patient id. Each counts as a patient of its own, so the intervals outside, and
those of the differences, are too narrow where such images come from the same patient.
"""
