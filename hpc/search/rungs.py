"""The rungs of successive halving: the reports after which trials pause, and where each trial begins.

Trials of `halving` begin at the lowest rung. Those of `hyperband` come in brackets (Li et al. 2018, algorithm
1): the first bracket has the most trials and begins at the lowest rung, the last one trains its few trials to
their end. Then the brackets begin again. They do not depend on the number of trials of the search, which cuts
the last one short.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hpc.studies.study import Study
from leukotree.spec import PLAIN

PAUSING = ("halving", "hyperband")
"""The schedulers that let trials pause."""


@dataclass(frozen=True)
class Bracket:
    """Trials that compete with each other."""

    numbers: range
    """The numbers of its trials."""
    levels: list[int]
    """The reports after which its trials pause, ascending. The last report is none of them."""


def most(study: Study, variant: str) -> int:
    """The reports of a trial that is trained to its end. A variant of PLAIN has one, if rungs are epochs."""
    return 1 if variant in PLAIN and study.search.rungs == "epochs" else study.reports


def judged(study: Study, variant: str) -> list[int]:
    """The reports after which the scheduler judges trials of a variant, ascending: `grace` times the powers
    of the reduction factor, rounded up, as by Ray's ASHA. The last report is none of them. [] where it judges
    none."""
    search = study.search
    if search.scheduler == "none" or most(study, variant) == 1:
        return []
    found: list[int] = []
    report = float(study.grace())
    while (rung := math.ceil(report - 1e-9)) < study.reports:
        found.append(rung)
        report *= search.reduction_factor
    return sorted(set(found))


def levels(study: Study, variant: str) -> list[int]:
    """The reports after which trials of a variant pause, ascending. [] where trials never pause."""
    return judged(study, variant) if study.search.scheduler in PAUSING else []


def brackets(study: Study, variant: str, most: int) -> Iterator[Bracket]:
    """The brackets of a search of `most` trials, in order."""
    rungs, eta = levels(study, variant), study.search.reduction_factor
    if study.search.scheduler != "hyperband" or not rungs:
        yield Bracket(range(most), rungs)
        return
    begin, highest = 0, len(rungs)
    while begin < most:
        for left in range(highest, -1, -1):  # rungs that a trial of the bracket has to pass
            size = math.ceil((highest + 1) / (left + 1) * eta**left - 1e-9)
            yield Bracket(range(begin, min(begin + size, most)), rungs[highest - left :])
            begin += size
            if begin >= most:
                return


def first(study: Study, variant: str, number: int) -> int | None:
    """The report after which a new trial pauses. None: it trains to its end."""
    *_, bracket = brackets(study, variant, number + 1)
    return bracket.levels[0] if bracket.levels else None
