"""Texts about what the runs cost, and how to repeat them."""

INTERFERENCE = """
The gradients of the levels' losses are compared on the parameters that the levels share. They are measured
for each block of the backbone, on fixed probe batches. Cosine below 0: a step that helps one level harms
the other. Conflicts: the share of batches with a negative cosine. Norm ratio: the gradient norm of the
first level over that of the second. Labels shuffled: the cosine with shuffled labels, as a control. A
cosine no larger than the control is no evidence that the levels agree about the images.
"""

REPRODUCE = """
These are the commands as they were given. Options that only say where and how fast a command runs are left
out. The study file lies beside this report as `{file}`.
"""

BUDGET = """
Steps, parameters and FLOPs are sums over the models of an arm. FLOPs count two for each multiply-add. A
training step counts as three forward passes of each of its images. FLOPs per image is the cost to classify
one image. With a budget of epochs, a model of `base` whose decision has few images gets few steps. With a
budget of steps, all models get the same number.
"""

FROZEN = """
On a frozen backbone nothing is shared that trains. A decision then has the same head and the same loss in
`base` and in `multilabel`. They differ only in the batches and the number of steps: a model of `base` sees
the images below its decision alone. So the primary comparison is that of `flat` with `multilabel`, unless the
study declares another one.
"""

STORED = """
The features of the frozen backbone are computed once, for all runs. A run's training FLOPs count one forward
pass for each of its training images and views, and the training of its heads.
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
