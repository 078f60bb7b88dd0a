"""The sections about settings beside the paper's, about the runs, and about the cost."""

from __future__ import annotations

from typing import Any

from leukotree.report.blocks import Block, Section, Table, duration, number, text
from leukotree.report.prose import search as prose
from leukotree.report.summary import StudySummary
from leukotree.spec import RunSpec

NOT_STATED = "not stated"
KEYS = {
    "optim.lr": ("learning rate", "1e-6"),
    "optim.batch_size": ("batch size", NOT_STATED),
    "optim.weight_decay": ("weight decay", NOT_STATED),
    "loss.gamma": ("focal gamma", NOT_STATED),
    "loss.tau": ("class weights (focal alpha), as tau (inverse frequency ^ tau)", NOT_STATED),
    "optim.head_lr_multiplier": ("head learning rate multiplier", NOT_STATED),
    "optim.epochs": ("epochs", "80"),
    "optim.steps": ("steps of each model (– is none: as many as the epochs take)", NOT_STATED),
    "backbone.name": ("backbone", "ViT-Small (best), ConvNeXt-Tiny"),
    "backbone.weights": ("pretrained weights (– is none: random)", NOT_STATED),
    "loss.kind": ("loss", "focal"),
    "loss.normalisation": (
        "mean of a decision's loss: over the images below it (defined) or all",
        NOT_STATED,
    ),
    "tree": ("label tree (– is that of the data set)", "four decisions"),
    "loss.isolation": ("loss isolation (multilabel)", "self-contained loss per level; mechanism not stated"),
}
"""Dotted key -> its name, and the paper's value."""
KEYS_OF = {
    "logistic": {"plain.c": "logistic regression: C, the inverse strength of the L2 penalty"},
    "neighbours": {
        "plain.k": "nearest neighbours: how many vote",
        "plain.temperature": "nearest neighbours: temperature of the votes",
    },
}
"""Variant -> dotted key -> its name, for keys that have an effect in this variant only."""
ASKED = tuple(KEYS)[:6]
"""The settings that `answer` shows, searched or not."""


def value_of(spec: RunSpec, key: str) -> Any:
    """The value at a dotted key."""
    value: Any = spec
    for step in key.split("."):
        value = getattr(value, step)
    return value


def hours(summary: StudySummary) -> str:
    """The unit of cost: GPU-hours, CPU-hours, or CPU/GPU-hours where the runs used both."""
    devices = sorted({"GPU" if run.environment.get("gpus") else "CPU" for run in summary.runs}) or ["device"]
    return f"{'/'.join(devices)}-hours"


def settings(summary: StudySummary) -> Section:
    """The hyperparameters that no search chose, beside the paper's."""
    varied = [key for key in KEYS if any(key in arm.values for arm in summary.arms)]
    caption = "Fixed, the same for all variants."
    if varied:
        caption = "Fixed, unless the grid sets another value."
    blocks: list[Block] = [
        Table(caption, ["setting", "paper", "here"], _fixed(summary), labels=3),
        text(prose.SETTINGS),
    ]
    return Section("Hyperparameters", blocks)


def _fixed(summary: StudySummary) -> list[list[str]]:
    """The rows name, paper, here: the keys that were not searched, then the settings that are more than one
    key."""
    base, dataset, augment = summary.base, summary.dataset or {}, summary.base.augment
    searched = summary.space if summary.searches else {}
    rows = [
        [name, paper, number(value_of(base, key))]
        for key, (name, paper) in KEYS.items()
        if key not in searched
    ]
    of_variants = [names for variant, names in KEYS_OF.items() if variant in summary.variants]
    rows += [
        [name, NOT_STATED, number(value_of(base, key))]
        for names in of_variants
        for key, name in names.items()
        if key not in searched
    ]
    size = dataset.get("size")
    folds = dataset.get("folds") or (summary.study.get("folds") or {}).get("outer") or "–"
    group = f" by {dataset['group']}" if "group" in dataset else ""
    repeated = f", dealt {summary.repeats} times" if summary.repeats > 1 else ""
    crop = f"crop {augment.crop_scale[0]:g}–{augment.crop_scale[1]:g} of the area"
    flips = ("flips and right-angle turns" if augment.turns else "flips") if augment.flips else "no flips"
    stain = f", stain {augment.stain:g}" if augment.stain else ""
    return [
        *rows,
        ["image size", "384 × 384", f"{size} × {size}" if size else "–"],
        ["optimiser", "AdamW", "AdamW"],
        [
            "schedule",
            NOT_STATED,
            f"linear warm-up over {100 * base.optim.warmup:g} % of the steps, then cosine to 0",
        ],
        ["augmentation", NOT_STATED, f"{crop}, {flips}, jitter {augment.jitter:g}{stain}"],
        ["split", NOT_STATED, f"{folds} folds{repeated}, grouped{group}, stratified by leaf"],
    ]


def runs(summary: StudySummary) -> Section:
    """Every expected run with its name. Those without a result come first."""
    blocks: list[Block] = []
    if summary.missing:
        rows = [
            [run.arm, summary.fold_name(run.test_fold), str(run.seed), run.name, run.state]
            for run in summary.missing
        ]
        header = ["arm", "fold", "seed", "run", "state"]
        blocks.append(Table("Expected runs without a result.", header, rows, labels=5))
    if summary.runs:
        rows = [
            [
                run.arm,
                summary.fold_name(run.test_fold),
                *map(str, (run.seed, run.name, run.epochs, len(run.true))),
                duration(run.seconds),
            ]
            for run in summary.runs
        ]
        header = ["arm", "fold", "seed", "run", "epochs", "images", "time"]
        caption = "Finished runs. The 12 hex digits are the hash of the run's spec."
        links = {run.name: run.folder for run in summary.runs}
        blocks.append(Table(caption, header, rows, labels=4, links=links))
    return Section("Runs", blocks)


def cost(summary: StudySummary) -> Section:
    """The trials, runs and device time of each variant."""
    rows, total = [], 0.0
    for variant in summary.variants:
        searches = list(summary.searches.get(variant, {}).values())
        runs = [run for run in summary.runs if run.variant == variant]
        reruns = [rerun for search in searches for rerun in (search.best or {}).get("reruns") or ()]
        searching = sum(float(search.trials["seconds"].sum()) for search in searches)
        searching += sum(rerun.get("seconds") or 0.0 for rerun in reruns)
        training = sum(run.seconds * run.ranks for run in runs)
        total += searching + training
        trials = sum(len(search.trials) for search in searches)
        times = [str(trials), f"{searching:.0f}", str(len(runs)), f"{training:.0f}"]
        rows.append([variant, *times, f"{(searching + training) / 3600:.2f}"])
    unit = hours(summary)
    header = ["variant", "trials", "search, s", "runs", "runs, s", unit]
    costs = text(prose.COST, total=f"{total / 3600:.2f}", hours=unit)
    return Section("Cost", [Table("What the study took so far.", header, rows), costs])
