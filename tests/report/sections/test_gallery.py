"""Difficult images: the most confident errors and the nearest ties, with pictures only where they may be
shown."""

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from leukotree.data.dataset import Dataset
from leukotree.evaluation import decide, difficult
from leukotree.records import explanations
from leukotree.report.blocks import Gallery, Table
from leukotree.report.collect import collect
from leukotree.report.sections import gallery
from tests.helpers.study_results import STUDY, TREE, expected_runs, texts, write_run


def table(part) -> Table:
    (found,) = (block for block in part.blocks if isinstance(block, Table))
    return found


def test_errors_are_the_most_confident_ones_and_ties_the_closest(whole):
    summary = collect(whole, STUDY, expected_runs())
    rows = [row for row in table(gallery.section(summary)).rows if row[0] == "base"]
    runs = [run for run in summary.runs if run.variant == "base" and run.seed == 0]
    p = np.concatenate([np.exp(decide.leaf_logp(run.logp, TREE)) for run in runs])
    true, predicted = (np.concatenate([getattr(run, name) for run in runs]) for name in ("true", "predicted"))
    keys = np.concatenate([run.images["key"] for run in runs])
    confident = p[np.arange(len(p)), predicted] * (true != predicted)
    order = np.argsort(-confident)[: difficult.MOST]
    errors = [row for row in rows if row[1] == "confident error"]
    assert [row[2] for row in errors] == keys[order].tolist()
    assert [row[5] for row in errors] == [f"{value:.2f}" for value in confident[order]]
    assert all(row[3] != row[4] for row in errors)
    top = np.sort(p, axis=1)[:, ::-1]
    ties = [row for row in rows if row[1] == "near tie"]
    assert [row[2] for row in ties] == keys[np.argsort(top[:, 0] - top[:, 1])][: len(ties)].tolist()


@pytest.fixture
def tested(shards, tmp_path):
    """A study whose only run was tested on fold 1 of the phantom shards, with random answers."""
    data = Dataset.open(shards)
    images = data.index[data.index["fold"] == 1]
    images = images[images["leaf"].isin(TREE.leaves)]
    (row,) = expected_runs(folds=2, seeds=(0,), variants=("flat",))[1:]
    frame = pd.DataFrame({name: images[name] for name in ("key", "leaf", "patient", "source")})
    folder = write_run(tmp_path / "runs", row, frame.assign(fold=1).reset_index(drop=True), skill=0.0)

    def collected(source: str = "phantom", fingerprint: str = data.fingerprint):
        (folder / "env.json").write_text(json.dumps({"dataset": fingerprint}))
        stored = pd.read_parquet(folder / "predictions.parquet").assign(source=source)
        stored.to_parquet(folder / "predictions.parquet")
        summary = collect(tmp_path / "runs", {**STUDY, "variants": ["flat"], "search": {"trials": 0}}, [row])
        shown = summary.base.model_copy(
            update={"data": summary.base.data.model_copy(update={"shards": str(shards)})}
        )
        return replace(summary, base=shown, dataset={})

    return collected


def pictures(part) -> list[Gallery]:
    return [block for block in part.blocks if isinstance(block, Gallery)]


def test_phantoms_are_shown(tested):
    part = gallery.section(tested())
    shown = [picture for block in pictures(part) for picture in block.pictures]
    assert len(shown) == len(table(part).rows)
    assert all(picture.jpeg.startswith(b"\xff\xd8") and len(picture.jpeg) < 8000 for picture in shown)


def test_an_explained_image_is_shown_with_its_maps(tested):
    summary = tested()
    (run,) = summary.runs
    key = table(gallery.section(summary)).rows[0][2]
    folder = explanations.panels(run.folder) / "0123"
    folder.mkdir(parents=True)
    buffer = io.BytesIO()
    Image.new("RGB", (800, 260), "navy").save(buffer, "PNG")
    (folder / f"gradcam-{key}.png").write_bytes(buffer.getvalue())
    first, *others = pictures(gallery.section(summary))[0].pictures
    assert first.wide
    assert not any(picture.wide for picture in others)
    with Image.open(io.BytesIO(first.jpeg)) as shown:
        assert shown.size == (600, 195)
    (folder / f"gradcam-{key}.png").write_bytes(b"no picture")
    assert not pictures(gallery.section(summary))[0].pictures[0].wide


def test_other_images_are_shown_only_if_asked_for(tested):
    summary = tested(source="clinic")
    part = gallery.section(summary)
    assert not pictures(part)
    assert "`leukotree report STUDY --images` shows them" in texts(part)
    assert pictures(gallery.section(summary, images=True))


def test_images_of_other_data_are_never_shown(tested):
    part = gallery.section(tested(fingerprint="0" * 64), images=True)
    assert not pictures(part)
    assert "not shown" not in texts(part)
    assert table(part).rows
