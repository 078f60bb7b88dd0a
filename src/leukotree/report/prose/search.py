"""Texts about searches, and the values that they chose."""

UNEQUAL_TRIALS = """
The variants had different numbers of search trials ({trials}). The comparison favours the variant with more
trials.
"""

ANSWER = """
Values were chosen by their mean macro F1 over {folds} inner folds, which lie inside the outer training folds.
What is known of the best values comes from a Gaussian process on the scores of all trials and re-runs of the
variant, at one fidelity: a trial that was stopped early counts with the final score that its last one
predicts, a failed one with the worst score. Outer folds have levels and differences of their own. 80 %
region of the best: the shortest range, or the fewest options, that hold the best value with a probability of
80 % (in brackets that of the options). On the border: in the outer {share} per cent of the range. Good
enough: the value loses at most one point of macro F1, the other keys at their best. Importance: the share of
the variance of the score over the searched range that a key explains by itself (functional ANOVA). A key that
matters outside of the range can look unimportant. A draw that several searches tried is one configuration.
Below {floor} different draws nothing is estimable. Not stated: the paper gives no value.
"""

BORDER = """
These chosen values lie on the border of the searched range (its outer {share} per cent, or the first or
last option of an ordered choice): {keys}. A better value may lie outside the range. Widen the range where
the key allows it.
"""

NO_SEARCH = "No search has ended for {variants}. Outer folds without chosen values are not run."

MARGINALS = """
Macro F1 against each searched key. Points: trials; a hollow point is a trial that was stopped early. Lines
with bands: what the key can reach when all others are at their best, the mean and 80 % of the posterior.
Where that is not estimable, a line is the mean of the completed trials in each bin. Grey bars: the number of
different draws among them. Dotted lines: the ends of the range.
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
The trial with the best mean over the fresh seeds is chosen. {less}
"""

LESS_ITS_RERUNS = """
Less its re-runs: the score that the search gave to its best trial, minus the mean of the fresh runs of that
trial. Both are trained on as many images, so the difference is what the best of many owes to the luck of its
seed{splits}.
"""

BY_POSTERIOR = """
The trial with the highest posterior mean was chosen: that of a Gaussian process on all trials and re-runs of
its search. A lucky score moves it little where similar values scored lower. {less}
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
