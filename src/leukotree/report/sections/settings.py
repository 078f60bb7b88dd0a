"""The sections about settings: what was not searched, beside the paper's; runs, cost."""

from __future__ import annotations

from typing import Any

from leukotree.report import prose
from leukotree.report.blocks import Block, Section, Table, duration, number, text
from leukotree.report.summary import StudySummary
from leukotree.spec import RunSpec

NOT_STATED = "not stated"
KEYS = {
    "optim.lr": ("learning rate", "1e-6"),
    "optim.batch_size": ("batch size", NOT_STATED),
    "optim.weight_decay": ("weight decay", NOT_STATED),
    "loss.gamma": ("focal gamma", NOT_STATED),
    "loss.tau": ("focal alpha, as tau (inverse frequency ^ tau)", NOT_STATED),
    "optim.head_lr_multiplier": ("head learning rate multiplier", NOT_STATED),
    "optim.epochs": ("epochs", "80"),
    "backbone.name": ("backbone", "ViT-Small (best), ConvNeXt-Tiny"),
    "backbone.weights": ("pretrained weights (– is none: random)", NOT_STATED),
    "loss.kind": ("loss", "focal"),
    "loss.isolation": ("loss isolation (multilabel)", "self-contained loss per level; mechanism not stated"),
}
"""Dotted key -> name, and the paper's value."""
ASKED = tuple(KEYS)[:6]
"""What the answer is about, searched or not."""


def value_of(spec: RunSpec, key: str) -> Any:
    """The value at a dotted key."""
    found: Any = spec
    for step in key.split("."):
        found = getattr(found, step)
    return found


def hours(summary: StudySummary) -> str:
    """The unit of cost: GPU-hours, CPU-hours, or both where runs used both."""
    devices = sorted({"GPU" if run.environment.get("gpus") else "CPU" for run in summary.runs}) or ["device"]
    return f"{'/'.join(devices)}-hours"


def settings(summary: StudySummary) -> Section:
    """The hyperparameters that no search chose, beside the paper's."""
    varied = [key for key in KEYS if any(key in arm.values for arm in summary.arms)]
    caption = (
        "Fixed, the same for all variants." if not varied else "Fixed, where the grid does not say otherwise."
    )
    blocks: list[Block] = [
        Table(caption, ["setting", "paper", "here"], _fixed(summary), labels=3),
        text(prose.SETTINGS),
    ]
    return Section("Hyperparameters", blocks)


def _fixed(summary: StudySummary) -> list[list[str]]:
    """Name, paper, here: the keys that were not searched, then what is no single key."""
    base, dataset, augment = summary.base, summary.dataset or {}, summary.base.augment
    searched = summary.space if summary.searches else {}
    rows = [
        [name, paper, number(value_of(base, key))]
        for key, (name, paper) in KEYS.items()
        if key not in searched
    ]
    size = dataset.get("size")
    folds = dataset.get("folds") or (summary.study.get("folds") or {}).get("outer") or "–"
    group = f" by {dataset['group']}" if "group" in dataset else ""
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
        ["split", NOT_STATED, f"{folds} folds, grouped{group}, stratified by leaf"],
    ]


def runs(summary: StudySummary) -> Section:
    """Every expected run with its hash, those without a result first."""
    blocks: list[Block] = []
    if summary.missing:
        rows = [[m.arm, str(m.test_fold), str(m.seed), m.name, m.state] for m in summary.missing]
        blocks.append(
            Table("Expected, but without a result.", ["arm", "fold", "seed", "run", "state"], rows, labels=5)
        )
    if summary.runs:
        rows = [
            [
                r.arm,
                str(r.test_fold),
                str(r.seed),
                r.name,
                str(r.epochs),
                str(len(r.true)),
                duration(r.seconds),
            ]
            for r in summary.runs
        ]
        header = ["arm", "fold", "seed", "run", "epochs", "images", "time"]
        blocks.append(
            Table("Finished; the 12 hex digits are the hash of the run's spec.", header, rows, labels=4)
        )
    return Section("Runs", blocks)


def cost(summary: StudySummary) -> Section:
    """Trials, runs and device time per variant."""
    rows, total = [], 0.0
    for variant in summary.variants:
        searches = summary.searches.get(variant, {}).values()
        again = [
            one.get("seconds") or 0.0
            for search in searches
            for one in (search.best or {}).get("reruns") or ()
        ]
        mine = [run for run in summary.runs if run.variant == variant]
        searching = sum(float(search.trials["seconds"].sum()) for search in searches) + sum(again)
        training = sum(run.seconds * run.ranks for run in mine)
        total += searching + training
        both = f"{(searching + training) / 3600:.2f}"
        rows.append(
            [
                variant,
                str(sum(len(search.trials) for search in searches)),
                f"{searching:.0f}",
                str(len(mine)),
                f"{training:.0f}",
                both,
            ]
        )
    unit = hours(summary)
    header = ["variant", "trials", "search, s", "runs", "runs, s", unit]
    return Section(
        "Cost",
        [
            Table("What the study took so far.", header, rows),
            text(prose.COST, total=f"{total / 3600:.2f}", hours=unit),
        ],
    )
