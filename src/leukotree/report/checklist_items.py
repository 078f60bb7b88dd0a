"""The items of two reporting guidelines, in our own short words, and where a report of a study answers them.

* CLAIM 2024: Tejani et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update,
  Radiology: Artificial Intelligence 2024, doi 10.1148/ryai.240300. 44 items.
* TRIPOD+AI: Collins et al., BMJ 2024;385:e078378, doi 10.1136/bmj-2023-078378. 27 items with sub-items.

The full wording is in these papers. Only the numbers and the subjects are theirs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """An item of a guideline."""

    number: str
    asks: str
    facts: tuple[str, ...] = ()
    """Names of `checklists.facts`."""
    sections: tuple[str, ...] = ()
    """Titles of sections of the report that answer it. Those that a report does not have are left out."""
    author: str = ""
    """What only the author can add. Empty: the report answers the item."""


@dataclass(frozen=True)
class Guideline:
    name: str
    source: str
    items: tuple[Item, ...]


_VERDICTS = ("Is a hierarchy better?", "The declared comparisons")
_SCORES = (*_VERDICTS, "Clinical scores", "Leaves", "Patients", "Tree", "Calibration")
_TRAINING = ("Hyperparameters", "The answer: what the paper leaves out", "Search")

CLAIM = Guideline(
    "CLAIM 2024",
    "Tejani et al. 2024, doi 10.1148/ryai.240300",
    (
        Item("1", "title: an AI study, and the kind of AI", author="the title"),
        Item("2", "summary of design, methods, results, conclusions", author="the abstract"),
        Item("3", "background, intended use and role of the AI", author="the introduction"),
        Item("4", "aims and hypotheses", ("comparisons",), author="why these comparisons"),
        Item("5", "prospective or retrospective", author="how the images were collected"),
        Item("6", "goal of the study", author="the goal"),
        Item("7", "sources of the data", ("sources",), ("Data",), "how each source was collected"),
        Item(
            "8",
            "who and what was included and excluded",
            ("left out",),
            ("Flow of images and patients",),
            "the criteria for patients",
        ),
        Item(
            "9",
            "preprocessing",
            ("preprocessing",),
            ("Hyperparameters",),
            "staining, and what was done before the import",
        ),
        Item("10", "selection of parts of the data", author="how cells or fields were selected"),
        Item("11", "de-identification", ("pseudonyms",), author="what was removed before the import"),
        Item("12", "missing data", ("missing",), author="why data are missing"),
        Item("13", "image acquisition", ("scanners",), author="microscope, magnification, stain"),
        Item(
            "14", "how the reference standard was obtained", ("labels",), author="how each leaf was diagnosed"
        ),
        Item("15", "why this reference standard", author="the reason"),
        Item(
            "16",
            "who made the annotations",
            ("readers",),
            author="qualification and instructions of the readers",
        ),
        Item(
            "17",
            "annotation of the test set",
            ("readers", "labels"),
            author="whether the test images were annotated differently",
        ),
        Item("18", "variability of annotators", ("readers",), ("Readers",)),
        Item("19", "how data were assigned to partitions", ("folds",), ("Folds",)),
        Item("20", "level at which partitions are disjoint", ("disjoint",)),
        Item(
            "21",
            "intended sample size",
            (),
            ("The planned power", *_VERDICTS),
            "how the number of patients was chosen",
        ),
        Item("22", "the model in detail", ("model",), ("Hyperparameters",)),
        Item("23", "software", ("software",), ("Reproduce",)),
        Item("24", "initial parameters", ("initial",)),
        Item("25", "training in detail", ("training",), (*_TRAINING, "Compute of the arms")),
        Item(
            "26",
            "how the final model was selected",
            ("selection",),
            ("Search", "The answer: what the paper leaves out"),
        ),
        Item("27", "ensembles", ("ensembles",)),
        Item("28", "measures of performance", ("decision rule",), _SCORES),
        Item("29", "significance and uncertainty", ("intervals",), _VERDICTS),
        Item(
            "30",
            "robustness or sensitivity analysis",
            (),
            ("Subgroups", "Ablation", "Decision rules", "What a learning rate can learn"),
            "other changes of the images or settings",
        ),
        Item("31", "explainability", (), ("Interference",), "Grad-CAM or another method"),
        Item("32", "evaluation on internal data", ("folds",), ("Variants", "Folds")),
        Item(
            "33",
            "testing on external data",
            (),
            ("Other data sets",),
            "a test on data of another source",
        ),
        Item("34", "registration of a trial", author="the registration, or that there is none"),
        Item("35", "numbers included and excluded", ("left out",), ("Flow of images and patients",)),
        Item(
            "36",
            "characteristics of the cases in each partition",
            ("tested",),
            ("Flow of images and patients", "Data"),
            "age, sex and clinical data",
        ),
        Item("37", "performance with uncertainty", (), _SCORES),
        Item("38", "diagnostic performance and its precision", (), ("Clinical scores", "Leaves", "Patients")),
        Item(
            "39",
            "analysis of wrong cases",
            (),
            ("Leaves", "Cells between two leaves", "Prediction sets"),
            "a look at the wrong images",
        ),
        Item("40", "limitations", ("warnings",), author="the discussion"),
        Item("41", "implications for practice", author="the discussion"),
        Item(
            "42",
            "protocol or technical details",
            ("declared",),
            ("Reproduce",),
            "where a protocol can be read",
        ),
        Item(
            "43",
            "availability of software, model, data",
            ("code",),
            ("Reproduce",),
            "where model and data can be had",
        ),
        Item("44", "funding", author="sources and role of the funders"),
    ),
)

TRIPOD = Guideline(
    "TRIPOD+AI",
    "Collins et al. 2024, doi 10.1136/bmj-2023-078378",
    (
        Item("1", "title: development or evaluation, population, outcome", author="the title"),
        Item("2", "abstract by its own checklist", author="the abstract"),
        Item("3a", "healthcare context, reason, earlier models", author="the introduction"),
        Item("3b", "target population, purpose, users", author="the introduction"),
        Item("3c", "known health inequalities", author="the introduction"),
        Item("4", "objectives: development, evaluation or both", ("comparisons",), author="the objectives"),
        Item(
            "5a",
            "sources of the data for development and evaluation",
            ("sources",),
            ("Data",),
            "why these data, and whom they represent",
        ),
        Item("5b", "dates of the data", author="the dates"),
        Item("6a", "setting, number and place of centres", ("sites",), author="the setting"),
        Item("6b", "eligibility of participants", ("left out",), author="the criteria for patients"),
        Item("6c", "treatments", author="treatments before the smear"),
        Item(
            "7",
            "preprocessing and quality checks",
            ("preprocessing", "left out"),
            ("Flow of images and patients",),
            "whether it was the same for all groups of patients",
        ),
        Item(
            "8a",
            "definition of the outcome",
            ("leaves", "labels"),
            author="how and when each leaf was diagnosed",
        ),
        Item("8b", "who assessed the outcome", ("readers",), ("Readers",), "qualification of the assessors"),
        Item("8c", "blinding of the assessment", author="what the assessors knew"),
        Item("9a", "choice of predictors", ("predictors",)),
        Item(
            "9b",
            "definition of the predictors",
            ("predictors", "scanners"),
            author="how the images were taken",
        ),
        Item("9c", "who assessed the predictors", ("predictors",)),
        Item("10", "study size", (), ("The planned power", *_VERDICTS), "how the size was chosen"),
        Item("11", "missing data", ("missing",), author="why data are missing"),
        Item("12a", "how the data were used and partitioned", ("folds", "disjoint"), ("Folds",)),
        Item("12b", "handling of the predictors", ("preprocessing",)),
        Item("12c", "model, building steps, tuning, internal validation", ("model", "selection"), _TRAINING),
        Item("12d", "heterogeneity over clusters", ("folds",), ("Subgroups",)),
        Item("12e", "measures of performance and comparison", ("decision rule", "intervals"), _SCORES),
        Item("12f", "updating of the model", ("updating",)),
        Item("12g", "how predictions were calculated", ("decision rule",), ("Reproduce",)),
        Item("13", "class imbalance", ("imbalance",), ("Calibration",)),
        Item("14", "fairness", (), ("Subgroups",), "groups of patients that the data do not name"),
        Item(
            "15",
            "output of the model, and thresholds",
            ("decision rule",),
            ("Decision rules", "Clinical scores"),
        ),
        Item("16", "differences between development and evaluation data", ("folds",)),
        Item("17", "ethics approval and consent", author="the approval, or the waiver"),
        Item("18a", "funding", author="sources and role of the funders"),
        Item("18b", "conflicts of interest", author="the declaration"),
        Item("18c", "protocol", ("declared",), author="where it can be read, or that there is none"),
        Item("18d", "registration", author="the registration, or that there is none"),
        Item("18e", "sharing of data", author="where the data can be had"),
        Item("18f", "sharing of code", ("code",), ("Reproduce",), "where the code can be had"),
        Item(
            "19", "involvement of patients and the public", author="the involvement, or that there was none"
        ),
        Item("20a", "flow of participants", ("tested",), ("Flow of images and patients",)),
        Item(
            "20b",
            "characteristics of participants",
            ("tested",),
            ("Data", "Flow of images and patients"),
            "age, sex, dates, treatments",
        ),
        Item(
            "20c",
            "evaluation data compared with development data",
            ("folds",),
            ("Flow of images and patients",),
            "age and sex",
        ),
        Item(
            "21",
            "participants and outcomes in each analysis",
            ("tested",),
            ("Flow of images and patients", "Runs"),
        ),
        Item(
            "22",
            "the full model, for others to use",
            ("code",),
            ("Reproduce",),
            "where the weights can be had",
        ),
        Item("23a", "performance with intervals, also of subgroups", (), (*_SCORES, "Subgroups")),
        Item("23b", "heterogeneity of performance", (), ("Subgroups", "Folds")),
        Item("24", "results of updating", ("updating",)),
        Item("25", "interpretation", author="the discussion"),
        Item("26", "limitations", ("warnings",), author="the discussion"),
        Item("27a", "poor or missing input in use", (), ("Prediction sets",), "what to do with poor images"),
        Item("27b", "what users have to do and know", author="the discussion"),
        Item("27c", "next steps", author="the discussion"),
    ),
)
GUIDELINES = (CLAIM, TRIPOD)
