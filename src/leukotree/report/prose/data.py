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
