"""The section about the compute of the arms: whether a comparison is one of methods or of budgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from leukotree import seeds
from leukotree.records import runfolder
from leukotree.records.compute import Compute
from leukotree.report.arms import MATCHED, like_multilabel
from leukotree.report.blocks import Block, Section, Table, Text, number, plural, text
from leukotree.report.prose import runs as prose
from leukotree.report.sections.settings import hours, value_of
from leukotree.report.summary import Arm, Run, StudySummary
from leukotree.spec import MODEL_PER_DECISION, PLAIN

NOT_RECORDED = "not recorded"
NAMED = 6
"""Most runs that a warning lists."""
MEASURES: dict[str, Callable[[Compute], int | None]] = {
    "steps": lambda compute: compute.steps,
    "parameters": lambda compute: compute.parameters,
    "training FLOPs": lambda compute: compute.training_flops,
    "FLOPs per image": lambda compute: compute.image_flops,
}


def section(summary: StudySummary) -> Section | None:
    """A row for each arm, how `base` and `ensemble` compare, and whether the arms are paired. None without
    runs."""
    arms = [arm for arm in summary.arms if arm.runs]
    if not arms:
        return None
    header = ["arm", "models", *MEASURES, f"{hours(summary)} per run", "budget of each model"]
    rows = [[arm.name, _models(arm), *_cells(arm), number(_hours(arm)), budget(summary, arm)] for arm in arms]
    caption = "Compute of one run of each arm, mean over its runs. Hours include scoring."
    blocks: list[Block] = [Table(caption, header, rows), *_matched(arms), text(prose.BUDGET)]
    if like_multilabel(arms, summary.base.model_dump(mode="json")):
        blocks.append(text(prose.FROZEN))
    if any(_on_features(summary, arm) for arm in arms):
        blocks.append(text(prose.STORED))
    if any(arm.variant in MODEL_PER_DECISION for arm in arms):
        blocks.append(text(prose.ONE_RATE))
    return Section("Compute of the arms", [*blocks, paired(summary.runs)])


def budget(summary: StudySummary, arm: Arm) -> str:
    """The budget of an arm: steps, or epochs."""
    if arm.variant in PLAIN:
        return "one fit"
    steps, epochs = (
        arm.values.get(key, value_of(summary.base, key)) for key in ("optim.steps", "optim.epochs")
    )
    return f"{epochs} epochs" if steps is None else f"{steps} steps"


def _on_features(summary: StudySummary, arm: Arm) -> bool:
    """Whether the runs of an arm train on stored features."""
    base = summary.base
    own = {
        group: getattr(base, group).model_copy(
            update={key: arm.values[f"{group}.{key}"] for key in keys if f"{group}.{key}" in arm.values}
        )
        for group, keys in (("backbone", ("train", "weights")), ("augment", ("views",)))
    }
    return base.model_copy(update={"variant": arm.variant, **own}).on_features


def paired(runs: Sequence[Run]) -> Text:
    """Whether all runs of a fold start from the same backbone and see the images in the same order."""
    old = [run.name for run in runs if runfolder.streams_of(run.environment) == seeds.BY_STAGE]
    if not old:
        return text(prose.PAIRED)
    more = [f"and {len(old) - NAMED} more"] if len(old) > NAMED else []
    listed = ", ".join([f"`{name}`" for name in old[:NAMED]] + more)
    return text(prose.UNPAIRED, "warning", runs=f"{len(old)} of {plural(len(runs), 'run')}", listed=listed)


def _mean(arm: Arm, measure: Callable[[Compute], int | None]) -> float:
    """The mean of a measure over the runs of an arm. NaN where a run has not recorded it."""
    values = [None if run.compute is None else measure(run.compute) for run in arm.runs]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else math.nan


def _models(arm: Arm) -> str:
    models = _mean(arm, lambda compute: compute.models)
    return NOT_RECORDED if math.isnan(models) else f"{models:g}"


def _cells(arm: Arm) -> list[str]:
    means = [_mean(arm, measure) for measure in MEASURES.values()]
    return [_large(mean) for mean in means]


def _large(value: float) -> str:
    """A count in short form: 1140, 21.6 M, 3.21e+15. "not recorded" for NaN."""
    if math.isnan(value):
        return NOT_RECORDED
    if value < 1e5:
        return f"{value:.0f}"
    return f"{value / 1e6:.3g} M" if value < 1e9 else f"{value:.3g}"


def _hours(arm: Arm) -> float:
    """Mean hours of a run. NaN where a run has not recorded them."""
    known = [run.hours for run in arm.runs if run.hours is not None]
    return sum(known) / len(known) if len(known) == len(arm.runs) else math.nan


def _matched(arms: Sequence[Arm]) -> list[Text]:
    """By how much an ensemble differs from `base` with the same settings in each measure."""
    challenger, reference = MATCHED
    texts = []
    for base in [arm for arm in arms if arm.variant == challenger]:
        for flat in [arm for arm in arms if arm.variant == reference]:
            if (base.cell is None) != (flat.cell is None) or base.values != flat.values:
                continue
            pairs = {name: (_mean(flat, measure), _mean(base, measure)) for name, measure in MEASURES.items()}
            shares = {name: ours / theirs - 1 for name, (ours, theirs) in pairs.items()}
            if not any(map(math.isnan, shares.values())):
                listed = ", ".join(f"{name} {100 * share:+.1f} %" for name, share in shares.items())
                texts.append(Text(f"`{flat.name}` against `{base.name}`: {listed}."))
    return texts
