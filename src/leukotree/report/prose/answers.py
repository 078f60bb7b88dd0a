"""Texts about what the arms decide: by rule, patient, node and leaf."""

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

MIXED = """
The leaves of the tree exclude each other. A cell can have a high probability for two leaves for several
reasons. The cell may be hard to classify. It may have a mixed phenotype, for which the tree has no leaf.
The variant may be underconfident. Probabilities are therefore scaled first where there is an inner
validation (see Calibration). Raw probabilities of different losses should not be compared. LCA height 1
means that the two leaves are siblings. The assumption of exclusive leaves does little harm under two
conditions: few cells lie between two leaves, and one of the two leaves is nearly always true. The labels
cannot test the assumption, because they give one leaf per cell.
"""

NODES = """
Every image counts at each node above its leaf. A node is found where the decided leaf is the node or below
it, whatever was decided further down. So an image can be found at `leukemia` and lost at `acute`. Intervals:
bootstrap over patients with all their images; not estimable for a node with fewer than {floor} patients.
"""

DIFFICULT = """
A confident error may be a wrong label, a bad image, or a cell that the arm has learned wrongly. A near tie
may be a cell between two leaves. `tables/{file}.csv` has the keys. A person who looks at the images decides.
"""
