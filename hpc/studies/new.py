"""A new study file: commented, with its costs, for a packed data set. It is checked before it is written."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.studies import study as studies
from hpc.studies.study import Study
from leukotree import files, yamlfile
from leukotree.data.remote import address
from leukotree.errors import InputError

FOLDER = Path("sweeps")
"""The folder of study files, where there is one."""
SCHEMA = Path("docs/schemas/study.json")
"""The schema of a study, in a checkout."""


@dataclass(frozen=True)
class Kind:
    """A kind of study that a new file can have."""

    what: str
    """A sentence for the file's header."""
    text: str
    """The file below its header. {name}, {shards}, {outer}, {backbone} and {weights} are filled in."""
    backbone: str = "test_resnet"
    weights: str = "null"


_BASE = """\
study: {name}
base: # what all runs share; `leukotree schema run` has every key
  data: {{shards: {shards}}}
  # test_resnet is a tiny model for a first look. A real one: {{name: vit_small_patch16_384, weights: hub}}
  backbone: {{name: {backbone}, weights: {weights}}}
  loss: {{gamma: 2.0, tau: 0.5}} # focal loss; tau: how much rare leaves weigh more
  optim: {{lr: 1.0e-3, batch_size: 32, epochs: 8, weight_decay: 0.05}}
  engine: {{precision: fp32}} # bf16 is faster on a GPU
"""
_SEARCH = """\
search: # nested: each outer fold has its own search, which never sees that fold
  trials: 8
  startup_trials: 5
  grace: 2
  space:
    loss.gamma: {{uniform: [0, 5]}}
    loss.tau: {{uniform: [0, 1]}}
    optim.lr: {{loguniform: [3.0e-4, 1.0e-2]}}
    optim.batch_size: {{choice: [16, 32, 64]}}
    optim.weight_decay: {{loguniform: [1.0e-3, 0.3]}}
"""
KINDS: dict[str, Kind] = {
    "compare": Kind(
        "Flat, one model per decision, or one model with a loss per level: searched and compared.",
        _BASE
        + "variants: [flat, base, multilabel]\n"
        + "folds: {{outer: {outer}, inner: 2}} # outer: as the shards were packed\n"
        + "seeds: [0]\n"
        + _SEARCH,
    ),
    "flat": Kind(
        "One softmax over the leaves, without a search: the shortest way to a model and its scores.",
        _BASE + "variants: [flat]\nfolds: {{outer: {outer}}} # as the shards were packed\nseeds: [0]\n",
    ),
    "grid": Kind(
        "An ablation grid: each cell is trained on each outer fold, and nothing is searched.",
        _BASE
        + "variants: [flat, multilabel]\n"
        + "folds: {{outer: {outer}}} # as the shards were packed\n"
        + "seeds: [0]\n"
        + "grid: # all combinations of these values\n"
        + "  loss.gamma: [0.0, 2.0]\n"
        + "  optim.lr: [3.0e-4, 1.0e-3]\n",
    ),
    "matched": Kind(
        "The tree, or only more models? `base` beside a flat ensemble of as many models with as many steps.",
        _BASE
        + "variants: [flat, ensemble, base]\n"
        + "folds: {{outer: {outer}}} # as the shards were packed\n"
        + "seeds: [0]\n"
        + "primary: # the declared comparisons\n"
        + "  - [base, ensemble]\n",
    ),
    "paper": Kind(
        "The setting of the paper (arXiv 2502.10899), and a search of the values that it leaves out.",
        """\
study: {name}
base: # stated in the paper: ViT-Small/16, 384 x 384 pixels, AdamW, learning rate 1e-6, 80 epochs, focal loss
  data: {{shards: {shards}}}
  backbone: {{name: {backbone}, weights: {weights}}} # hub: leukotree weights fetch, on the login node
  loss: {{kind: focal, gamma: 2.0, tau: 0.5, isolation: shared}}
  optim: {{lr: 1.0e-6, batch_size: 32, epochs: 80, weight_decay: 0.05}}
  engine: {{precision: bf16}}
variants: [flat, base, multilabel]
folds: {{outer: {outer}, inner: 3}} # outer: as the shards were packed
seeds: [0, 1, 2]
search: # nested: each outer fold has its own search, which never sees that fold
  trials: 40
  startup_trials: 20
  rerun_share: 0.25 # the best 3 trials again, on 3 fresh seeds and inner folds
  rerun_splits: fresh
  choice: posterior
  space:
    loss.gamma: {{uniform: [0, 5]}}
    loss.tau: {{uniform: [0, 1]}}
    optim.batch_size: {{choice: [8, 16, 32, 64]}}
    optim.weight_decay: {{loguniform: [1.0e-3, 0.3]}}
    optim.head_lr_multiplier: {{choice: [1, 10, 100]}}
""",
        backbone="vit_small_patch16_384",
        weights="hub",
    ),
}
"""Name -> kind. The first one is the default."""


@dataclass(frozen=True)
class New:
    """A study file that was written."""

    path: Path
    plan: Study
    costs: str
    """What it costs, in a line."""
    command: str
    """What to run next."""


def write(name: str, shards: str, like: str, path: Path | None = None) -> New:
    """Write the file of a new study on packed shards.

    Args:
        like: one of KINDS.
        path: None for `sweeps/NAME.yaml`, or `NAME.yaml` where there is no folder `sweeps`.

    Raises InputError for a file, or a folder of runs, of that name, and for shards that cannot be read.
    Then nothing is written.
    """
    from leukotree.data.dataset import Dataset

    path = path or (FOLDER if FOLDER.is_dir() else Path()) / f"{name}.yaml"
    if os.path.lexists(path):
        raise InputError(f"{path}: is there already; choose another name, or edit it")
    if (runs := studies.RUNS / name).exists():
        raise InputError(f"{runs}: has runs of a study of this name; choose another name")
    address.trust(shards)
    dataset = Dataset.open(shards)
    kind = KINDS[like]
    values = {"backbone": kind.backbone, "weights": kind.weights, "outer": dataset.folds}
    body = kind.text.format(name=name, shards=yamlfile.dump(shards).splitlines()[0], **values)
    plan = studies.build(_mapping(body, path), str(path))
    costs = _costs(plan, len(dataset))
    command = _next(plan, path)
    header = _header(kind, costs, dataset.name, command, path, len(dataset), dataset.groups)
    files.write_atomic(path, header + body)
    return New(path, studies.load(path), costs, command)


def _mapping(body: str, path: Path) -> Mapping[str, Any]:
    tree = yamlfile.parse(body, str(path))
    if not isinstance(tree, Mapping):
        raise InputError(f"{path}: expected a mapping of keys")
    return tree


def _header(kind: Kind, costs: str, shards: str, command: str, path: Path, images: int, groups: str) -> str:
    lines = [
        kind.what,
        "",
        f"Costs:    {costs}",
        f"Data:     {shards}: {images:,} images, {groups}",
        f"Check:    {command} --dry-run",
        f"Run:      {_run(command, path)}",
        "Change:   edit this file, or type key=value after a command; `leukotree schema study` has the keys",
    ]
    text = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    if SCHEMA.is_file():
        text += f"# yaml-language-server: $schema={os.path.relpath(SCHEMA, path.parent)}\n"
    return text


def _run(command: str, path: Path) -> str:
    """The command that does all steps, where there is one."""
    if " sweep " in command and Path("slurm/sweep.sh").is_file():
        return f"bash slurm/sweep.sh {shlex.quote(str(path))}        (leukotree submit, on a cluster)"
    report = f"leukotree report {shlex.quote(str(path))}"
    folds = f", then leukotree folds {shlex.quote(str(path))}" if " sweep " in command else ""
    return f"{command}{folds}, then {report}"


def _next(plan: Study, path: Path) -> str:
    verb = "sweep" if plan.search.trials else "grid" if plan.has_grid else "folds"
    return f"leukotree {verb} {shlex.quote(str(path))}"


def _costs(plan: Study, images: int) -> str:
    """What a study trains, and how many images go through a model for it, at most."""
    from hpc.studies import cells

    outer, inner = plan.folds.outer * plan.folds.repeats, plan.folds.inner
    of_fold = images * (plan.folds.outer - 1) / plan.folds.outer
    epochs, parts, total = plan.base.optim.epochs, [], 0.0
    searches = len(plan.search_ids) if plan.search.trials else 0
    if searches:
        again = plan.search.rerun_count(plan.search.trials) * plan.search.rerun_seeds
        trials = plan.search.trials + again
        total += searches * trials * inner * epochs * of_fold * (inner - 1) / inner
        parts.append(
            f"{plan.search.trials} trials{f' and {again} re-runs' if again else ''} x {searches} searches x "
            f"{inner} inner folds x {epochs} epochs at most"
        )
    runs = len(cells.expand(plan)) if plan.has_grid else len(plan.variants) * outer * len(plan.seeds)
    total += runs * epochs * of_fold
    parts.append(f"{runs} runs of {epochs} epochs")
    return f"{', then '.join(parts)}: {total / 1e6:.2g} million images through a model"
