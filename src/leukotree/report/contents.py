"""Where each section of the report belongs, and the line that says what it answers.

A section that is not named here is folded.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

from leukotree.report.blocks import Figure, Section, Table, Text, plural

Place = Literal["key", "folded", "appendix"]


class Entry(NamedTuple):
    place: Place
    line: str
    """What the section answers. A section's own `line` comes before it."""


_KEY: dict[str, str] = {
    "Is a hierarchy better?": "",
    "The declared comparisons": "",
    "The answer: what the paper leaves out": "",
    "Is it the tree?": "",
    "Ablation": "",
    "The tree, decision by decision": "",
    "Differences between studies": "",
    "What differs between the studies": "",
}
_FOLDED: dict[str, str] = {
    "The planned power": "The power that was planned, and whether the study was run as planned.",
    "What a learning rate can learn": "What the paper's learning rate does in as many steps.",
    "Decision rules": "The same predictions decided by other rules, and what stopping above a leaf gains.",
    "Patients": "Scores by patient, and three ways to combine the images of a patient.",
    "Clinical scores": "Sensitivity, specificity, predictive values and net benefit.",
    "Readers": "Agreement of readers with each other, and of the models with them.",
    "Shortcuts": "What source, site, scanner and colour give away without a look at the cell.",
    "Subgroups": "Scores by source, site and scanner.",
    "Other data sets": "What is lost on data of another place, beside the own test folds.",
    "Tree": "Hierarchical precision, recall and F1, and the accuracy at each depth.",
    "Calibration": "Whether the probabilities are right, before and after scaling.",
    "Cells between two leaves": "Images with two probable leaves, and how far apart these are in the tree.",
    "Explanations": "Whether maps of what the models decide by find the white cell.",
    "Prediction sets": "Sets of leaves that have the true one with a wanted probability.",
    "Interference": "Whether the levels of the tree pull the shared model in other directions.",
    "Leaves": "Confusion matrices, and precision, recall and F1 of each leaf with intervals.",
    "Difficult images": "Confident errors, and near ties between two leaves.",
}
_APPENDIX: dict[str, str] = {
    "Folds": "The scores of each outer fold.",
    "Decisions and depths": "Each decision and each depth of the tree as a classification problem.",
    "Flow of images and patients": "From the files that were found to the images that were tested.",
    "Data": "Images, patients and sources of each leaf.",
    "Compute of the arms": "Steps, parameters and FLOPs of each arm.",
    "Hyperparameters": "The settings that no search chose, beside the paper's.",
    "Pretrained weights": "Where the weights of backbones are from, their licence, and what to cite.",
    "Search": "Trials, chosen trials, inner against outer scores, learning curves.",
    "Runs": "Every expected run, with its folder.",
    "Cost": "The time that searches and runs took.",
    "Checklists": "Items of reporting guidelines that this study answers.",
    "Reproduce": "The commands that made these results, and the study file.",
}
ENTRIES: dict[str, Entry] = {
    **{title: Entry("key", line) for title, line in _KEY.items()},
    **{title: Entry("folded", line) for title, line in _FOLDED.items()},
    **{title: Entry("appendix", line) for title, line in _APPENDIX.items()},
}
"""Title of a section -> its place."""
PLACES: tuple[Place, ...] = ("key", "folded", "appendix")
FOLDED: dict[Place, str] = {"folded": "In detail", "appendix": "Appendix"}
"""The headings of the places whose sections are folded."""


def place(section: Section) -> Place:
    """Where a section belongs."""
    return ENTRIES[section.title].place if section.title in ENTRIES else "folded"


def line(section: Section) -> str:
    """One line for a folded section: what it found or answers, then what is in it. Warnings are counted, so
    that folding hides none."""
    said = section.line or (ENTRIES[section.title].line if section.title in ENTRIES else "")
    kinds = Counter(type(block) for block in section.flat)
    warned = sum(isinstance(block, Text) and block.tone == "warning" for block in section.flat)
    counts = [(kinds[Table], "table"), (kinds[Figure], "figure"), (warned, "warning")]
    inside = ", ".join(plural(n, noun) for n, noun in counts if n)
    return f"{said} ({inside})" if said and inside else said or inside
