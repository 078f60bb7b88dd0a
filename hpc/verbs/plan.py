"""`plan`: the power of a study before it is run."""

from __future__ import annotations

import argparse
import json
from argparse import Namespace
from typing import TYPE_CHECKING

from hpc import options
from leukotree.progress import step

if TYPE_CHECKING:
    from leukotree.report.summary import StudySummary


def define_plan(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "plan",
        "simulate the power of a study: the folds, repeats, seeds and patients that find an effect",
        "leukotree plan sweeps/paper.yaml --effect 0.05 --patients 84,168",
        run_plan,
    )
    options.study(verb)
    verb.add_argument(
        "--effect",
        type=_effect,
        required=True,
        metavar="D",
        help="the true difference in macro F1 that the study is to find, such as 0.05",
    )
    verb.add_argument(
        "--power",
        type=_probability,
        default=0.8,
        metavar="P",
        help="the wanted probability of finding it (default %(default)s)",
    )
    for key, what in (
        ("folds", "outer folds (default: the study's, and 10)"),
        ("repeats", "repeats of the cross-validation (default: the study's, 1 and 3)"),
        ("seeds", "numbers of seeds (default: the study's, 1 and 3)"),
        ("patients", "numbers of patients (default: those of the shards, 2 and 4 times as many)"),
    ):
        verb.add_argument(f"--{key}", type=_numbers, metavar="N,N", help=what)
    verb.add_argument(
        "--from",
        dest="pilot",
        metavar="PILOT",
        help="measure the spread in the finished runs of this study's file (default: assume it)",
    )
    for key, default, what in (
        ("score", 0.85, "probability that an image is right"),
        ("icc", 0.3, "correlation between images of a patient"),
        ("agreement", 0.5, "correlation of the results of two arms for a patient"),
        ("training-sd", 0.01, "standard deviation between seeds, of the difference of two runs"),
        ("method-sd", 0.01, "standard deviation between folds that seeds and patients do not remove"),
    ):
        help = f"assumed {what} (default {default})"
        verb.add_argument(f"--{key}", type=_probability, default=default, metavar="X", help=help)
    verb.add_argument("--json", action="store_true", help="print JSON, with every design")
    pilot = "leukotree plan sweeps/paper.yaml --effect 0.05 --from sweeps/pilot.yaml"
    verb.epilog = f"{verb.epilog}. With the spread of a pilot study: {pilot}"


def _effect(text: str) -> float:
    """A difference of scores that is not 0 (for argparse)."""
    value = options.number(text)
    if not 0 < abs(value) < 1:
        raise argparse.ArgumentTypeError(f"expected a difference in macro F1 such as 0.05, not {text!r}")
    return value


def _probability(text: str) -> float:
    """A number from 0 up to below 1 (for argparse)."""
    value = options.number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 up to below 1, not {text!r}")
    return value


def _numbers(text: str) -> list[int]:
    """Whole numbers above 0, such as 5,10 (for argparse)."""
    return sorted({options.positive(part.strip()) for part in text.split(",")})


def run_plan(arguments: Namespace) -> int:
    step("reading the study and its data")
    from hpc import planning
    from hpc.studies import study as studies
    from leukotree.records import planned

    study = studies.load(arguments.study, arguments.overrides)
    declared = planning.pairs(study)
    there = planning.patients(study, arguments.patients)
    step("the spread of the folds")
    if arguments.pilot:
        known = planning.measured(_summary(arguments.pilot), declared[0])
    else:
        assumed = planning.Assumed(
            score=arguments.score,
            icc=arguments.icc,
            agreement=arguments.agreement,
            training=arguments.training_sd,
            method=arguments.method_sd,
        )
        known = planning.assumed(study, there, assumed)
    wanted = planning.Wanted(
        effect=arguments.effect,
        power=arguments.power,
        folds=arguments.folds,
        repeats=arguments.repeats,
        seeds=arguments.seeds,
        patients=arguments.patients,
    )
    content, rows = planning.plan(study, declared, there, known, wanted)
    kept = planned.keep(study.root, content)
    if arguments.json:
        print(json.dumps({**content, "designs": rows, "file": str(kept) if kept else None}))
    else:
        print(*planning.lines(study, content, rows, there, kept), sep="\n")
    return 0


def _summary(path: str) -> StudySummary:
    """The finished runs of a pilot study."""
    from hpc import collected
    from hpc.studies import study as studies

    return collected.summary(studies.load(path))
