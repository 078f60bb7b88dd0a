"""A run is explained: which images, which rows, continued after a stop, and done once."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from leukotree import files, signals
from leukotree.data.dataset import Dataset
from leukotree.data.pack import pack
from leukotree.distributed.engine import Engine
from leukotree.errors import Busy, InputError, Preempted, RunFailed
from leukotree.evaluation import decide
from leukotree.explain import measures, work
from leukotree.explain.run import Explained, Settings, explain
from leukotree.records import explanations, predictions, runfolder
from leukotree.training.run import run
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("trains models and explains them")
CPU = Engine(0, 1, torch.device("cpu"))
FEW = Settings(images=6, methods=("gradcam", "rollout"), road=1, panels=1, workers=0)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """FEW images are two parts of each method."""
    monkeypatch.setattr(work, "CHUNK", 4)


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run of a variant."""
    root, done = tmp_path_factory.mktemp("runs"), {}

    def of(variant: str) -> Path:
        if variant not in done:
            done[variant] = run(tiny_spec(shards, {"variant": variant}), root).folder
        return done[variant]

    return of


@pytest.fixture
def folder(trained: Callable[[str], Path], tmp_path: Path) -> Path:
    source = trained("base")
    return Path(shutil.copytree(source, tmp_path / source.name))


@pytest.mark.parametrize("variant", ["flat", "base", "multilabel", "ensemble"])
def test_each_image_has_a_row_for_each_decision_and_for_the_path(
    variant: str, trained: Callable[[str], Path], shards: Path, phantom_manifest: Path, tmp_path: Path
) -> None:
    source = trained(variant)
    folder = Path(shutil.copytree(source, tmp_path / source.name))
    done = explain(folder, FEW, CPU, phantom_manifest)
    stored, logp, taxonomy = predictions.read(folder)
    assert (done.images, done.with_mask, done.left_out) == (6, 6, ())
    frame = explanations.read(folder / "explanations.parquet")
    assert set(frame["key"]) <= set(stored["key"])  # its test fold, and nothing else
    assert set(frame["run"]) == {folder.name}
    for key, rows in frame.groupby("key"):
        decided = rows["decided"].iloc[0]
        on_path = [taxonomy.parent_of[node] for node in taxonomy.path(decided)]
        decisions = [name for name in on_path if name in taxonomy.decisions]
        for method, weights in (("gradcam", "trained"), ("rollout", "random"), ("centre", "trained")):
            part = rows[(rows["method"] == method) & (rows["weights"] == weights)]
            assert part["decision"].tolist() == [*decisions, explanations.PATH]
        row = int(np.flatnonzero(stored["key"] == key)[0])
        leaf = taxonomy.leaves.index(decided)
        path = rows[rows["decision"] == explanations.PATH]["probability"]
        np.testing.assert_allclose(path, np.exp(logp[row] @ taxonomy.path_matrix[leaf]), rtol=1e-4)
    assert frame["area"].between(0.001, 0.6).all()
    of_path = frame[(frame["decision"] == explanations.PATH) & (frame["weights"] == "trained")]
    assert of_path.groupby("method")["road"].count().to_dict() == {"gradcam": 1, "rollout": 1, "centre": 1}
    known = frame[(frame["method"] == "gradcam") & (frame["weights"] == "random")]
    assert known["similarity"].between(-1, 1).sum() > len(known) / 2
    assert done.pictures[0].read_bytes().startswith(b"\x89PNG")


def test_fewer_methods_and_images_than_before_are_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explain(folder, replace(FEW, images=4, panels=0), CPU)
    capsys.readouterr()
    explain(folder, replace(FEW, images=2, methods=("gradcam",), panels=0), CPU)
    assert "had more than asked for now, which is left out: rollout, 2 images" in capsys.readouterr().err


def test_without_a_method_that_suits_the_table_stays(shards: Path, tmp_path: Path) -> None:
    folder = run(tiny_spec(shards, {"backbone.name": "test_resnet"}), tmp_path).folder
    done = explain(folder, replace(FEW, images=2, methods=("gradcam",), panels=0), CPU)
    before = done.table.read_bytes()
    with pytest.raises(InputError, match="rollout needs another backbone"):
        explain(folder, replace(FEW, images=2, methods=("rollout",)), CPU)
    assert done.table.read_bytes() == before


def test_the_first_image_and_the_most_difficult_ones_have_pictures(folder: Path) -> None:
    done = explain(folder, FEW, CPU)
    stored, logp, taxonomy = predictions.read(folder)
    p = np.exp(decide.leaf_logp(logp, taxonomy))
    decided = decide.greedy(logp, taxonomy)
    wrong = np.array(taxonomy.leaves)[decided] != stored["leaf"].to_numpy()
    error = stored["key"][np.argmax(np.where(wrong, p[np.arange(len(p)), decided], -1))]
    top = np.sort(p, axis=1)
    tie = stored["key"][np.argmin(top[:, -1] - top[:, -2])]
    keys = [path.stem.removeprefix("gradcam-") for path in done.pictures]
    assert wrong.any()
    assert keys[1:] == [key for key in dict.fromkeys([error, tie]) if key != keys[0]]
    assert explanations.panel(folder, "gradcam", error) in done.pictures
    assert explanations.panel(folder, "hirescam", error) is None


def test_the_area_and_the_centre_are_those_of_the_masks(folder: Path, phantom_manifest: Path) -> None:
    from PIL import Image

    explain(folder, replace(FEW, images=3, methods=("gradcam",)), CPU, phantom_manifest)
    frame = explanations.read(folder / "explanations.parquet")
    manifest = pd.read_csv(phantom_manifest)
    for key, rows in frame[frame["method"] == "centre"].groupby("key"):
        mask = np.array(Image.open(phantom_manifest.parent / manifest["mask"][int(str(key)[:7])])) > 0
        assert rows["area"].iloc[0] == pytest.approx(mask.mean(), abs=0.01)
        gaussian = measures.centre(64)
        expected = (gaussian * mask).sum() / gaussian.sum()
        assert rows["energy"].iloc[0] == pytest.approx(expected, abs=0.01)


def test_a_second_call_does_nothing_and_more_images_extend_it(folder: Path, phantom_manifest: Path) -> None:
    first = explain(folder, FEW, CPU, phantom_manifest)
    before = first.table.stat().st_mtime_ns
    again = explain(folder, FEW, CPU, phantom_manifest)
    assert (first.computed, again.computed) == (6, 0)
    assert again.table.stat().st_mtime_ns == before
    more = explain(folder, replace(FEW, images=10), CPU, phantom_manifest)
    assert (more.images, more.computed) == (10, 6)  # the full part is kept
    assert set(first.frame["key"]) < set(more.frame["key"])


def test_a_stopped_explanation_continues_with_the_same_bits(
    folder: Path, phantom_manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other" / folder.name))
    whole = explain(other, FEW, CPU, phantom_manifest)
    asked = iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(signals, "requested", lambda: next(asked))
        with pytest.raises(Preempted, match="2 of 6 parts"):
            explain(folder, FEW, CPU, phantom_manifest)
    assert not (folder / "explanations.parquet").exists()
    rest = explain(folder, FEW, CPU, phantom_manifest)
    assert rest.computed == 4
    assert rest.table.read_bytes() == whole.table.read_bytes()


def test_other_masks_give_other_rows(folder: Path, phantom_manifest: Path, tmp_path: Path) -> None:
    without = explain(folder, FEW, CPU)
    assert (without.with_mask, without.frame["energy"].count()) == (0, 0)
    assert without.frame["stability"].count() > 0
    assert explain(folder, FEW, CPU, phantom_manifest).frame["energy"].count() > 0


def test_images_with_a_mask_come_first(
    folder: Path, shards: Path, phantom_manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = pd.read_csv(phantom_manifest, dtype=str, keep_default_na=False)
    keys = predictions.read(folder)[0]["key"].iloc[:2]
    masked = [int(key[:7]) for key in keys]
    manifest.loc[~manifest.index.isin(masked), "mask"] = ""
    path = phantom_manifest.with_name("few.csv")
    manifest.to_csv(path, index=False)
    done = explain(folder, FEW, CPU, path)
    assert done.with_mask == 2
    assert set(done.frame.loc[done.frame["area"].notna(), "key"]) == set(keys)
    assert f"4 of 6 images have no mask in {path}" in capsys.readouterr().err


class TestOtherData:
    @pytest.fixture(scope="class")
    def foreign(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
        """(manifest, shards) of another phantom set, as of another hospital."""
        from leukotree.data import phantom

        base = tmp_path_factory.mktemp("foreign")
        manifest = phantom.write(base / "images", patients=14, per_patient=1, size=64, seed=9)
        pd.read_csv(manifest).assign(source="hospital").to_csv(manifest, index=False)
        pack(manifest, base / "Müller 2", folds=2, size=48, drop_broken=True, group_duplicates=True)
        return manifest, base / "Müller 2"

    def test_all_of_its_images_are_explained(self, folder: Path, foreign: tuple[Path, Path]) -> None:
        dataset = Dataset.open(foreign[1])
        settings = replace(FEW, images=99, methods=("gradcam",))
        done = explain(folder, settings, CPU, foreign[0], foreign[1])
        name = f"M-ller-2-{dataset.fingerprint[:8]}"
        assert done.table == folder / f"explanations-{name}.parquet"
        assert explanations.names(folder) == [name]
        assert set(done.frame["key"]) == set(dataset.index["key"])
        assert done.with_mask == 14

    def test_a_manifest_gives_the_same_as_its_shards(self, folder: Path, foreign: tuple[Path, Path]) -> None:
        settings = replace(FEW, images=99, methods=("gradcam",))
        first = explain(folder, settings, CPU, foreign[0], foreign[1]).frame
        second = explain(folder, settings, CPU, foreign[0], foreign[0]).frame
        order = ["key", "decision", "weights", "method"]
        columns = [*order, "energy", "area", "probability"]
        trained = [frame[frame["weights"] == "trained"] for frame in (first, second)]
        one, other = (frame.sort_values(order)[columns].reset_index(drop=True) for frame in trained)
        pd.testing.assert_frame_equal(one, other, rtol=1e-3)  # batches are others

    def test_images_of_another_size_are_refused(
        self, folder: Path, foreign: tuple[Path, Path], tmp_path: Path
    ) -> None:
        pack(foreign[0], tmp_path / "large", folds=2, size=56)
        with pytest.raises(InputError, match=r"has images of 56 pixels, .* was trained on 48; .*--size 48"):
            explain(folder, FEW, CPU, None, tmp_path / "large")

    def test_no_image_of_the_own_data_is_explained(
        self, folder: Path, shards: Path, foreign: tuple[Path, Path]
    ) -> None:
        with pytest.raises(InputError, match="leave --data out"):
            explain(folder, FEW, CPU, None, shards)

    def test_other_images_of_its_patients_are_left_out(
        self, folder: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from leukotree.data import phantom

        manifest = phantom.write(tmp_path / "images", patients=14, per_patient=1, size=48, seed=9)
        known = Dataset.open(shards).index["patient"].iloc[0]
        frame = pd.read_csv(manifest, dtype=str)
        frame["patient"] = ["new 1", known, *(f"new {row}" for row in range(2, len(frame)))]
        frame.to_csv(manifest, index=False)
        done = explain(folder, replace(FEW, images=99, methods=("gradcam",), panels=0), CPU, None, manifest)
        assert known not in {patient.split("/")[-1] for patient in done.frame["patient"]}
        assert done.images == len(frame) - 1
        assert "left out: 0 images of its data set, and 1 of its patients" in capsys.readouterr().err

    def test_foreign_masks_are_refused(self, folder: Path, tmp_path: Path) -> None:
        """Phantom sets have the same names and other pictures."""
        from leukotree.data import phantom

        manifest = phantom.write(tmp_path / "images", patients=14, per_patient=1, size=48, seed=9)
        with pytest.raises(InputError, match="belong to images of other bytes"):
            explain(folder, FEW, CPU, manifest)


def test_changed_data_are_refused(folder: Path, phantom_manifest: Path, tmp_path: Path) -> None:
    other = tmp_path / "again"
    pack(phantom_manifest, other, folds=4, size=48, seed=5)
    spec = (folder / "spec.yaml").read_text()
    shards = str(runfolder.read_spec(folder).data.shards)
    (folder / "spec.yaml").write_text(spec.replace(shards, str(other)))
    with pytest.raises(InputError, match=f"{folder}: made from other data"):
        explain(folder, FEW, CPU)


def test_training_images_are_not_explained(folder: Path) -> None:
    spec = runfolder.read_spec(folder).override({"data.all_folds": True})
    (folder / "spec.yaml").write_text(spec.dump())
    with pytest.raises(InputError, match="has no test images"):
        explain(folder, FEW, CPU)


def test_one_process_explains_a_run_at_a_time(folder: Path) -> None:
    (folder / "explanations").mkdir()
    with (
        files.locked(folder / "explanations" / ".lock", "held"),
        pytest.raises(Busy, match="another process explains this run"),
    ):
        explain(folder, FEW, CPU)


@pytest.mark.parametrize(
    ("number", "error", "says"),
    [(errno.ENOSPC, RunFailed, "no room left"), (errno.EROFS, InputError, "cannot be written: Read-only")],
)
def test_a_folder_that_cannot_be_written_is_named(
    number: int, error: type[Exception], says: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, {errno.ENOSPC: "No space left", errno.EROFS: "Read-only file system"}[number])

    monkeypatch.setattr(files, "write_atomic", fail)
    with pytest.raises(error, match=says):
        explain(folder, FEW, CPU)
    assert not (folder / "explanations.parquet").exists()


def test_images_that_leave_one_place_are_refused(
    shards: Path, phantom_manifest: Path, tmp_path: Path
) -> None:
    pack(phantom_manifest, tmp_path / "small", folds=4, size=32)
    changes = {"backbone.name": "test_resnet", "variant": "multilabel", "loss.isolation": "branched"}
    spec = tiny_spec(tmp_path / "small", changes)
    folder = run(spec, tmp_path / "runs").folder
    with pytest.raises(InputError, match="is one place for images of 32 pixels"):
        explain(folder, FEW, CPU)


def test_rollout_is_left_out_where_there_is_no_attention(shards: Path, tmp_path: Path) -> None:
    spec = tiny_spec(shards, {"backbone.name": "test_resnet", "variant": "flat"})
    done: Explained = explain(run(spec, tmp_path).folder, FEW, CPU)
    assert done.left_out == ("rollout",)
    assert set(done.frame["method"]) == {"gradcam", "centre"}
