"""Which runs have seen an image or its patient, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leukotree.data.dataset import Dataset
from leukotree.errors import InputError
from leukotree.inference import images, known
from leukotree.inference.images import Images
from leukotree.inference.loaded import Prepared
from leukotree.inference.members import Member
from leukotree.records import predictions
from leukotree.spec import RunSpec
from tests.helpers.specs import tiny_spec


def member(shards: Path, folder: Path, **data: object) -> Member:
    """A run whose env.json says that it was trained on the shards as they are."""
    spec: RunSpec = tiny_spec(shards, {f"data.{key}": value for key, value in data.items()})
    path = folder / spec.run_name
    path.mkdir(exist_ok=True)
    dataset = Dataset.open(shards)
    (path / "env.json").write_text(f'{{"dataset": "{dataset.fingerprint}"}}')
    return Member(path, spec, dataset.taxonomy)


def of_rows(rows: list[tuple[str, str, str]]) -> Images:
    """Images by (sha256, source, patient)."""
    table = pd.DataFrame(rows, columns=["sha256", "source", "patient"])
    table = table.assign(image=[str(number) for number in range(len(rows))], leaf="")
    return Images(table, 48, lambda number, buffer: None)


def test_images_and_patients_of_other_folds_were_trained_on(shards: Path, tmp_path: Path) -> None:
    index = Dataset.open(shards).index
    first = index[index["fold"] == 1].iloc[0]
    found = known.compare(
        of_rows(
            [
                (first["sha256"], "", ""),
                ("f" * 64, first["source"], first["patient"]),
                ("f" * 64, "another source", first["patient"]),
                ("f" * 64, "", first["patient"]),
                ("f" * 64, "", ""),
            ]
        ),
        [member(shards, tmp_path, test_fold=fold) for fold in range(4)]
        + [member(shards, tmp_path, all_folds=True)],
    )
    seen = [True, False, True, True, True]  # the runs of folds 0 to 3, and that on all folds
    unseen = [False] * 5
    assert found.trained.tolist() == [seen, seen, unseen, seen, unseen]
    assert found.row.tolist() == [int(first.name), -1, -1, -1, -1]


def test_known_images_are_in_the_order_of_the_index_and_apart_from_the_others() -> None:
    found = known.Known(np.array([7, -1, 3, 5, -1]), np.zeros((5, 1), dtype=bool))
    assert [part.tolist() for part in found.order(np.array([0, 1, 2, 4]))] == [[2, 0], [1, 4]]


def test_copies_of_an_image_have_a_row_each(shards: Path, tmp_path: Path) -> None:
    index = Dataset.open(shards).index
    digest = index["sha256"].iloc[2]
    copies = known.compare(of_rows([(digest, "", "")] * 2), [member(shards, tmp_path)])
    assert copies.row.tolist() == [2, 2]


def test_the_shards_themselves_are_all_known(shards: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(shards)
    found = known.compare(images.of_shards(shards, Prepared(48, 95)), [member(shards, tmp_path, test_fold=2)])
    assert found.row.tolist() == list(range(len(dataset)))
    assert found.trained[:, 0].tolist() == (dataset.index["fold"] != 2).tolist()
    assert not found.unsure.any()


def test_without_the_data_set_nothing_is_known_and_that_is_said(shards: Path, tmp_path: Path) -> None:
    here = member(shards, tmp_path)
    (here.folder / "env.json").write_text('{"dataset": "of another time"}')
    moved = Member(here.folder, here.spec.override({"data.shards": str(tmp_path / "gone")}), here.taxonomy)
    empty = Dataset.open(shards).index.head(0)[["key", "patient", "source", "fold", "leaf"]]
    logp = {f"logp:{edge}": [] for edge in here.taxonomy.edges}
    empty.assign(**logp).to_parquet(here.folder / "predictions.parquet")
    (here.folder / "taxonomy.json").write_text(json.dumps(here.taxonomy.nested()))
    for run, says in ((here, "is another data set"), (moved, "is not here")):
        found = known.compare(of_rows([("f" * 64, "", "")]), [run])
        assert not found.trained.any()
        assert found.unsure.all()
        assert says in found.notes[0]
        with pytest.raises(InputError, match=says):
            known.in_study(of_rows([("f" * 64, "", "")]), run)


def test_without_the_data_set_the_runs_know_the_patients_that_they_have_tested(
    shards: Path, tmp_path: Path
) -> None:
    dataset = Dataset.open(shards)
    members = []
    for fold in (0, 1):
        one = member(shards, tmp_path, test_fold=fold)
        rows = np.flatnonzero(dataset.index["fold"] == fold)
        logp = np.zeros((len(rows), len(dataset.taxonomy.edges)), dtype=np.float32)
        predictions.write(one.folder / "predictions.parquet", predictions.Predictions(rows, logp), dataset)
        (one.folder / "taxonomy.json").write_text(json.dumps(dataset.taxonomy.nested()))
        moved = one.spec.override({"data.shards": str(tmp_path / "gone")})
        members.append(Member(one.folder, moved, one.taxonomy))
    first = dataset.index[dataset.index["fold"] == 1].iloc[0]
    rows = [(first["sha256"], first["source"], first["patient"]), ("f" * 64, "x", "new")]
    found = known.compare(of_rows(rows), members)
    assert found.trained.tolist() == [[True, False], [False, False]]
    assert found.unsure.tolist() == [False, True], "the new one may be in a fold that is not among the runs"
    assert "patients are compared" in found.notes[1]
