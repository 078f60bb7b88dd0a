"""Folders of a made-up study, as runs and searches leave them, with seeded random predictions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from leukotree import yamlfile
from leukotree.report import drawing
from leukotree.report.blocks import Section, Table, Text
from leukotree.report.collect import collect
from leukotree.report.page import write
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

TREE = Taxonomy.paper().prune(["normal", "reactive", "AML", "APML"])
VARIANTS = ("flat", "base", "multilabel")
SKILL = {"flat": 1.0, "base": 1.3, "multilabel": 2.6}
"""How much the logits of a variant favour the true path."""
SPACE = {
    "loss.gamma": {"uniform": [0.0, 5.0]},
    "optim.lr": {"loguniform": [1.0e-6, 1.0e-3]},
    "optim.batch_size": {"choice": [16, 32, 64]},
}
STUDY: dict[str, Any] = {
    "study": "synthetic",
    "base": {"data": {"shards": "absent", "test_fold": 1}, "optim": {"epochs": 6}},
    "variants": list(VARIANTS),
    "folds": {"outer": 3, "inner": 2},
    "seeds": [0, 1],
    "search": {
        "algorithm": "tpe",
        "scheduler": "asha",
        "trials": 8,
        "metric": "macro_f1",
        "nested": False,
        "space": SPACE,
    },
}
BLANK = {"svg": b'<svg viewBox="0 0 1 1"></svg>', "png": b"\x89PNG"}
"""Kind of a file -> what stands for a figure in it."""
CHOSEN = {
    "flat": {"loss.gamma": 2.5, "optim.lr": 3e-5, "optim.batch_size": 32},
    "base": {"loss.gamma": 4.9, "optim.lr": 3e-5, "optim.batch_size": 32},
    "multilabel": {"loss.gamma": 1.0, "optim.lr": 1.1e-6, "optim.batch_size": 64},
}


def images_of_fold(fold: int, patients: bool = True, one_leaf: bool = False) -> pd.DataFrame:
    """12 patients of 2 to 6 images; a patient has AML or APML cells and, unless `one_leaf`, normal and
    reactive ones."""
    rng = np.random.default_rng(100 + fold)
    rows = []
    for number in range(12):
        diagnosis = ["AML", "APML"][number % 2]
        kinds = (
            [["normal", "reactive", "AML", "APML"][number % 4]]
            if one_leaf
            else ["normal", "reactive", diagnosis, diagnosis]
        )
        rows += [(f"p{fold}-{number}", kind) for kind in kinds for _ in range(rng.integers(1, 4))]
    frame = pd.DataFrame(rows, columns=["patient", "leaf"])
    keys = [f"f{fold}-{i:04}" for i in rng.permutation(len(frame))]
    return frame.assign(key=keys, source="lab", fold=fold, patient=frame["patient"] if patients else "")


def log_probabilities(
    images: pd.DataFrame, skill: float, seed: Sequence[int], sharpness: float = 1.0
) -> np.ndarray:
    """(N, E) log p(child | parent): noise that favours the true path by `skill`, times `sharpness`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(images), len(TREE.edges)))
    logits += skill * TREE.path_matrix[[TREE.leaves.index(leaf) for leaf in images["leaf"]]]
    logits *= sharpness
    for children in TREE.children.values():
        columns = [TREE.edges.index(child) for child in children]
        logits[:, columns] -= np.logaddexp.reduce(logits[:, columns], axis=1, keepdims=True)
    return logits


def write_predictions(folder: Path, images: pd.DataFrame, logp: np.ndarray) -> None:
    """predictions.parquet and taxonomy.json of a run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "taxonomy.json").write_text(json.dumps(TREE.nested()))
    frame = images.assign(
        **{f"logp:{edge}": logp[:, i].astype(np.float32) for i, edge in enumerate(TREE.edges)}
    )
    frame.to_parquet(folder / "predictions.parquet")


def write_run(
    root: Path, row: Mapping[str, Any], images: pd.DataFrame, skill: float | None = None, **loss: Any
) -> Path:
    """The folder of a finished run. Its training loss falls from 2 to 1 at a learning rate of 1e-4."""
    folder, repeat = root / row["run_name"], row.get("repeat", 0)
    place = {
        "variant": row["variant"],
        "seed": row["seed"],
        "data": {"test_fold": row["test_fold"], "repeat": repeat},
        "loss": loss,
    }
    seed = [row["test_fold"], row["seed"], VARIANTS.index(row["variant"]), *([repeat] if repeat else [])]
    write_predictions(
        folder, images, log_probabilities(images, SKILL[row["variant"]] if skill is None else skill, seed)
    )
    (folder / "spec.yaml").write_text(RunSpec.model_validate(place).dump())
    (folder / "status.json").write_text(json.dumps({"state": "done", "epoch": 6, "epochs": 6}))
    environment = {"dataset": "def"[repeat] * 64, "commit": "c" * 40, "gpus": [], "streams": 2}
    (folder / "env.json").write_text(json.dumps(environment))
    (folder / "attempts.jsonl").write_text(json.dumps({"ranks": 2}) + "\n")
    rows: list[dict[str, Any]] = []
    for epoch in range(6):
        rows.append(
            {
                "kind": "step",
                "stage": "tree",
                "epoch": epoch,
                "step": epoch,
                "loss": 2 - epoch / 5,
                "lr": 1e-4,
            }
        )
        rows.append({"kind": "epoch", "epoch": epoch, "seconds": 1.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_search(
    folder: Path, variant: str, chosen: Mapping[str, Any], trials: pd.DataFrame | None = None, **best: Any
) -> None:
    """Write a search that has ended. `trials`: a row per completed trial with the searched keys and macro_f1;
    None for 8 random trials."""
    folder.mkdir(parents=True)
    table = random_trials(variant) if trials is None else completed(trials)
    history = [
        {
            "trial": row["trial"],
            "epoch": epoch,
            "macro_f1": row["macro_f1"] * epoch / row["epochs"],
            "seconds": 10.0,
        }
        for row in table.to_dict("records")
        for epoch in range(1, row["epochs"] + 1)
    ]
    table.to_csv(folder / "trials.csv", index=False)
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    frozen = {
        "study": "synthetic",
        "variant": variant,
        "metric": "macro_f1",
        "value": 0.79,
        "trial": 2,
        "trials": len(table),
    }
    (folder / "best.yaml").write_text(yamlfile.dump({**frozen, **best, "chosen": dict(chosen)}))


def completed(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials.csv of completed trials."""
    fixed = {"trial": range(len(trials)), "state": "completed", "epochs": 6, "macro_f1": trials["macro_f1"]}
    keys = trials.drop(columns="macro_f1")
    return pd.DataFrame({**fixed, "best_macro_f1": trials["macro_f1"], "seconds": 9.0}).join(keys)


def random_trials(variant: str, n: int = 8) -> pd.DataFrame:
    """The trials.csv of n trials. Every second trial was stopped early."""
    rng = np.random.default_rng(VARIANTS.index(variant))
    rows = []
    for trial in range(n):
        epochs = 6 if trial % 2 == 0 else int(rng.integers(1, 4))
        score = rng.uniform(0.2, 0.8)
        values = {
            "loss.gamma": rng.uniform(0, 5),
            "optim.lr": 10 ** rng.uniform(-6, -3),
            "optim.batch_size": rng.choice([16, 32, 64]),
        }
        state = "completed" if epochs == 6 else "stopped"
        rows.append(
            {
                "trial": trial,
                "state": state,
                "epochs": epochs,
                "macro_f1": score,
                "best_macro_f1": score,
                "seconds": 9.0,
                **values,
            }
        )
    return pd.DataFrame(rows)


def expected_runs(
    folds: int = 3, seeds: Sequence[int] = (0, 1), variants: Sequence[str] = VARIANTS
) -> list[dict[str, Any]]:
    """A row per outer-fold run, as `hpc.studies.study` gives them to `collect`."""
    return [
        {"variant": v, "test_fold": f, "seed": s, "run_name": f"{v}-{f:06x}{s:06x}"}
        for v in variants
        for f in range(folds)
        for s in seeds
    ]


def make_study(root: Path, searches: bool = True, **images: bool) -> Path:
    """Write the folder of STUDY. `images`: options of `images_of_fold`."""
    for row in expected_runs():
        write_run(root, row, images_of_fold(row["test_fold"], **images))
    for variant in VARIANTS if searches else ():
        write_search(root / "search" / variant, variant, CHOSEN[variant])
    return root


NESTED = {**STUDY, "search": {**STUDY["search"], "nested": True}}
"""STUDY, with a search for each outer fold."""


def make_nested(root: Path, variants: Sequence[str] = VARIANTS, **images: bool) -> Path:
    """Write the folder of NESTED. Each search has the predictions of its chosen trial: the images of the
    other outer folds, by models of the same skill as those of the outer folds."""
    for row in expected_runs(variants=variants):
        write_run(root, row, images_of_fold(row["test_fold"], **images))
    for variant in variants:
        for fold in range(3):
            folder = root / "search" / variant / f"fold{fold}"
            write_search(folder, variant, CHOSEN[variant])
            for inner, other in enumerate({0, 1, 2} - {fold}):
                others = images_of_fold(other, **images)
                logp = log_probabilities(others, SKILL[variant], [9, fold, inner, VARIANTS.index(variant)])
                write_predictions(folder / "runs" / "00002" / f"{variant}-{inner}", others, logp)
    return root


def report(
    root: Path,
    out: Path,
    study: Mapping[str, Any] | None = None,
    expected: Sequence[Mapping[str, Any]] | None = None,
    cells: Sequence[Mapping[str, Any]] = (),
) -> tuple[str, str]:
    """(Markdown, HTML) of a study, by default STUDY with its expected runs. `expected`, `cells`: as for
    `collect`."""
    rows = expected_runs() if expected is None else expected
    paths = write(collect(root, study or STUDY, rows, cells), out)
    markdown, html = (path.read_text(encoding="utf-8") for path in paths)
    return markdown, html


def markdown_of(
    root: Path,
    out: Path,
    study: Mapping[str, Any] | None = None,
    expected: Sequence[Mapping[str, Any]] | None = None,
    cells: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The Markdown of a `report` whose figures nobody looks at: they are neither laid out nor saved."""
    with mock.patch.object(drawing, "_saved", lambda figure, form, *rest, **look: BLANK[form]):
        return report(root, out, study, expected, cells)[0]


def section(markdown: str, title: str) -> str:
    """The body of a section. The title "" stands for the lead."""
    return markdown.split(f"\n## {title}\n")[1 if title else 0].split("\n## ")[0]


def table_row(markdown: str, title: str, *first: str) -> list[str]:
    """The cells of the first table row in a section that starts with the given cells."""
    lines = section(markdown, title).splitlines()
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        for line in lines
        if line.startswith("| ")
    ]
    return next(row for row in rows if row[: len(first)] == list(first))


def cells(part: Section, *first: str) -> list[str]:
    """The cells of the first table row that starts with the given cells, of a section before it is
    rendered."""
    rows = [
        list(row) for block in part.flat if isinstance(block, Table) for row in (block.header, *block.rows)
    ]
    return next(row for row in rows if row[: len(first)] == list(first))


def texts(part: Section) -> str:
    """The texts of a section before it is rendered."""
    return "\n".join(block.text for block in part.flat if isinstance(block, Text))
