"""The section about the flow of images and patients, from the files that were found to the test folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from leukotree.data.remote.place import place
from leukotree.records import made
from leukotree.records.made import Imported
from leukotree.report import flowchart, scores
from leukotree.report.blocks import Block, Figure, Section, Table, plural, text
from leukotree.report.flowchart import Step
from leukotree.report.prose import data as prose
from leukotree.report.summary import StudySummary

TITLE = "Flow of images and patients"
MOST = 8
"""Largest number of reasons in the figure. With more, the rarest are one line."""


def section(summary: StudySummary) -> Section:
    """A figure, and a table of the images and patients of each test fold and leaf."""
    imports = made.imported(place(summary.base.data.shards))
    tested = _tested(summary)
    steps = [*_before(imports, summary.dataset), _last(summary, tested)]
    figure = Figure(
        "flow", "Images and patients from the files that were found to the test folds.", flowchart.draw(steps)
    )
    blocks: list[Block] = [figure, _per_fold(summary, tested)]
    missing = _not_recorded(imports, summary.dataset)
    if missing:
        blocks.append(text(prose.FLOW_UNKNOWN, "note", what=" and ".join(missing)))
    return Section(TITLE, blocks)


def _tested(summary: StudySummary) -> pd.DataFrame:
    """A row per tested image: patient, fold and leaf."""
    runs = scores.one_per_fold(summary.runs)
    return pd.concat(
        [
            run.images[["patient"]].assign(
                fold=run.test_fold, leaf=np.asarray(run.taxonomy.leaves, dtype=object)[run.true]
            )
            for run in runs
        ],
        ignore_index=True,
    )


def _before(imports: list[Imported], dataset: Mapping[str, Any] | None) -> list[Step]:
    """What came before the tests: files, manifest, packed images."""
    steps = []
    if imports:
        images = sum(one.images for one in imports)
        skipped: Counter[str] = Counter()
        for one in imports:
            skipped.update(one.skipped)
        found = plural(images + skipped.total(), "file")
        steps.append(Step(f"{found} in the folders of the data", _reasons(skipped, "not imported")))
    packed = _packed(dataset)
    if dataset is not None and packed is not None:
        dropped = Counter(str(row.get("reason", "unknown")) for row in dataset.get("dropped", []))
        unmatched = _unmatched(dataset)
        manifest = plural(packed + dropped.total() + unmatched.total(), "image")
        sides = [
            *_reasons(dropped, "not packed, broken"),
            *_reasons(unmatched, "not packed, to match the sources"),
        ]
        steps.append(Step(f"{manifest} in the manifest", sides))
        steps.append(Step(f"{plural(packed, 'image')} packed, {_people(dataset.get('patients', 0))}"))
    return steps


def _unmatched(dataset: Mapping[str, Any]) -> Counter[str]:
    """What `pack --match leaf` left out: "leaf of source" -> images."""
    unmatched = dataset.get("unmatched")
    of_sources = unmatched if isinstance(unmatched, dict) else {}
    return Counter(
        {
            f"{leaf} of {source}": count
            for source, leaves in of_sources.items()
            for leaf, count in leaves.items()
        }
    )


def _packed(dataset: Mapping[str, Any] | None) -> int | None:
    """The number of packed images. None where dataset.json is not here, or does not say."""
    counts = (dataset or {}).get("counts")
    return sum(counts.values()) if isinstance(counts, dict) else None


def _last(summary: StudySummary, tested: pd.DataFrame) -> Step:
    """The tested images, and those that are packed and not tested yet."""
    folds = tested["fold"].nunique()
    known = tested.loc[tested["patient"] != "", "patient"].nunique()
    lines = [f"{plural(len(tested), 'image')} tested in {plural(folds, 'fold')}, {_people(known)}"]
    rest = (_packed(summary.dataset) or 0) - len(tested)
    if rest > 0:
        lines.append(f"{plural(rest, 'image')} in folds without a result")
    return Step("\n".join(lines))


def _people(patients: int) -> str:
    return plural(patients, "patient") if patients else "patients unknown"


def _reasons(counts: Counter[str], what: str) -> list[str]:
    """A line with the total, and one for each reason, the most frequent first."""
    if not counts.total():
        return []
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"{count}: {reason}" for reason, count in ordered[:MOST]]
    if rest := ordered[MOST:]:
        lines.append(f"{sum(count for _, count in rest)}: {len(rest)} other reasons")
    return [f"{plural(counts.total(), 'file')} {what}:", *lines]


def _per_fold(summary: StudySummary, tested: pd.DataFrame) -> Table:
    """A row per test fold, a column per leaf: images / patients."""
    leaves = summary.runs[0].taxonomy.leaves
    rows = []
    for name, part in [
        *(
            (summary.fold_name(fold), tested[tested["fold"] == fold])
            for fold in sorted(tested["fold"].unique())
        ),
        ("all", tested),
    ]:
        per_leaf = [_cell(part[part["leaf"] == leaf]) for leaf in leaves]
        rows.append([name, _cell(part), *per_leaf])
    return Table("Images / patients of each test fold and leaf.", ["fold", "all", *leaves], rows)


def _cell(part: pd.DataFrame) -> str:
    known = part.loc[part["patient"] != "", "patient"].nunique()
    return f"{len(part)} / {known if known or not len(part) else 'unknown'}"


def _not_recorded(imports: list[Imported], dataset: Mapping[str, Any] | None) -> list[str]:
    missing = [] if imports else ["what an import left out"]
    return missing if _packed(dataset) is not None else [*missing, "what was packed"]
