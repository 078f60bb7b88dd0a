"""Texts about maps of what the models decide by."""

EXPLANATIONS = """
A map says how much each place of an image counts for a decision. The tables say whether maps find the white
cell. *In the cell* is the share of a map inside the cell's mask. A map that is the same everywhere has the
mask's area. Many cells lie in the middle, so a Gaussian there, which has not seen the image, is the second
baseline. Maps of the same model with random weights are the control of Adebayo et al. (2018): if they find
the cell as well, the method shows the image and not what was learned. A map is a claim about the model, not
about biology.
"""

EXPLANATIONS_WITHOUT_MASKS = """
A map says how much each place of an image counts for a decision. These images have no masks of the cell, so
whether maps find it is not known: `--masks` of the verb `explain` names them. ROAD says what the model
loses without the best places of a map, and stability whether a map stays when the image hardly changes. Maps
of the same model with random weights are the control of Adebayo et al. (2018): they should be others.
"""

PICTURES_OF_PATIENTS = """
Pictures are in `{folder}` of each run's folder. They show cells of patients, so they are not in this page.
"""
