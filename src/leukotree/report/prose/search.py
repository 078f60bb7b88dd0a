"""Texts about searches, and the values that they chose."""

UNEQUAL_TRIALS = """
The variants had different numbers of search trials ({trials}). The comparison favours the variant with more
trials.
"""

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

PARALLEL = """
Each line is a trial: its values, and the score at the right. Grey: stopped early. Each axis goes from one end
of the searched range to the other.
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

SETTINGS = """
Not stated: the paper gives no value. The value here is this study's answer or the default.
"""

COST = """
Total: {total} {hours}. Search: the sum of the times of the trials and of their re-runs. Runs: the time of
the epochs. Both are multiplied by the number of devices.
"""
