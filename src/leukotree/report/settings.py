"""The sections about settings: chosen values beside the paper's, the search's history, runs, cost, how to reproduce."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from leukotree import metrics, yamlfile
from leukotree.report import figures, prose
from leukotree.report.blocks import Block, Code, Figure, Section, Table, Text, duration, number, percent, plural, text
from leukotree.report.collect import StudySummary
from leukotree.spec import RunSpec

NOT_STATED = "not stated"
BORDER_SHARE = 0.05
"""A value within this share of a range's width (in logarithms for loguniform) of its end is on the border."""
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
    "loss.isolation": ("loss isolation (multilabel)", "self-contained loss per level; mechanism not stated"),
}
"""Dotted key -> name, and the paper's value."""


def value_of(spec: RunSpec, key: str) -> Any:
    """The value at a dotted key."""
    found: Any = spec
    for step in key.split("."):
        found = getattr(found, step)
    return found


def border(domain: Mapping[str, Any], value: Any) -> str:
    """ "lower" or "upper" where a value lies on the border of its domain, else ""; choices count where 3 or more are numbers."""
    if "choice" in domain:
        options = sorted({float(o) for o in domain["choice"] if isinstance(o, int | float) and not isinstance(o, bool)})
        if len(options) < max(3, len(set(map(str, domain["choice"])))):
            return ""
        return "lower" if value == options[0] else "upper" if value == options[-1] else ""
    kind, (low, high) = next(iter(domain.items()))
    scale = math.log if kind == "loguniform" else float
    place = (scale(value) - scale(low)) / (scale(high) - scale(low))
    return "lower" if place <= BORDER_SHARE else "upper" if place >= 1 - BORDER_SHARE else ""


def settings(summary: StudySummary) -> Section:
    """The chosen hyperparameters, and the fixed ones, beside the paper's."""
    blocks: list[Block] = []
    if summary.searches and summary.space:
        rows, flagged = _searched(summary)
        header = ["setting", "paper", "searched range", *summary.variants]
        blocks.append(Table("Searched: the values that the outer-fold runs use.", header, rows, labels=len(header)))
        ended = {variant for variant, found in summary.searches.items() if found.best}
        if pending := [variant for variant in summary.variants if variant not in ended]:
            blocks.append(text(prose.NO_SEARCH, "warning", variants=", ".join(pending)))
        if flagged:
            blocks.append(text(prose.BORDER, "warning", share=round(100 * BORDER_SHARE), keys=", ".join(flagged)))
    blocks.append(Table("Fixed, the same for all variants.", ["setting", "paper", "here"], _fixed(summary), labels=3))
    folds = plural(int((summary.study.get("folds") or {}).get("inner") or 0), "inner fold")
    blocks.append(text(prose.SETTINGS))
    if summary.searches and summary.space:
        blocks.append(text(prose.CHOICE, folds=folds))
    return Section("Hyperparameters", blocks)


def _searched(summary: StudySummary) -> tuple[list[list[str]], list[str]]:
    """Rows of the searched keys, the paper's order first, and which values lie on a border."""
    rows, flagged = [], []
    for key in [key for key in dict.fromkeys([*KEYS, *summary.space]) if key in summary.space]:
        name, paper = KEYS.get(key, (key, NOT_STATED))
        cells = []
        for variant in summary.variants:
            found, value = summary.searches.get(variant), value_of(summary.spec(variant), key)
            side = border(summary.space[key], value) if found and key in found.chosen else ""
            cells.append(number(value) + (f" ({side} border)" if side else ""))
            if side:
                flagged.append(f"{key} of {variant}")
        rows.append([name, paper, _domain(summary.space[key]), *cells])
    return rows, flagged


def _domain(domain: Mapping[str, Any]) -> str:
    kind, values = next(iter(domain.items()))
    if kind == "choice":
        return ", ".join(number(value) for value in values)
    return f"{number(values[0])} to {number(values[1])}{', log' if kind == 'loguniform' else ''}"


def _fixed(summary: StudySummary) -> list[list[str]]:
    """Name, paper, here: the keys that were not searched, then what is no single key."""
    base, dataset, augment = summary.base, summary.dataset or {}, summary.base.augment
    rows = [[name, paper, number(value_of(base, key))] for key, (name, paper) in KEYS.items() if key not in summary.space]
    size = dataset.get("size")
    folds = dataset.get("folds") or (summary.study.get("folds") or {}).get("outer") or "–"
    group = f" by {dataset['group']}" if "group" in dataset else ""
    crop = f"crop {augment.crop_scale[0]:g}–{augment.crop_scale[1]:g} of the area"
    flips = "flips and right-angle turns" if augment.flips else "no flips"
    stain = f", stain {augment.stain:g}" if augment.stain else ""
    return [
        *rows,
        ["image size", "384 × 384", f"{size} × {size}" if size else "–"],
        ["optimiser", "AdamW", "AdamW"],
        ["loss", "focal", "focal, on the softmax"],
        ["schedule", NOT_STATED, f"linear warm-up over {100 * base.optim.warmup:g} % of the steps, then cosine to 0"],
        ["augmentation", NOT_STATED, f"{crop}, {flips}, jitter {augment.jitter:g}{stain}"],
        ["split", NOT_STATED, f"{folds} folds, grouped{group}, stratified by leaf"],
    ]


def search(summary: StudySummary) -> Section | None:
    """Counts, chosen trials, and the history as plots; None without a search."""
    if not summary.searches:
        return None
    rows = []
    for variant, found in summary.searches.items():
        states = found.trials["state"].value_counts()
        best = found.best or {}
        counts = [str(len(found.trials)), *(str(int(states.get(state, 0))) for state in ("completed", "stopped", "failed"))]
        value = best.get("value")
        shown = "–" if value is None else percent(float(value))
        rows.append([variant, str(best.get("trial", "–")), *counts, shown, _clean_score(summary, variant)])
    header = ["variant", "chosen", "trials", "completed", "stopped early", "failed", "inner macro F1", "clean fold macro F1"]
    table = Table("Trials of each variant; scores in per cent.", header, rows, labels=2)
    blocks: list[Block] = [table, text(prose.OPTIMISM), *unequal_trials(summary), *_plots(summary)]
    return Section("Search", blocks)


def _plots(summary: StudySummary) -> list[Block]:
    trials = {variant: found.trials for variant, found in summary.searches.items()}
    histories = {v: found.history for v, found in summary.searches.items() if len(found.history)}
    chosen = {variant: str((found.best or {}).get("trial")) for variant, found in summary.searches.items()}
    blocks: list[Block] = []
    if histories:
        curves = figures.learning_curves(histories, chosen)
        blocks.append(Figure("learning-curves", "Mean macro-F1 of the inner folds over epochs, one line per trial.", curves))
    caption = "Macro-F1 of each trial (points) and the best so far (lines)."
    blocks.append(Figure("best-so-far", caption, figures.best_so_far(trials)))
    if space := {key: domain for key, domain in summary.space.items() if any(key in table for table in trials.values())}:
        caption = "Each searched key against macro-F1. Hollow: stopped early, so not trained as long. Dotted: ends of the range."
        blocks.append(Figure("marginals", caption, figures.marginals(trials, space)))
    return blocks


def _clean_score(summary: StudySummary, variant: str) -> str:
    values = [metrics.macro_f1(run.true, run.predicted, len(run.taxonomy.leaves))
              for run in summary.runs if run.variant == variant and run.test_fold == summary.clean_fold]  # fmt: skip
    return percent(sum(values) / len(values)) if values else "–"


def unequal_trials(summary: StudySummary) -> list[Block]:
    """A warning where variants were not searched equally long; failed trials do not count."""
    trials = dict.fromkeys(summary.variants, 0)
    for variant, search in summary.searches.items():
        trials[variant] = int((search.trials["state"] != "failed").sum()) if len(search.trials) else 0
    if len(set(trials.values())) == 1:
        return []
    return [text(prose.UNEQUAL_TRIALS, "warning", trials=", ".join(f"{variant} {n}" for variant, n in trials.items()))]


def runs(summary: StudySummary) -> Section:
    """Every expected run with its hash, those without a result first."""
    blocks: list[Block] = []
    if summary.missing:
        rows = [[m.variant, str(m.test_fold), str(m.seed), m.name, m.state] for m in summary.missing]
        blocks.append(Table("Expected, but without a result.", ["variant", "fold", "seed", "run", "state"], rows, labels=5))
    if summary.runs:
        rows = [[r.variant, str(r.test_fold), str(r.seed), r.name, str(r.epochs), str(len(r.true)), duration(r.seconds)]
                for r in summary.runs]  # fmt: skip
        header = ["variant", "fold", "seed", "run", "epochs", "images", "time"]
        blocks.append(Table("Finished; the 12 hex digits are the hash of the run's spec.", header, rows, labels=4))
    return Section("Runs", blocks)


def cost(summary: StudySummary) -> Section:
    """Trials, runs and device time per variant."""
    devices = sorted({"GPU" if run.environment.get("gpus") else "CPU" for run in summary.runs}) or ["device"]
    rows, total = [], 0.0
    for variant in summary.variants:
        found = summary.searches.get(variant)
        mine = [run for run in summary.runs if run.variant == variant]
        searching = float(found.trials["seconds"].sum()) if found else 0.0
        training = sum(run.seconds * run.ranks for run in mine)
        total += searching + training
        trials = str(len(found.trials)) if found else "0"
        both = f"{(searching + training) / 3600:.2f}"
        rows.append([variant, trials, f"{searching:.0f}", str(len(mine)), f"{training:.0f}", both])
    hours = f"{'/'.join(devices)}-hours"
    header = ["variant", "trials", "search, s", "runs", "runs, s", hours]
    note = f"Together {total / 3600:.2f} {hours}. Search: the sum of the trials' times. Runs: time in epochs times processes."
    return Section("Cost", [Table("What the study took so far.", header, rows), Text(note)])


def reproduce(summary: StudySummary) -> Section:
    """The commands, the study, and what code and data the runs were made from."""
    file = f"sweeps/{summary.name}.yaml"
    commands = [f"leukotree sweep {file}", f"leukotree folds {file}", f"leukotree report {file}"]
    if summary.runs:
        commands.append(f"leukotree train results/runs/{summary.name}/{summary.runs[0].name}/spec.yaml   # one run by itself")
    blocks: list[Block] = [Code("\n".join(commands))]
    for name, key in (("Commits of the code", "commit"), ("Fingerprints of the data set", "dataset")):
        if values := sorted({str(run.environment[key]) for run in summary.runs if run.environment.get(key)}):
            blocks.append(Text(f"{name}: {', '.join(f'`{value}`' for value in values)}."))
    study = {**summary.study, "base": summary.base.model_dump(mode="json", exclude_defaults=True)}
    return Section("Reproduce", [*blocks, Text("The study, defaults left out:"), Code(yamlfile.dump(_filled(study)).rstrip())])


def _filled(value: Any) -> Any:
    """Nested mappings without the keys that hold nothing."""
    if not isinstance(value, Mapping):
        return value
    inner = {key: _filled(below) for key, below in value.items()}
    return {key: below for key, below in inner.items() if below is not None and below != {}}
